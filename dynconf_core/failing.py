"""Failure points: named places at which a process can be made to fail, to see what is left behind and what a rerun makes of it.

In a test, ``failing(hook)`` calls ``hook(name)`` at every point that is passed; the hook may raise, or kill the process. In a
child process, the environment variable ``DYNCONF_DIE_AT=NAME`` or ``NAME:COUNT`` kills the process (SIGKILL) when it passes the
point for the first or ``COUNT``-th time. Without either, a point does nothing.
"""

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

DIE_AT = "DYNCONF_DIE_AT"
POINTS = {
    "stage.claimed": "a stage's key is claimed, nothing is made yet",
    "store.files": "an artefact's files are written, its manifest is not",
    "store.manifest": "an artefact's manifest is written, but the artefact is not in place",
    "store.placed": "an artefact is in place, and its stage has not returned",
    "file.written": "a file is written under a temporary name, and not renamed",
    "train.epoch": "an epoch's state is on disk",
    "search.trial": "a trial of a search is recorded",
    "mlflow.made": "MLflow's database is made, and not in place",
    "track.created": "a run in MLflow is created, nothing is logged",
    "track.logged": "a run in MLflow has its figures, and has not ended",
    "study.enqueued": "a point of a study is a trial, which nobody runs yet",
    "study.taken": "a point of a study is taken, nothing is computed",
    "study.point": "a point of a study is computed, and not reported",
    "results.written": "results.json is written, the run is not reported as finished",
    "gc.aside": "an artefact or work folder is renamed, and not removed yet",
    "reconcile.ended": "the records of killed runs are ended, and their running files are still there",
}
"""The points, and what has happened there."""

_hook: Callable[[str], None] | None = None
_passed: Counter[str] = Counter()


def failure_point(name: str) -> None:
    """Pass the point ``name`` of ``POINTS``."""
    if _hook is not None:
        _hook(name)
    asked = os.environ.get(DIE_AT)
    if asked:
        point, _, count = asked.partition(":")
        _passed[name] += 1
        if name == point and _passed[name] == int(count or 1):
            os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def failing(hook: Callable[[str], None]) -> Iterator[None]:
    """Call ``hook(name)`` at every point that this process passes in the block."""
    global _hook
    before, _hook = _hook, hook
    try:
        yield
    finally:
        _hook = before
