"""Freed memory is kept for the next tensor instead of being given back to the system.

glibc maps every large block afresh and unmaps it when it is freed, so that each tensor of a time step costs a page fault
every 4 KiB; for simulation on a CPU that is a large part of the time.
"""

import ctypes
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
_LARGE = 1 << 30


def keep_freed_memory() -> bool:
    """Tell glibc to keep what is freed; True where it listens (Linux with glibc), and harmless elsewhere.

    Every thread keeps its own arena: with one for all, two trainings side by side wait for each other half of the time.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    options = ((_MMAP_THRESHOLD, _LARGE), (_TRIM_THRESHOLD, 2 * _LARGE - 1), (_TOP_PAD, 64 << 20))
    return all(bool(mallopt(name, value)) for name, value in options)
