"""Signals: SIGINT, SIGTERM and SIGHUP end a command alike, within seconds and with exit code 128 + signal.

Python runs a signal's handler in the main thread, between two of its instructions. A thread of its own therefore learns of the
signal at once, also while the main thread is inside a long call of a library, and ends the process if nothing else does.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

from dynconf_tasks import interruption

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
GRACE = 8.5
"""Seconds from a signal to the end of the process, whatever it does: records take two to four, more on a busy machine."""

SAYING = 0.5
"""Seconds that the message on the signal may take at most."""

_waiting = False
_seen = False
_said = threading.Event()


@contextmanager
def handled() -> Iterator[None]:
    """Handle signals during the block; a SIGHUP that was ignored before (``nohup``) stays ignored.

    Outside the main thread, and inside another such block, it does nothing.
    """
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) is _handler:
        yield
        return
    asked = [one for one in SIGNALS if one != signal.SIGHUP or signal.getsignal(one) is not signal.SIG_IGN]
    told, tell = os.pipe()
    os.set_blocking(tell, False)
    threading.Thread(target=_watch, args=(told,), name="signals", daemon=True).start()
    wakeup = signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    before = {one: signal.signal(one, _handler) for one in asked}
    try:
        yield
    finally:
        if not interruption.interrupted():  # else a second signal still does nothing new
            for one, handler in before.items():
                signal.signal(one, handler)
            signal.set_wakeup_fd(wakeup)
            os.close(tell)


@contextmanager
def waiting() -> Iterator[None]:
    """The main thread only waits in the block, for others that stop by themselves: a signal raises nothing in it."""
    global _waiting
    _waiting = True
    try:
        yield
    finally:
        _waiting = False


def leave() -> NoReturn:
    """End an interrupted command whose work is done: the interpreter's own clearing up takes seconds on a busy machine."""
    _said.wait(SAYING)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(interruption.exit_code())


def _handler(number: int, frame: object) -> None:
    """Stop the main thread at the first signal; a second one does nothing new."""
    global _seen
    first, _seen = not _seen, True
    interruption.interrupt(number)
    if first and not _waiting and not interruption.is_deferred():
        raise interruption.Stopped


def _watch(told: int) -> None:
    """Wait for the first signal, say so, and end the process if it has not ended ``GRACE`` seconds later."""
    numbers = b""
    while not any(number in SIGNALS for number in numbers):
        numbers = os.read(told, 1)
        if not numbers:  # the block has ended
            os.close(told)
            return
    interruption.interrupt(numbers[0])
    name = signal.Signals(numbers[0]).name
    for descriptor, text in ((1, ""), (2, f"\nInterrupted by {name}: stopping; what is finished is kept.\n")):
        try:
            os.write(descriptor, text.encode())
        except OSError:  # the terminal is gone: what is still to be written must not fail
            os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
    _said.set()
    time.sleep(GRACE)
    os._exit(interruption.exit_code())
