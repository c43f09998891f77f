"""The training state between epochs: saved in the background, and read back when a run goes on."""

import logging
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

from torch import Tensor

from dynconf_core.errors import InputError
from dynconf_core.failing import failure_point
from dynconf_core.files import set_aside
from dynconf_core.networks.checkpoint import read, write_atomically

logger = logging.getLogger(__name__)


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
        self.writing = self.writer.submit(self._write, _copied(state))

    def _write(self, state: dict[str, Any]) -> None:
        write_atomically(state, self.path)
        failure_point("train.epoch")

    def _wait(self) -> None:
        if self.writing is not None:
            self.writing.result()

    def __enter__(self) -> "Keeper":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.writer.shutdown()
        if error is None:
            self._wait()


def kept_state(path: Path, identity: Mapping[str, Any], processes: int = 1) -> dict[str, Any] | None:
    """The state that a ``Keeper`` wrote to ``path`` for the run ``identity``, which is the entry ``of`` of the state.

    Returns:
        the state; None if there is no file, or if it is damaged or belongs to another run. It is then renamed, with a warning,
        and the training starts afresh.

    Raises:
        InputError: if it belongs to this run, by another number of processes than ``processes``. To go on with others would
            give a network that neither number gives alone, and to start afresh might throw away days.
    """
    if not path.is_file():
        return None
    try:
        state = read(path)
    except InputError as error:
        fault = str(error)
    else:
        if state.get("of") == identity:
            by, done = state.get("processes", 1), len(state["record"]["losses"])
            if by == processes:
                return state
            command = f"torchrun --nproc-per-node {by} -m" if by > 1 else "python -m"
            raise InputError(
                f"{path} holds {done} epochs of this training, by {by} process{'es' * (by > 1)} instead of {processes}: go on "
                f"with as many (`{command} dynconf_core.training`, the same options), or remove the file to start afresh."
            )
        fault = f"{path} belongs to a training of another network, recipe or seed."
    logger.warning("%s It is now called %s, and training starts afresh.", fault, set_aside(path).name)
    return None


def _copied(value: Any) -> Any:
    """A copy in which tensors, dictionaries and lists are new, the tensors on the CPU."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _copied(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_copied(one) for one in value]
    return value
