"""Work done in processes of its own, which inherit nothing but the environment and what a server for them has imported."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

import cloudpickle

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


def dynconf(*arguments: str | Path, cwd: Path, path: Sequence[Path] = ()) -> subprocess.CompletedProcess[str]:
    """The command ``dynconf`` in a new process that has imported most of what it needs, so that it takes no seconds to start.

    For what a command says. Where its start is the point, or Prefect, which reads its settings when it is imported, and where
    it is signalled, a test starts ``python -m dynconf_flows.command.main``.

    Args:
        cwd: the current folder, which is first on the path, as with ``python -m``.
        path: folders that are next on the path, as with ``PYTHONPATH``.
    """
    words = list(map(str, arguments))
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        code = ended(started(lambda: _dynconf(words, cwd, path, out, err)))
        return subprocess.CompletedProcess(words, code, out.read_text(), err.read_text())


def _dynconf(words: list[str], cwd: Path, path: Sequence[Path], out: Path, err: Path) -> None:
    os.chdir(cwd)
    sys.path[:0] = [str(cwd), *map(str, path)]
    sys.argv = ["dynconf", *words]
    for file, descriptor in ((out, 1), (err, 2)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT, 0o600), descriptor)
    from dynconf_flows.command.main import main

    main()
