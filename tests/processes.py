"""Work done in processes of its own, which inherit nothing but the environment and what a server for them has imported."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Mapping
from multiprocessing.process import BaseProcess

import cloudpickle

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "mlflow.store.tracking.sqlalchemy_store",
        "dynconf_tasks.track",
        "dynconf_core.training.loop",
        "sklearn.datasets",
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
