"""The input of a stage: its job, and handles of the finished stages it reads."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dynconf_core.experiment.context import RunContext
from dynconf_core.experiment.plan import Plan


@dataclass(frozen=True)
class Job:
    """The run of one setting.

    Attributes:
        plan: the setting's plan.
        context: the environment of the run.
        data_digest: a digest of the data set's content.
        checkpoint: a file whose weights are used instead of training.
    """

    plan: Plan
    context: RunContext
    data_digest: str
    checkpoint: Path | None = None


@dataclass(frozen=True)
class Handle:
    """A finished stage: its artefact's key, digest and folder, and its outcome ("ran", "cached" or "given")."""

    stage: str
    key: str
    digest: str
    folder: Path
    outcome: str

    def file(self, name: str) -> Path:
        """The path of one of the artefact's files."""
        return self.folder / name


Inputs = Mapping[str, Handle]
"""The finished stages that a stage reads, by role."""
