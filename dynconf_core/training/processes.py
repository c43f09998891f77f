"""The processes that train one network together: who they are, and what they tell each other.

``torchrun`` starts them, on one machine or several, and tells each its number in environment variables. Process 0 alone reads
and writes the home; the others get from it what they need. Without ``torchrun`` a process trains alone, and nothing here does
anything.
"""

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

from dynconf_core.errors import InputError
from dynconf_core.machine import device

T = TypeVar("T")
PATIENCE = timedelta(minutes=30)
"""How long a process waits for the others in a step, and at the start for what process 0 looks up."""
PARTING = timedelta(seconds=10)
"""How long it waits for them at the end, so that process 0 has printed before torchrun ends the others."""


class Agreed(InputError):
    """Unusable input that all processes know of, so that one of them reports it for all."""


@dataclass(frozen=True)
class Processes:
    """The processes of a training, as one of them sees them.

    Attributes:
        rank: the number of this process, from 0.
        count: how many there are.
        local: the number of this process on its machine, from 0.
        words: the group by which they talk on their CPUs; None for a process alone.
    """

    rank: int = 0
    count: int = 1
    local: int = 0
    words: Any = None

    @classmethod
    def joined(cls) -> "Processes":
        """The processes that ``torchrun`` has started, once all of them are there; ``ALONE`` without it.

        Raises:
            InputError: for an environment that names no such process, or if the others cannot be reached.
        """
        if _int_of("WORLD_SIZE", 1) == 1:
            return ALONE
        rank, count, local = _int_of("RANK"), _int_of("WORLD_SIZE"), _int_of("LOCAL_RANK")
        if not 0 <= rank < count:
            raise InputError(f"RANK={rank} is no process of WORLD_SIZE={count}: start the training with torchrun.")
        gpus = torch.cuda.is_available() and distributed.is_nccl_available()
        try:
            distributed.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo", timeout=PATIENCE)
            return cls(rank, count, local, distributed.new_group(backend="gloo", timeout=PATIENCE))
        except (RuntimeError, ValueError) as error:
            where = f"{os.environ.get('MASTER_ADDR', '?')}:{os.environ.get('MASTER_PORT', '?')}"
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise InputError(
                f"process {rank} of {count} cannot reach the others at {where} ({reason}): see torchrun's options."
            ) from error

    @property
    def first(self) -> bool:
        """Whether this is the process that reads, writes and prints for all."""
        return self.rank == 0

    def device(self, name: str) -> torch.device:
        """The device called ``name``; of several processes, each takes a GPU of its own.

        Raises:
            InputError: for a device that is unknown or not there, or fewer GPUs than processes.
        """
        chosen = device(name)
        if self.count == 1 or chosen.type == "cpu":
            return chosen
        if ":" in name:
            raise InputError(
                f"device={name!r} is one GPU for {self.count} processes: use cuda, of which each takes one, or cpu."
            )
        if self.local >= torch.cuda.device_count():
            raise InputError(
                f"{self.local + 1} processes or more on {socket.gethostname()}, which has {torch.cuda.device_count()} GPUs: "
                "start as many (torchrun --nproc-per-node gpu), or use --device cpu."
            )
        torch.cuda.set_device(self.local)
        return torch.device("cuda", self.local)

    def share(self, batch_size: int) -> slice:
        """The part of every batch that this process computes.

        Raises:
            Agreed: if the batch cannot be shared out evenly.
        """
        if batch_size % self.count:
            lower = batch_size // self.count * self.count
            sizes = " or ".join(str(size) for size in (lower, lower + self.count) if size)
            raise Agreed(
                f"batch_size={batch_size} cannot be shared out evenly to {self.count} processes: start as many as divide "
                f"it, or choose batch_size={sizes}, which is another recipe."
            )
        size = batch_size // self.count
        return slice(self.rank * size, (self.rank + 1) * size)

    def said(self, value: T) -> T:
        """What process 0 gives as ``value``, in every process."""
        if self.count == 1:
            return value
        box = [value if self.first else None]
        distributed.broadcast_object_list(box, src=0, group=self.words, device=torch.device("cpu"))
        return box[0]  # type: ignore[return-value]

    def gathered(self, value: T) -> list[T]:
        """Every process's ``value``, in their order."""
        if self.count == 1:
            return [value]
        found: list[Any] = [None] * self.count
        distributed.all_gather_object(found, value, group=self.words)
        return found

    def checked(self, work: Callable[[], T]) -> T:
        """The result of ``work()``, which every process calls.

        Raises:
            Agreed: in all of them, if it raises ``InputError`` in one.
        """
        result, fault = None, None
        try:
            result = work()
        except InputError as error:
            fault = str(error)
        for found in self.gathered(fault):
            if found is not None:
                raise Agreed(found)
        return result  # type: ignore[return-value]

    def same(self, **values: Any) -> None:
        """Raise ``Agreed`` unless every process gives the same values, which are named in the error."""
        first, *others = self.gathered(values)
        for rank, theirs in enumerate(others, 1):
            for name, value in first.items():
                if theirs[name] != value:
                    raise Agreed(
                        f"process {rank} has another {name} than process 0 ({theirs[name]}, not {value}): give all machines "
                        "the same command, the same data, and the same versions of dynconf and torch."
                    )

    def mean(self, value: Tensor) -> Tensor:
        """The mean over all processes of a tensor, which is overwritten."""
        if self.count == 1:
            return value
        distributed.all_reduce(value)
        return value.div_(self.count)

    def facts(self, where: torch.device) -> dict[str, Any]:
        """What a checkpoint's provenance says of them: how many, by what they added their gradients, on which machines."""
        if self.count == 1:
            return {"processes": 1}
        hosts = list(dict.fromkeys(self.gathered(socket.gethostname())))
        return {"processes": self.count, "backend": "gloo" if where.type == "cpu" else "nccl", "hosts": hosts}

    def leave(self, orderly: bool) -> None:
        """End the group; ``orderly`` if all processes come here, which then wait for each other."""
        if self.count == 1 or not orderly:
            return
        with suppress(RuntimeError):
            distributed.monitored_barrier(self.words, PARTING)
            distributed.destroy_process_group()


ALONE = Processes()
"""A process that trains alone."""


def _int_of(name: str, otherwise: int | None = None) -> int:
    """The whole number in an environment variable, as ``torchrun`` sets them.

    Raises:
        InputError: if it is none, or missing with no value to take ``otherwise``.
    """
    text = os.environ.get(name)
    if text is None and otherwise is not None:
        return otherwise
    try:
        return int(text or "")
    except ValueError:
        raise InputError(f"{name}={text} in the environment is no whole number: start the training with torchrun.") from None
