"""numpy's numbers in a checkpoint, read as plain numbers.

Training scripts keep the best accuracy beside the weights, often as a ``numpy.float64``, which torch's restricted unpickler
refuses. Here numpy's own constructors are replaced by two that make nothing but plain numbers of at most eight bytes, so that a
file from somebody else reaches no code of numpy's.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from dynconf_core.networks.untrusted import Unsuitable

CODES = frozenset(["b1", *(f"{sign}{size}" for sign in "iu" for size in (1, 2, 4, 8)), "f2", "f4", "f8"])
"""numpy's names of the types of truth values, whole and floating-point numbers."""
MODULES = ("numpy._core.multiarray", "numpy.core.multiarray")
"""Where numpy's constructor of a number stands in a file of version 2 and of version 1."""
_turn = threading.Lock()


class _Type:
    """In the place of ``numpy.dtype``: the type of a number."""

    def __init__(self, code: object, *flags: object) -> None:
        if code not in CODES:
            raise Unsuitable(f"it holds values of numpy's type {str(code)[:40]!r}, where only single numbers are read")
        self.code = str(code)
        self.order = "<"

    def __setstate__(self, state: object) -> None:
        """``(version, byte order, ...)``, as numpy pickles it."""
        if isinstance(state, tuple) and len(state) > 1 and state[1] == ">":
            self.order = ">"


def _number(kind: object, raw: object) -> Any:
    """In the place of ``numpy._core.multiarray.scalar``: a plain number."""
    if not isinstance(kind, _Type) or not isinstance(raw, bytes) or len(raw) != int(kind.code[1:]):
        raise Unsuitable("it holds a number of numpy's that is damaged")
    return np.frombuffer(raw, kind.order + kind.code)[0].item()


@contextmanager
def numpy_numbers() -> Iterator[None]:
    """A block in which ``torch.load`` reads numpy's numbers as plain ones. Threads take turns, since torch's list of what it
    permits is the process's."""
    allowed: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
        (_Type, "numpy.dtype"),
        *((_number, f"{module}.scalar") for module in MODULES),
    ]
    with _turn, torch.serialization.safe_globals(allowed):
        yield
