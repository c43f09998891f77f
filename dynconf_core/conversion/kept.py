"""Values kept batch by batch: in memory up to a limit, beyond it in temporary files that have no name.

Spikes are packed: of either sign or none into two bits, 0 or 1 into one bit, counts into the smallest whole numbers.
"""

import os
import tempfile
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from dynconf_core.errors import InputError


@dataclass(frozen=True)
class _Filed:
    """A tensor's place in its file."""

    start: int
    shape: tuple[int, ...]
    dtype: torch.dtype


class Kept:
    """Tensors by name and batch. The files are empty and gone once their names are dropped, or the process ends.

    Args:
        limit: bytes in memory.
    """

    def __init__(self, limit: int) -> None:
        self.room = limit
        self._values: dict[str, dict[int, Tensor | _Filed]] = {}
        self._files: dict[str, BinaryIO] = {}

    def has(self, name: str, batch: int) -> bool:
        """Whether a value is kept."""
        return batch in self._values.get(name, ())

    @property
    def in_files(self) -> int:
        """Bytes in files at present."""
        return sum(os.fstat(file.fileno()).st_size for file in self._files.values())

    def put(self, name: str, batch: int, value: Tensor) -> None:
        """Keep a contiguous copy of ``value`` on the CPU.

        Raises:
            InputError: if the folder for temporary files is full.
        """
        value = value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        batches = self._values.setdefault(name, {})
        if value.nbytes <= self.room:
            self.room -= value.nbytes
            batches[batch] = value
            return
        if name not in self._files:
            self._files[name] = tempfile.TemporaryFile()  # noqa: SIM115 (closed by drop)
        file = self._files[name]
        try:
            start = file.seek(0, os.SEEK_END)
            file.write(value.view(-1).view(torch.uint8).numpy().data)
            file.flush()
        except OSError as error:
            raise InputError(
                f"{tempfile.gettempdir()} cannot hold the spike trains of the correction ({error.strerror}): set TMPDIR to a "
                "folder with more space, give more memory, or convert with fewer images."
            ) from error
        batches[batch] = _Filed(start, tuple(value.shape), value.dtype)

    def get(self, name: str, batch: int) -> Tensor:
        """The value; not to be changed."""
        value = self._values[name][batch]
        if isinstance(value, Tensor):
            return value
        size = torch.Size(value.shape).numel() * value.dtype.itemsize
        read = bytearray(os.pread(self._files[name].fileno(), size, value.start))
        return torch.frombuffer(read, dtype=value.dtype).view(value.shape)

    def drop(self, name: str) -> None:
        """Forget a name's values."""
        for value in self._values.pop(name, {}).values():
            if isinstance(value, Tensor):
                self.room += value.nbytes
        if name in self._files:
            self._files.pop(name).close()

    def close(self) -> None:
        """Forget everything."""
        for name in list(self._values):
            self.drop(name)


@dataclass(frozen=True)
class Packing:
    """How whole numbers from ``low`` to ``high`` are packed: bits if they are 0 or 1, two bits with -1, or bytes and more."""

    low: int
    high: int

    def packed(self, values: Tensor) -> Tensor:
        """``values (steps, ...)`` in as little memory as ``unpacked`` needs to find them again."""
        if self.low < -1 or self.high > 1:
            return values.to(self._whole)
        signs = (values > 0, values < 0) if self.low else (values > 0,)
        return torch.from_numpy(np.stack([np.packbits(one.cpu().numpy().reshape(-1)) for one in signs]))

    def unpacked(self, packed: Tensor, shape: tuple[int, ...]) -> Tensor:
        """The values of ``shape``, float32."""
        if self.low < -1 or self.high > 1:
            return packed.view(shape).float()
        count = torch.Size(shape).numel()
        ups, *downs = (torch.from_numpy(np.unpackbits(row, count=count)).view(shape).float() for row in packed.numpy())
        return ups.sub_(downs[0]) if downs else ups

    @property
    def _whole(self) -> torch.dtype:
        kinds = (torch.uint8, torch.int8, torch.int16, torch.int32)
        return next(kind for kind in kinds if torch.iinfo(kind).min <= self.low and self.high <= torch.iinfo(kind).max)
