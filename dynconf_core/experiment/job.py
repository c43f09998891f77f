"""What a stage is given: the job, which is one setting's run, and the handles of the finished stages that it reads."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dynconf_core.experiment.context import RunContext
from dynconf_core.experiment.plan import Plan


@dataclass(frozen=True)
class Job:
    """One setting's run: what its stages are given beside their inputs.

    Attributes:
        plan: what is run.
        context: where and with what.
        data_digest: names the content of the data set.
        checkpoint: a file whose weights are taken instead of training.
    """

    plan: Plan
    context: RunContext
    data_digest: str
    checkpoint: Path | None = None


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


Inputs = Mapping[str, Handle]
"""Finished stages, by the role that they play for another."""
