"""Running a stage: its artefact is taken from the store if it exists.

The artefact store is the only cache; an artefact found there is verified file by file and returned as the state ``Cached``.
Prefect's own result cache is off, since it neither verifies results nor knows which code a stage depends on.
"""

import platform
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
from dynconf_core.store.artefacts import Artefact, Store
from dynconf_tasks.listening import Listener, listener

TASK_OPTIONS: dict[str, Any] = {"cache_policy": NO_CACHE, "persist_result": False}
Write = Callable[[Path, Listener], Mapping[str, Any]]
"""Writes a stage's files into a folder; returns facts for the artefact's provenance."""


def run(name: str, job: Job, inputs: Inputs, write: Write, outcome: str = "ran") -> State[Handle] | Handle:
    """Take the artefact of the stage ``name`` from the store, or make it with ``write(folder, listener)``."""
    key, store = stage(name).key(job, inputs), Store(job.context.artefacts)
    listening = listener(job.plan.setting, name)
    start = time.perf_counter()
    found = store.get(key)
    if found is not None:
        outcome = "cached" if outcome == "ran" else outcome
        listening.finished(outcome, time.perf_counter() - start)
        return Completed(name="Cached", message=f"artefact {key.key[:12]}", data=handle(found, outcome))
    listening.started()
    provenance: dict[str, Any] = {"setting": job.plan.setting, "versions": _versions()}
    try:
        with (new := store.create(key, provenance)) as folder:
            provenance["facts"] = dict(write(folder, listening))
            provenance["seconds"] = round(time.perf_counter() - start, 3)
    except BaseException:
        listening.finished("failed", time.perf_counter() - start)
        raise
    listening.finished(outcome, time.perf_counter() - start)
    return handle(new.created, outcome)


def run_key(name: str, job: Job, inputs: Inputs) -> str:
    """The key of the stage's artefact, for files kept outside the store."""
    return stage(name).key(job, inputs).key


def handle(artefact: Artefact, outcome: str) -> Handle:
    """The handle of an artefact."""
    return Handle(artefact.stage, artefact.key, artefact.digest, artefact.folder, outcome)


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "numpy", "optuna")},
    }
