"""Running a stage: its artefact is taken from the store if it exists.

The artefact store is the only cache; an artefact found there is verified file by file and returned as the state ``Cached``.
Prefect's own result cache is off, since it neither verifies results nor knows which code a stage depends on.

A stage is made under a claim on its key, so that processes sharing a home make each artefact once: the others wait, and take
over if the first one dies. What a stage needs to go on after an interruption lies in its work folder ``<home>/work/<key>``.
"""

import platform
import shutil
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from prefect import State
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed

from dynconf_core.experiment.job import Handle, Inputs, Job
from dynconf_core.experiment.stages import stage
from dynconf_core.failing import failure_point
from dynconf_core.store.artefacts import Artefact, Store
from dynconf_core.store.claim import claim
from dynconf_core.store.keys import StageKey
from dynconf_tasks.listening import Listener, listener

TASK_OPTIONS: dict[str, Any] = {"cache_policy": NO_CACHE, "persist_result": False}
Write = Callable[[Path, Path, Listener], Mapping[str, Any]]
"""Writes a stage's files into a folder; returns facts for the artefact's provenance.

The second folder is the stage's work folder, which need not exist: what lies there survives an interruption, until the artefact
is in the store.
"""


def run(name: str, job: Job, inputs: Inputs, write: Write, outcome: str = "ran") -> State[Handle] | Handle:
    """Take the artefact of the stage ``name`` from the store, or make it with ``write(folder, work, listener)``."""
    key, store = stage(name).key(job, inputs), Store(job.context.artefacts)
    work = job.context.work / key.key
    listening = listener(job.plan.setting, name)
    start = time.perf_counter()
    try:
        found, made = store.get(key), None
        if found is None or work.exists():
            with claim(job.context.home, key.key, f"{job.plan.setting} · {name}", listening.waiting):
                found = store.get(key)
                if found is None:
                    failure_point("stage.claimed")
                    listening.started()
                    made = _made(key, store, job, work, write, listening)
                shutil.rmtree(work, ignore_errors=True)
    except BaseException:
        listening.finished("failed", time.perf_counter() - start)
        raise
    if made is not None:
        listening.finished(outcome, time.perf_counter() - start)
        return _handle(made, outcome)
    assert found is not None
    outcome = "adopted" if found.adopted else "cached" if outcome == "ran" else outcome
    listening.finished(outcome, time.perf_counter() - start)
    return Completed(name="Cached", message=f"artefact {key.key[:12]}", data=_handle(found, outcome))


def _made(key: StageKey, store: Store, job: Job, work: Path, write: Write, listening: Listener) -> Artefact:
    start = time.perf_counter()
    provenance: dict[str, Any] = {"setting": job.plan.setting, "host": platform.node(), "versions": _versions()}
    with (new := store.create(key, provenance)) as folder:
        provenance["facts"] = dict(write(folder, work, listening))
        provenance["seconds"] = round(time.perf_counter() - start, 3)
    return new.created


def _handle(artefact: Artefact, outcome: str) -> Handle:
    return Handle(artefact.stage, artefact.key, artefact.digest, outcome)


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "numpy", "optuna")},
    }
