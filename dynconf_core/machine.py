"""The machine that work runs on: its device, and what becomes of memory that is freed."""

import ctypes
import sys

import torch

from dynconf_core.errors import InputError

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
_LARGE = 1 << 30


def device(name: str) -> torch.device:
    """The device called ``name``: "auto" (CUDA where there is one, else the CPU), "cpu", "cuda", "cuda:1".

    Raises:
        InputError: for another name, or a device that this machine has not.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(name)
    except RuntimeError:
        raise InputError(f"device={name!r} is unknown: use auto, cpu, cuda or cuda:N.") from None
    if chosen.type not in ("cpu", "cuda"):
        raise InputError(f"device={name!r} is not supported: use auto, cpu, cuda or cuda:N.")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise InputError(f"device={name!r} is absent ({torch.cuda.device_count()} CUDA devices here): use --device cpu.")
    return chosen


def keep_freed_memory() -> bool:
    """Tell glibc to keep what is freed for the next tensor; True where it listens (Linux with glibc), harmless elsewhere.

    By default it maps every large block afresh and unmaps it when it is freed, so that each tensor of a time step costs a page
    fault every 4 KiB; for simulation on a CPU that is a large part of the time. Every thread keeps its own
    arena: with one for all, two trainings side by side wait for each other half of the time.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    options = ((_MMAP_THRESHOLD, _LARGE), (_TRIM_THRESHOLD, 2 * _LARGE - 1), (_TOP_PAD, 64 << 20))
    return all(bool(mallopt(name, value)) for name, value in options)
