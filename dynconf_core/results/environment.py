"""The environment of a run: versions, hardware and commit."""

import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("dynconf", "torch", "torchvision", "numpy", "prefect", "mlflow", "optuna")


@dataclass(frozen=True)
class Environment:
    """Versions, hardware and commit, as recorded in the results."""

    python: str
    platform: str
    cpu: str
    cores: int | None
    gpu: str | None
    commit: str | None
    versions: dict[str, str]


def environment() -> Environment:
    """The environment of this process; the GPU is named if torch is loaded and has one."""
    torch = sys.modules.get("torch")
    return Environment(
        python=platform.python_version(),
        platform=platform.platform(),
        cpu=_cpu_model(),
        cores=os.cpu_count(),
        gpu=torch.cuda.get_device_name(0) if torch is not None and torch.cuda.is_available() else None,
        commit=_commit(),
        versions={name: found for name in PACKAGES if (found := _version(name))},
    )


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    """The commit of dynconf's checkout, marked if files differ from it.

    None if dynconf does not run from its own checkout, even if it is installed within another one.
    """
    here = Path(__file__).resolve()

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(here.parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", here.name)
        return git("describe", "--always", "--dirty", "--abbrev=12", "--match=") or None
    except (OSError, subprocess.SubprocessError):
        return None
