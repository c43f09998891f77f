"""Shared by all benchmarks: running contenders in fresh processes with equal environments, medians, and hardware facts."""

import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str((1 << 31) - 1),
    "MALLOC_TOP_PAD_": str(64 << 20),
}
"""Makes glibc keep freed memory, for all contenders alike: otherwise all are slower, and not by the same factor."""


def asked(
    worker: Callable[[dict[str, Any]], dict[str, Any]], script: str, arguments: dict[str, Any], threads: int
) -> dict[str, Any]:
    """What ``worker``, the ``--worker`` of ``script``, finds: on a CPU in a fresh process, on a GPU, where starting one takes
    longer than most measurements and the allocator is PyTorch's own, in this process."""
    return in_fresh_process(script, arguments, threads) if arguments["device"] == "cpu" else worker(arguments)


def in_fresh_process(script: str, arguments: Mapping[str, Any], threads: int) -> dict[str, Any]:
    """Run ``script --worker JSON``; returns the JSON on the last line of its output."""
    environment = {**os.environ, **ALLOCATOR, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(HERE.parent)}
    command = [sys.executable, str(HERE / script), "--worker", json.dumps(arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{script} {arguments} failed:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def median(values: Sequence[float]) -> float:
    """The median."""
    return statistics.median(values)


def environment_line(threads: int) -> str:
    """Hardware and versions, in one line."""
    import torch

    model = platform.processor() or platform.machine()
    cpu = Path("/proc/cpuinfo")
    flags = ""
    if cpu.is_file():
        text = cpu.read_text()
        model = next((line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name")), model)
        flags = " ".join(flag for flag in ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8") if f" {flag}" in text)
    return f"{model} ({flags}), {threads} thread(s), Python {platform.python_version()}, torch {torch.__version__}"


def peak_memory() -> float:
    """Peak memory of this process in MiB, as counted by the operating system."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
