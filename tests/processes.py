"""Work done in processes of its own, which inherit what the tests have imported."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Mapping
from multiprocessing.process import BaseProcess


def started(work: Callable[[], object], environment: Mapping[str, str] | None = None) -> BaseProcess:
    """Start ``work`` in a new process, with these environment variables added."""

    def run() -> None:
        os.environ.update(environment or {})
        work()

    process = multiprocessing.get_context("fork").Process(target=run, daemon=True)
    process.start()
    return process


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
