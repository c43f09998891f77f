"""The environment of a run: its folders, device, memory and threads."""

from dataclasses import dataclass
from pathlib import Path


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
    def journal(self) -> Path:
        """The file of Optuna's journal."""
        return self.home / "optuna.journal"

    def prepare(self) -> None:
        """Set the number of torch threads of this process, and let it keep freed memory for the next tensor."""
        import torch

        from dynconf_core.machine import keep_freed_memory

        keep_freed_memory()
        if self.threads is not None:
            torch.set_num_threads(self.threads)
