"""The input of a stage: the environment of its run, its job, and handles of the finished stages it reads."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dynconf_core.experiment.plan import Plan


@dataclass(frozen=True)
class RunContext:
    """The environment in which stages run.

    Attributes:
        home: the folder of the artefact store and of everything else that is written.
        data: the folder of the data sets.
        device: "auto", "cpu", "cuda" or "cuda:N"; see ``dynconf_core.machine.device``.
        memory: bytes that one simulation on a CPU may use; None sets no limit.
        threads: the number of torch threads; None keeps torch's default.
    """

    home: Path
    data: Path
    device: str = "auto"
    memory: int | None = None
    threads: int | None = None

    @property
    def artefacts(self) -> Path:
        """The folder of the artefact store."""
        return self.home / "artefacts"

    @property
    def work(self) -> Path:
        """The folder of what unfinished stages need to go on: a folder for each key."""
        return self.home / "work"

    def folder(self, finished: "Handle") -> Path:
        """The folder of a finished stage's artefact, in this home: ``Store.place``, whose code is no part of a stage's key."""
        return self.artefacts / finished.stage / finished.key[:2] / finished.key

    def file(self, finished: "Handle", name: str) -> Path:
        """The path of one of the files of a finished stage's artefact."""
        return self.folder(finished) / name

    def prepare(self) -> None:
        """Set the number of torch threads of this process, and let it keep freed memory for the next tensor."""
        import torch

        from dynconf_core.machine import keep_freed_memory

        keep_freed_memory()
        if self.threads is not None:
            torch.set_num_threads(self.threads)


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
    """A finished stage: its artefact's key and digest, and its outcome ("ran", "cached", "given" or "adopted").

    It holds no path, so that it means the same on every machine; see ``RunContext.folder``.
    """

    stage: str
    key: str
    digest: str
    outcome: str


Inputs = Mapping[str, Handle]
"""The finished stages that a stage reads, by role."""
