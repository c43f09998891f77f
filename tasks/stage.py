"""What all stages share: a stage whose artefact is there is not run again.

The artefact store is the only cache. A hit, verified file by file, is returned as the state ``Cached``; Prefect's own result
cache is off, since it neither verifies what it returns nor knows which files a stage's code reaches.
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
"""Writes a stage's files into a folder and returns facts for the artefact's provenance."""


def run(name: str, job: Job, inputs: Inputs, write: Write, outcome: str = "ran") -> State[Handle] | Handle:
    """The artefact of the stage ``name`` from the store, or made by ``write(folder, listener)``."""
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
    """The key of the artefact that the stage ``name`` makes, for what is kept beside the store."""
    return stage(name).key(job, inputs).key


def handle(artefact: Artefact, outcome: str) -> Handle:
    """The handle of a finished stage's artefact."""
    return Handle(artefact.stage, artefact.key, artefact.digest, artefact.folder, outcome)


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "numpy", "optuna")},
    }
