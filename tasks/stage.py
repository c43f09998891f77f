"""What all stages share: where they work, and that a stage whose artefact is there is not run again.

The artefact store is the only cache. A hit, verified file by file, is returned as the state ``Cached``; Prefect's own result
cache is off, since it neither verifies what it returns nor knows which files a stage's code reaches.
"""

import platform
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from prefect.cache_policies import NO_CACHE
from prefect.states import Completed, State

from dynconf_core.data.splits import SPLIT_SEED
from dynconf_core.experiment.plan import Plan
from dynconf_core.store.artefacts import Artefact, Store
from dynconf_core.store.fingerprint import fingerprint
from dynconf_core.store.keys import StageKey, stage_key
from dynconf_tasks.listening import Listener, listener

ROOT = Path(__file__).resolve().parent.parent
_fingerprinting = threading.Lock()
"""Python 3.11 counts the depth of a syntax tree for all threads at once, and finds fault where two of them parse."""
TASK_OPTIONS: dict[str, Any] = {"cache_policy": NO_CACHE, "persist_result": False}


@dataclass(frozen=True)
class Workplace:
    """Where stages work.

    Attributes:
        home: holds the artefact store and everything else that is written.
        data: holds the data sets.
        device: a name that ``dynconf_core.devices.device`` takes.
        memory: bytes that a simulation on a CPU may take; None for no bound.
    """

    home: Path
    data: Path
    device: str = "auto"
    memory: int | None = None

    @property
    def store(self) -> Store:
        """The artefact store."""
        return Store(self.home / "artefacts")


@dataclass(frozen=True)
class Handle:
    """A finished stage, small enough to travel: the artefact's name, and how it came about ("ran", "cached", "given")."""

    stage: str
    key: str
    digest: str
    folder: Path
    outcome: str

    def file(self, name: str) -> Path:
        """The path of one of the artefact's files."""
        return self.folder / name


@dataclass(frozen=True)
class Stage:
    """A stage of one setting, before it is known whether it must run.

    Attributes:
        name: as in the results, such as "collect_test".
        setting: whose stage it is.
        config: the values that can change its outcome.
        inputs: the finished stages that it reads, by role.
        code: the files whose reach is the stage's code; they are read once a process, so that an edit during a run does
            not pass what the old code made for the new code's.
    """

    name: str
    setting: str
    config: Mapping[str, Any]
    inputs: Mapping[str, Handle]
    code: tuple[Path, ...]

    def key(self) -> StageKey:
        """The artefact's name: of the config, the inputs' content and the code."""
        digests = {role: handle.digest for role, handle in self.inputs.items()}
        return stage_key(self.name, self.config, digests, code_fingerprint(self.code))

    def run(
        self,
        work: Workplace,
        write: Callable[[Path, Listener], Mapping[str, Any]],
        outcome: str = "ran",
    ) -> State[Handle] | Handle:
        """The artefact from the store, or made by ``write(folder, listener)``, which returns facts for its provenance."""
        key, store = self.key(), work.store
        listening = listener(self.setting, self.name)
        start = time.perf_counter()
        found = store.get(key)
        if found is not None:
            listening.finished("cached" if outcome == "ran" else outcome, time.perf_counter() - start)
            handle = _handle(found, "cached" if outcome == "ran" else outcome)
            return Completed(name="Cached", message=f"artefact {key.key[:12]}", data=handle)
        listening.started()
        provenance: dict[str, Any] = {"setting": self.setting, "versions": _versions()}
        try:
            with (new := store.create(key, provenance)) as folder:
                provenance["facts"] = dict(write(folder, listening))
                provenance["seconds"] = round(time.perf_counter() - start, 3)
        except BaseException:
            listening.finished("failed", time.perf_counter() - start)
            raise
        listening.finished(outcome, time.perf_counter() - start)
        return _handle(new.created, outcome)


def code_fingerprint(files: tuple[Path, ...]) -> str:
    """Of the code that these files reach, as it was when this process first asked."""
    with _fingerprinting:
        return _fingerprint(files)


@cache
def _fingerprint(files: tuple[Path, ...]) -> str:
    return fingerprint(files, ROOT)


def _handle(artefact: Artefact, outcome: str) -> Handle:
    return Handle(artefact.stage, artefact.key, artefact.digest, artefact.folder, outcome)


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "numpy", "optuna")},
    }


def module_file(name: str) -> Path:
    """The file of a module of the core that a stage looks up by name."""
    return ROOT.joinpath(*name.split(".")).with_suffix(".py")


def data_config(plan: Plan, data_digest: str) -> dict[str, Any]:
    """What a stage's key says of the images: their content, size and split."""
    return {
        "name": plan.data.name,
        "digest": data_digest,
        "resolution": plan.data.resolution,
        "calibration": plan.data.calibration,
        "split_seed": SPLIT_SEED,
    }
