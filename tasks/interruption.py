"""Interruption of settings that run in threads: every stage checks after each batch whether to stop."""

import threading

_stop = threading.Event()


class Interrupted(Exception):
    """The user interrupted the run; finished stages are kept."""

    def __init__(self) -> None:
        super().__init__("interrupted; run again to continue from the finished stages")


def interrupt() -> None:
    """Make ``check`` raise from now on."""
    _stop.set()


def interrupted() -> bool:
    """Whether the user interrupted the run."""
    return _stop.is_set()


def check() -> None:
    """Raise ``Interrupted`` if the user interrupted the run."""
    if _stop.is_set():
        raise Interrupted
