"""The stages ``train`` and ``fine_tune`` made in a home without the pipeline, for the pipeline to find.

By one process they are what the pipeline makes, under the same keys. Several processes, which may share a training, add
gradients in another order, so that the last digits of the weights differ, and a key must not stand for two contents: the key of
what they make says how many they were. It is then adopted under the key that the pipeline looks for, so that manifest and
results say that it was made otherwise.
"""

import platform
import shutil
import time
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from dynconf_core.errors import InputError
from dynconf_core.experiment.job import Handle, Job, RunContext
from dynconf_core.experiment.plan import Plan
from dynconf_core.experiment.stages import job, stage
from dynconf_core.progress import Progress
from dynconf_core.store.artefacts import Artefact, Store
from dynconf_core.store.claim import claim
from dynconf_core.store.keys import StageKey, stage_key
from dynconf_core.training.fine_tuned import fine_tune_to_file
from dynconf_core.training.processes import Agreed, Processes
from dynconf_core.training.run import train_to_file
from dynconf_core.training.speed import SpeedUps

CHECKPOINT = "checkpoint.pt"
STATE = "epoch.pt"
"""In the stage's work folder, as the pipeline calls it, so that each goes on with what the other has begun."""
WAITING, MAKE, FOUND = "waiting", "make", "found"


@dataclass(frozen=True)
class Target:
    """What process 0 knows of the artefact to make.

    Attributes:
        wanted: the key under which the pipeline looks for it.
        made: the key under which these processes make it; the same for one.
    """

    job: Job
    wanted: StageKey
    made: StageKey

    @classmethod
    def of(cls, plan: Plan, context: RunContext, processes: int) -> "Target":
        """Look up the data and the code.

        Raises:
            InputError: if the data set is missing, or dynconf is not installed as a whole.
        """
        given = job(plan, context)
        try:
            wanted = stage("train").key(given, {})
        except ModuleNotFoundError as error:
            raise InputError(
                "a stage's key covers the pipeline's code, which is not installed here: give --out FILE, and the file to "
                "`dynconf reproduce --checkpoint`."
            ) from error
        return cls(given, wanted, wanted if processes == 1 else key_of_several(wanted, processes))

    @property
    def store(self) -> Store:
        """The store of the home."""
        return Store(self.job.context.artefacts)

    @property
    def work(self) -> Path:
        """The folder of what an interrupted training goes on from."""
        return self.job.context.work / self.wanted.key

    def found(self) -> Artefact | None:
        """The artefact, if the store holds it; one that as many processes have made is adopted."""
        there = self.store.get(self.wanted)
        if there is None and self.made != self.wanted and (made := self.store.get(self.made)) is not None:
            return self.store.adopt(made, self.wanted)
        return there


def key_of_several(wanted: StageKey, processes: int) -> StageKey:
    """The key of a training by several processes."""
    parts = wanted.parts
    return stage_key(parts["stage"], {**parts["config"], "processes": processes}, parts["inputs"], parts["code"])


def train_into_store(
    plan: Plan,
    context: RunContext,
    processes: Processes,
    *,
    device: torch.device,
    progress: Progress,
    speed_ups: SpeedUps | None,
) -> tuple[Artefact | None, bool]:
    """Make the artefact of the stage ``train``, unless the home holds it.

    Every process calls this; the first alone looks into the home.

    Returns:
        the artefact, None in the other processes; and whether it has been made now.

    Raises:
        InputError: if the data set or the home is of no use, or holds a state of another number of processes.
        Diverged: if the loss or a weight is no longer finite.
    """
    target = processes.checked(lambda: Target.of(plan, context, processes.count) if processes.first else None)
    with ExitStack() as claimed:
        if _turn(target, processes, progress, claimed) == FOUND:
            return (None if target is None else target.found()), False
        if target is None:
            nowhere = Path(CHECKPOINT)
            _trained(plan, context, processes, device, progress, speed_ups, nowhere, nowhere)
            return None, True
        start = time.perf_counter()
        provenance: dict[str, Any] = {"setting": plan.setting, "host": platform.node(), "versions": _versions()}
        with (new := target.store.create(target.made, provenance)) as folder:
            resume = target.work / STATE
            provenance["facts"] = _trained(plan, context, processes, device, progress, speed_ups, folder / CHECKPOINT, resume)
            provenance["seconds"] = round(time.perf_counter() - start, 3)
        made = new.created if target.made == target.wanted else target.store.adopt(new.created, target.wanted)
        shutil.rmtree(target.work, ignore_errors=True)
        return made, True


def fine_tune_into_store(
    plan: Plan,
    context: RunContext,
    trained: Artefact,
    *,
    device: torch.device,
    progress: Progress,
    speed_ups: SpeedUps | None,
) -> tuple[Artefact, bool]:
    """Make the artefact of the stage ``fine_tune`` from that of ``train``, unless the home holds it.

    Returns:
        the artefact, and whether it has been made now.

    Raises:
        InputError: as ``fine_tune_to_file``.
        FineTuningDiverged: as ``fine_tune``.
    """
    given, store = job(plan, context), Store(context.artefacts)
    key = stage("fine_tune").key(given, {"train": Handle(trained.stage, trained.key, trained.digest, "cached")})
    work = context.work / key.key
    with claim(context.home, key.key, f"{plan.setting} · fine_tune", lambda who: progress(0, 1, f"waits for {who}")):
        found = store.get(key)
        if found is not None:
            return found, False
        start = time.perf_counter()
        provenance: dict[str, Any] = {"setting": plan.setting, "host": platform.node(), "versions": _versions()}
        with (new := store.create(key, provenance)) as folder:
            provenance["facts"] = fine_tune_to_file(
                plan,
                trained.file(CHECKPOINT),
                data_root=context.data,
                device=device,
                out=folder / CHECKPOINT,
                resume=work / STATE,
                progress=progress,
                speed_ups=speed_ups,
                facts_inside=False,
            )
            provenance["seconds"] = round(time.perf_counter() - start, 3)
        shutil.rmtree(work, ignore_errors=True)
        return new.created, True


def _turn(target: Target | None, processes: Processes, progress: Progress, claimed: ExitStack) -> str:
    """``FOUND`` if the home holds the artefact, else ``MAKE`` once its key is claimed; the same in every process."""
    if target is None:
        while (word := processes.said("")) == WAITING:
            pass
        if word not in (FOUND, MAKE):
            raise Agreed(word)
        return word

    def waiting(who: str) -> None:
        progress(0, 1, f"waits for {who}")
        processes.said(WAITING)

    try:
        word = FOUND if target.found() is not None else MAKE
        if word == MAKE:
            claimed.enter_context(
                claim(target.job.context.home, target.wanted.key, f"{target.job.plan.setting} · train", waiting)
            )
            word = FOUND if target.found() is not None else MAKE
    except InputError as error:
        raise Agreed(processes.said(str(error))) from error
    return processes.said(word)


def _trained(
    plan: Plan,
    context: RunContext,
    processes: Processes,
    device: torch.device,
    progress: Progress,
    speed_ups: SpeedUps | None,
    out: Path,
    resume: Path,
) -> dict[str, Any]:
    return train_to_file(
        plan,
        data_root=context.data,
        device=device,
        out=out,
        resume=resume,
        progress=progress,
        speed_ups=speed_ups,
        facts_inside=False,
        processes=processes,
    )


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in ("torch", "numpy")}}
