"""Interruption of a run: a signal sets it, and every stage checks after each batch whether to stop."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_stop = threading.Event()
_signal = int(signal.SIGINT)
_deferring = 0


class Interrupted(Exception):
    """The run was interrupted; finished stages are kept."""

    def __init__(self) -> None:
        super().__init__("interrupted; run again to continue from the finished stages")


class Stopped(BaseException):
    """Raised by a signal wherever the main thread of a command is, unless that only waits or finishes a ``deferred`` block."""


def interrupt(number: int = signal.SIGINT) -> None:
    """Make ``check`` raise from now on; ``number`` is the signal, the first of which counts."""
    global _signal
    if not _stop.is_set():
        _signal = int(number)
        _stop.set()


def interrupted() -> bool:
    """Whether the run was interrupted."""
    return _stop.is_set()


def check() -> None:
    """Raise ``Interrupted`` if the run was interrupted."""
    if _stop.is_set():
        raise Interrupted


def wait(seconds: float) -> None:
    """Wait, or until the run is interrupted."""
    _stop.wait(seconds)


def exit_code() -> int:
    """The exit code of an interrupted command: 128 + signal."""
    return 128 + _signal


@contextmanager
def deferred() -> Iterator[None]:
    """Finish the block in the main thread even if a signal arrives meanwhile, and raise ``Stopped`` after it."""
    global _deferring
    _deferring += 1
    try:
        yield
    finally:
        _deferring -= 1
    if _stop.is_set() and not _deferring and threading.current_thread() is threading.main_thread():
        raise Stopped


def is_deferred() -> bool:
    """Whether the main thread is in a ``deferred`` block."""
    return _deferring > 0
