"""What torch.load does not check in a file from somebody else, whose pickle is already restricted to tensors and plain values.

A tensor in a file is a view of a storage, and a small file may describe a huge or an unusual view: expanded, sparse, quantised,
complex or without data. Its lists may hold each other many times over, so that a walk through them never ends. An archive may
be compressed, so that it grows in memory. None of this is written by torch.save for the weights of a network.
"""

import mmap
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dynconf_core.wording import an

MOST = 1_000_000
"""Values in a file that are not tensors, counted as often as they are referred to."""
DEEPEST = 100
"""Lists and dictionaries within each other."""
LARGEST = 2**64
"""The largest whole number, which is a seed."""
ZEROS = b"bytearray\n"
"""The one call that torch.load permits and that fills memory of any size: bytearray(n)."""


class Unsuitable(ValueError):
    """A file's content that is not loaded; the message says what is wrong with it."""


def check_file(path: Path) -> None:
    """Raise ``Unsuitable`` for a file that grows in memory, or a zip archive whose checksums are wrong.

    torch.load compares no checksums: a flipped bit would silently change a weight.
    """
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                if content.find(ZEROS) >= 0:
                    raise Unsuitable("it holds a bytearray")
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise Unsuitable("it is compressed, which torch.save does not do")
        if sum(member.file_size for member in members) > path.stat().st_size:
            raise Unsuitable("its parts are larger than the file")
        damaged = archive.testzip()
    if damaged is not None:
        raise Unsuitable(f"the checksum of {damaged} is wrong")


def check_content(content: object, size: int) -> None:
    """Raise ``Unsuitable`` if the content of a file of ``size`` bytes holds more than such a file can."""
    level, found = [content], 0
    for _ in range(DEEPEST):
        inner: list[Any] = []
        for value in level:
            if isinstance(value, Mapping):
                inner += value
                inner += value.values()
            elif isinstance(value, list | tuple | set | frozenset):
                inner += value
            elif isinstance(value, Tensor):
                if (fault := of_tensor(value, size)) is not None:
                    raise Unsuitable(f"a tensor in it {fault}")
            elif isinstance(value, int) and abs(value) > LARGEST:
                raise Unsuitable(f"it holds a whole number of {value.bit_length()} bits")
            if len(inner) > MOST:
                raise Unsuitable(f"it holds more than {MOST} values")
        found += len(inner)
        if found > MOST:
            raise Unsuitable(f"it holds more than {MOST} values")
        if not inner:
            return
        level = inner
    raise Unsuitable(f"it is nested more than {DEEPEST} deep")


def of_tensor(value: Tensor, size: int) -> str | None:
    """What is wrong with a tensor in a file of ``size`` bytes, in words that follow it; None if it is dense and complete."""
    if value.layout != torch.strided:
        return f"is sparse ({value.layout})"
    if value.is_quantized:
        return f"is quantised ({value.dtype})"
    if value.device.type != "cpu":
        return f"has no data (it is on the device {value.device})"
    if value.numel() * value.itemsize > min(value.untyped_storage().nbytes(), size):
        return f"of the shape {tuple(value.shape)} is larger than its data in the file: save a clone of it"
    return None


def of_weights(value: object, size: int) -> str | None:
    """What is wrong with a weight, in words that follow its name; None if it is a dense tensor of finite real numbers."""
    if not isinstance(value, Tensor):
        return f"is {an(value)}, not a tensor"
    if (fault := of_tensor(value, size)) is not None:
        return fault
    if not value.is_floating_point():
        return f"is of the type {value.dtype}, not of floating-point numbers"
    if not bool(torch.isfinite(value.float()).all()):
        return "holds NaN or infinite numbers"
    return None


def of_index(value: object, size: int) -> str | None:
    """What is wrong with a tensor of positions, in words that follow its name; None if it is dense and of 32-bit numbers."""
    if not isinstance(value, Tensor):
        return f"is {an(value)}, not a tensor"
    if (fault := of_tensor(value, size)) is not None:
        return fault
    return None if value.dtype == torch.int32 else f"is of the type {value.dtype}, not of 32-bit whole numbers"
