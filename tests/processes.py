"""Work done in processes of its own, which inherit nothing but the environment and what a server for them has imported."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

import cloudpickle
import torch

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "mlflow.store.tracking.sqlalchemy_store",
        "sklearn.linear_model",
        "sklearn.datasets",
        "dynconf_tasks.track",
        "dynconf_core.training.loop",
        "dynconf_core.conversion.convert",
        "dynconf_core.experiment.request",
        "dynconf_core.simulation.collect",
        "dynconf_flows.command.main",
        "torch._dynamo",  # which DistributedDataParallel imports
    ]
)


def started(work: Callable[[], object], environment: Mapping[str, str] | None = None) -> BaseProcess:
    """Start ``work`` in a new process, with these environment variables added."""
    process = CONTEXT.Process(target=_run, args=(cloudpickle.dumps(work), {**os.environ, **(environment or {})}), daemon=True)
    process.start()
    return process


def _run(work: bytes, environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(1)
    cloudpickle.loads(work)()


def ended(process: BaseProcess, seconds: float = 120) -> int:
    """Wait for the process; returns its exit code, negative for a signal."""
    process.join(seconds)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise TimeoutError(f"the process did not end within {seconds} seconds")
    return process.exitcode


def killed_at(point: str, work: Callable[[], object]) -> None:
    """Do ``work`` in a new process that is killed at a failure point, and wait for its end."""
    assert ended(started(work, {"DYNCONF_DIE_AT": point})) == -signal.SIGKILL


def dynconf(*arguments: str | Path, cwd: Path, path: Sequence[Path] = ()) -> subprocess.CompletedProcess[str]:
    """The command ``dynconf`` in a new process that has imported most of what it needs, so that it starts at once.

    For what a command says. Where its start is the point, or Prefect, which reads its settings when it is imported, and where
    it is signalled, a test starts ``python -m dynconf_flows.command.main``.

    Args:
        cwd: the current folder, which is first on the path, as with ``python -m``.
        path: folders that are next on the path, as with ``PYTHONPATH``.
    """

    def work() -> None:
        from dynconf_flows.command.main import main

        main()

    return _printed(work, ["dynconf", *map(str, arguments)], cwd, [cwd, *path])


def script(file: Path, *arguments: str, cwd: Path, path: Sequence[Path] = ()) -> subprocess.CompletedProcess[str]:
    """A Python file in a new process that has imported most of what it needs, so that it starts at once.

    Args:
        cwd: the current folder; the file's is first on the path.
        path: folders that are next on the path, as with ``PYTHONPATH``.
    """

    def work() -> None:
        runpy.run_path(str(file), run_name="__main__")

    return _printed(work, [str(file), *arguments], cwd, [file.parent, *path])


def _printed(work: Callable[[], object], words: list[str], cwd: Path, path: list[Path]) -> subprocess.CompletedProcess[str]:
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")

        def prepared() -> None:
            os.chdir(cwd)
            sys.path[:0] = map(str, path)
            sys.argv = words
            for file, descriptor in ((out, 1), (err, 2)):
                os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT, 0o600), descriptor)
            work()

        code = ended(started(prepared), 300)
        return subprocess.CompletedProcess(words, code, out.read_text(), err.read_text())
