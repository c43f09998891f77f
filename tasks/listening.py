"""Who hears how far the stages of this process are. A command line draws bars; a worker's log gets a line now and then."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

logger = logging.getLogger(__name__)
EVERY = 60.0
"""Seconds between two lines of a log."""


class Listener(Protocol):
    """Hears of one stage. Whatever ``__call__`` raises ends the stage (that is how an interruption reaches a thread)."""

    def started(self) -> None:
        """The stage is not in the store and begins."""

    def __call__(self, done: int, total: int, text: str) -> None:
        """``done`` of ``total`` parts are done; see ``dynconf_core.progress``."""

    def finished(self, outcome: str, seconds: float) -> None:
        """The stage "ran", was "cached" or "given", or "failed"."""


@dataclass
class LogListener:
    """Writes a line at the start, every minute and at the end."""

    setting: str
    stage: str
    last: float = field(default_factory=time.monotonic)

    def started(self) -> None:
        """See ``Listener``."""
        logger.info("%s · %s begins", self.setting, self.stage)

    def __call__(self, done: int, total: int, text: str) -> None:
        """See ``Listener``."""
        if time.monotonic() - self.last >= EVERY:
            self.last = time.monotonic()
            logger.info("%s · %s %d/%d %s", self.setting, self.stage, done, total, text)

    def finished(self, outcome: str, seconds: float) -> None:
        """See ``Listener``."""
        logger.info("%s · %s %s after %.1f s", self.setting, self.stage, outcome, seconds)


_make: Callable[[str, str], Listener] = LogListener


def listen(make: Callable[[str, str], Listener]) -> None:
    """From now on ``make(setting, stage)`` hears of every stage of this process."""
    global _make
    _make = make


def listener(setting: str, stage: str) -> Listener:
    """Whoever hears of this stage."""
    return _make(setting, stage)
