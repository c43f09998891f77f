"""Ctrl-C reaches settings that run in threads: every stage asks here after each batch whether it should go on."""

import threading

_stop = threading.Event()


class Interrupted(Exception):
    """The user wants the work to end; what is finished is kept."""

    def __init__(self) -> None:
        super().__init__("interrupted; a rerun goes on from what is finished")


def interrupt() -> None:
    """From now on ``check`` raises."""
    _stop.set()


def interrupted() -> bool:
    """Whether the user asked to end."""
    return _stop.is_set()


def check() -> None:
    """Raise ``Interrupted`` if the user asked to end."""
    if _stop.is_set():
        raise Interrupted
