"""Arguments of public functions: what is of the wrong type is refused at the start, by field, value and remedy."""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Iterable, Mapping
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from dynconf_core.errors import InputError
from dynconf_core.wording import an, told

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
MOST = 2**31 - 1
LONGEST = 255
"""Bytes of the longest name of a file."""


def whole(field: str, value: object, remedy: str = "give a whole number, such as 16", most: int = MOST) -> int:
    """A whole number of any type, of at most ``most`` either way; narrower limits are the caller's."""
    if not isinstance(value, bool | np.bool_):
        try:
            found = operator.index(value)  # type: ignore[arg-type]
        except (TypeError, ValueError, RuntimeError):  # the others are those of tensors
            found = most + 1
        if abs(found) <= most:
            return found
    raise InputError(f"{told(field, value)}: {remedy}.")


def number(field: str, value: object, remedy: str = "give a number", finite: bool = True) -> float:
    """A number of any type, ``finite`` or any."""
    if not isinstance(value, bool | np.bool_):
        try:
            found: float | None = float(value) if isinstance(value, Real) else float(value.item())  # type: ignore[attr-defined]
        except (AttributeError, TypeError, ValueError, RuntimeError, OverflowError):
            found = None
        if found is not None and (math.isfinite(found) or not finite):
            return found
    raise InputError(f"{told(field, value)}: {remedy}.")


def memory_limit(value: object) -> int | None:
    """A limit in bytes, or None."""
    remedy = "give bytes, such as 8 << 30, or None for no limit"
    found = None if value is None else whole("memory", value, remedy, most=2**63)
    if found is not None and found <= 0:
        raise InputError(f"memory={value}: {remedy}.")
    return found


def flag(field: str, value: object) -> bool:
    """True or False."""
    if not isinstance(value, bool | np.bool_):
        raise InputError(f"{told(field, value)}: give True or False.")
    return bool(value)


def callback(field: str, value: object) -> None:
    """A function that is told of progress."""
    if not callable(value):
        raise InputError(f"{told(field, value)}: give a function of the steps done, all steps and a text.")


def one_of(field: str, value: object, choices: Iterable[str]) -> str:
    """One of several texts."""
    known = list(choices)
    if not isinstance(value, str) or value not in known:
        raise InputError(f"{told(field, value)} is unknown: choose one of {', '.join(known)}.")
    return value


def instance(field: str, value: object, kind: type[T], remedy: str) -> T:
    """An object of a class."""
    if not isinstance(value, kind):
        raise InputError(f"{told(field, value)}: {remedy}.")
    return value


def mapping(field: str, value: object) -> Mapping[str, Any]:
    """A mapping that is to be written as JSON; an empty one for None."""
    if value is not None and not isinstance(value, Mapping):
        raise InputError(f"{told(field, value)}: give a dictionary of values that JSON can hold.")
    return value or {}


def file_path(field: str, value: object) -> Path:
    """A path that a file can have, given as text or a ``Path``."""
    if not isinstance(value, str | os.PathLike) or not isinstance(name := os.fspath(value), str):
        raise InputError(f"{told(field, value)}: give the path as text or as a pathlib.Path.")
    try:
        sizes = [len(os.fsencode(part)) for part in Path(name).parts]
    except UnicodeEncodeError:
        raise InputError(f"{told(field, name)} holds half a character: name a file.") from None
    if "\0" in name:
        raise InputError(f"{told(field, name)} holds a zero byte: name a file.")
    if max(sizes, default=0) > LONGEST:
        raise InputError(f"{told(field, name)} has a part of {max(sizes)} bytes: the name of a file has at most {LONGEST}.")
    return Path(name)


def tensor(field: str, value: Any, remedy: str) -> Tensor:
    """A tensor; arrays, and lists of numbers, become one.

    Raises:
        InputError: for anything else, and for tensors without values of their own (meta, sparse, quantised).
    """
    import torch

    if isinstance(value, torch.Tensor):
        fault = "has no values (device meta)" if value.is_meta else "is quantised" if value.is_quantized else None
        if value.layout != torch.strided:
            fault = "is sparse: give its to_dense()"
        if fault is not None:
            raise InputError(f"{field} {fault}: {remedy}.")
        return value
    if isinstance(value, list | tuple):
        try:
            value = np.asarray(value)
        except (TypeError, ValueError, RuntimeError):  # of several lengths, or of what is no number
            raise InputError(f"{field} is {an(value)} that is no array of numbers: {remedy}.") from None
    if not isinstance(value, np.ndarray):
        raise InputError(f"{told(field, value)}: {remedy}.")
    try:
        return torch.from_numpy(np.array(value) if not value.flags.writeable or min(value.strides, default=0) < 0 else value)
    except (TypeError, ValueError):
        raise InputError(f"{field} is {an(value)} of the type {value.dtype}: {remedy}.") from None
