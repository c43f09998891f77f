"""The device to compute on, and how the process reuses freed memory."""

import ctypes
import sys

import torch

from dynconf_core.errors import InputError
from dynconf_core.wording import told

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
_LARGE = 1 << 30


def device(name: str | torch.device) -> torch.device:
    """The device called ``name``: "auto" (CUDA if available, otherwise the CPU), "cpu", "cuda" or, for example, "cuda:1".

    Raises:
        InputError: for another name, or a device that this machine does not have.
    """
    if isinstance(name, str) and name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    chosen = any_device(name)
    if chosen.type not in ("cpu", "cuda"):
        raise InputError(f"device={str(name)!r} is not supported: use auto, cpu, cuda or cuda:N.")
    if chosen.type == "cuda" and (chosen.index or 0) >= (count := torch.cuda.device_count()):
        raise InputError(f"device={str(name)!r} is not available (CUDA devices on this machine: {count}): use --device cpu.")
    return chosen


def any_device(name: str | torch.device) -> torch.device:
    """The device as torch calls it, of any type.

    Raises:
        InputError: for a name that torch does not know.
    """
    try:
        return torch.device(name)
    except (RuntimeError, TypeError, ValueError):
        raise InputError(f"{told('device', name)} is unknown: use auto, cpu, cuda or cuda:N.") from None


def keep_freed_memory() -> bool:
    """Make glibc keep freed memory for reuse; True if it did (Linux with glibc). Elsewhere it has no effect.

    By default glibc maps every large block anew and unmaps it once freed, so that every tensor of a time step costs a page
    fault per 4 KiB: a large share of the time of a simulation on a CPU. Every thread keeps its own arena, because with a shared
    one two concurrent training runs wait for each other half of the time.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    options = ((_MMAP_THRESHOLD, _LARGE), (_TRIM_THRESHOLD, 2 * _LARGE - 1), (_TOP_PAD, 64 << 20))
    return all(bool(mallopt(name, value)) for name, value in options)
