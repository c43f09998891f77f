"""Following the stages of a setting through the store: which are finished, and the keys of those whose inputs are."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dynconf_core.experiment.job import Handle, Job
from dynconf_core.experiment.stages import Stage, stages_of
from dynconf_core.store.artefacts import Artefact, Store
from dynconf_core.store.keys import StageKey


@dataclass(frozen=True)
class FollowedStages:
    """The stages of a job in the store.

    Attributes:
        finished: handles of the finished stages, by name.
        keys: keys of all stages whose inputs are finished, by name.
        stages: all stages, in the order in which they run.
    """

    finished: Mapping[str, Handle]
    keys: Mapping[str, StageKey]
    stages: tuple[Stage, ...]

    @property
    def complete(self) -> bool:
        """Whether the store holds all stages."""
        return len(self.finished) == len(self.stages)


def follow(
    job: Job, verified: bool = True, otherwise: Callable[[StageKey], Artefact | None] = lambda key: None
) -> FollowedStages:
    """Look up the stages of a job, whose keys depend on the content of their inputs, in the order in which they run.

    Args:
        job: the run of one setting.
        verified: whether to verify the artefacts' files; without, only their manifests are read.
        otherwise: called for the key of an artefact that the store does not hold; what it returns is used instead.
    """
    store = Store(job.context.artefacts)
    look: Callable[[StageKey], Artefact | None] = store.get if verified else store.listed
    done: dict[str, Handle] = {}
    keys: dict[str, StageKey] = {}
    stages = stages_of(job.plan)
    for stage in stages:
        if any(name not in done for name in stage.inputs.values()):
            continue
        keys[stage.name] = stage.key(job, {role: done[name] for role, name in stage.inputs.items()})
        found = look(keys[stage.name]) or otherwise(keys[stage.name])
        if found is not None:
            done[stage.name] = Handle(found.stage, found.key, found.digest, _outcome(found, job))
    return FollowedStages(done, keys, stages)


def _outcome(found: Artefact, job: Job) -> str:
    """The outcome of a stage whose artefact is there, as running it would give it."""
    if found.adopted:
        return "adopted"
    return "given" if found.stage == "train" and job.checkpoint is not None else "cached"
