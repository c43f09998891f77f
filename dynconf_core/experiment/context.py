"""Where and with what a run works: its home, its data, its device, its memory and threads."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunContext:
    """Where and with what stages work.

    Attributes:
        home: holds the artefact store and everything else that is written.
        data: holds the data sets.
        device: a name that ``dynconf_core.machine.device`` takes.
        memory: bytes that one simulation on a CPU may take; None for no bound.
        threads: of torch; None for as many as it takes by itself.
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
        """Optuna's journal."""
        return self.home / "optuna.journal"

    def prepare(self) -> None:
        """Give torch in this process its threads, and keep freed memory for the next tensor."""
        import torch

        from dynconf_core.machine import keep_freed_memory

        keep_freed_memory()
        if self.threads is not None:
            torch.set_num_threads(self.threads)
