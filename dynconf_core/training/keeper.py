"""Saving the training state between epochs, in the background."""

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

from torch import Tensor

from dynconf_core.networks.checkpoint import write_atomically


class Keeper:
    """Writes each state atomically in a thread; at the end of the ``with`` block the last one is on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.writer = ThreadPoolExecutor(1, thread_name_prefix="keeper")
        self.writing: Future[None] | None = None

    def keep(self, state: dict[str, Any]) -> None:
        """Copy ``state`` and start writing it, once the previous one is written.

        Raises:
            OSError: if the previous state could not be written.
        """
        self._wait()
        self.writing = self.writer.submit(write_atomically, _copied(state), self.path)

    def _wait(self) -> None:
        if self.writing is not None:
            self.writing.result()

    def __enter__(self) -> "Keeper":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.writer.shutdown()
        if error is None:
            self._wait()


def _copied(value: Any) -> Any:
    """A copy in which tensors, dictionaries and lists are new, the tensors on the CPU."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _copied(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_copied(one) for one in value]
    return value
