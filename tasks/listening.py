"""Listeners to the progress of stages: the command draws bars, a worker writes lines to its log."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from dynconf_core.home.running import note_progress
from dynconf_tasks import interruption

logger = logging.getLogger(__name__)
EVERY = 60.0
"""Seconds between two lines of the log."""
NOTED_EVERY = 2.0
"""Seconds between two notes for ``dynconf status`` while a stage goes on."""


class Listener(Protocol):
    """Receives the progress of one stage."""

    def started(self) -> None:
        """Called when the stage starts, if the store has no artefact for it."""

    def __call__(self, done: int, total: int, text: str) -> None:
        """Called when ``done`` of ``total`` parts are done; see ``dynconf_core.progress``."""

    def waiting(self, text: str) -> None:
        """Called several times a second while another process works on the stage's key; ``text`` says which."""

    def finished(self, outcome: str, seconds: float) -> None:
        """Called at the end with the outcome: "ran", "cached", "given", "adopted" or "failed"."""


@dataclass
class LogListener:
    """Writes lines to the log: at the start, every minute and at the end."""

    setting: str
    stage: str
    last: float = field(default_factory=time.monotonic)
    waited: bool = False

    def started(self) -> None:
        """See ``Listener``."""
        logger.info("%s · %s started", self.setting, self.stage)

    def __call__(self, done: int, total: int, text: str) -> None:
        """See ``Listener``."""
        if time.monotonic() - self.last >= EVERY:
            self.last = time.monotonic()
            logger.info("%s · %s %d/%d %s", self.setting, self.stage, done, total, text)

    def waiting(self, text: str) -> None:
        """See ``Listener``."""
        if not self.waited:
            self.waited = True
            logger.info("%s · %s waits for %s", self.setting, self.stage, text)

    def finished(self, outcome: str, seconds: float) -> None:
        """See ``Listener``."""
        logger.info("%s · %s %s after %.1f s", self.setting, self.stage, outcome, seconds)


@dataclass
class Interruptible:
    """Ends the stage with ``Interrupted`` once the run is interrupted; passes everything on."""

    inner: Listener

    def started(self) -> None:
        """See ``Listener``."""
        interruption.check()
        self.inner.started()

    def __call__(self, done: int, total: int, text: str) -> None:
        """See ``Listener``."""
        interruption.check()
        self.inner(done, total, text)

    def waiting(self, text: str) -> None:
        """See ``Listener``."""
        interruption.check()
        self.inner.waiting(text)

    def finished(self, outcome: str, seconds: float) -> None:
        """See ``Listener``."""
        self.inner.finished(outcome, seconds)


@dataclass(frozen=True)
class Counted:
    """How far a study is.

    Attributes:
        points: the number of points: a reproduction's settings, a sweep's combinations.
        done: how many are done, or have failed for good.
        by_others: how many of these other participants did.
        with_others: how many others are at now.
    """

    points: int
    done: int
    by_others: int
    with_others: int


class Board:
    """How far this process is, written into its running files, for ``dynconf status``.

    As JSON: ``points``, ``done``, ``by_others``, ``with_others`` as in ``Counted`` (if known), ``at``, the time of writing, and
    ``stages``, each with ``name`` (the setting or point), ``stage``, ``since``, ``done``, ``total`` and ``text``.
    """

    def __init__(self) -> None:
        self._stages: dict[tuple[str, str], dict[str, Any]] = {}
        self._counted: Counted | None = None
        self._written = float("-inf")
        self._changing = threading.Lock()

    def started(self, setting: str, stage: str) -> None:
        """A stage has started."""
        with self._changing:
            self._stages[setting, stage] = {"name": setting, "stage": stage, "since": _now()}
        self._write()

    def progressed(self, setting: str, stage: str, done: int, total: int, text: str) -> None:
        """A part of a stage is done; it is written once in a while."""
        with self._changing:
            if (setting, stage) in self._stages:
                self._stages[setting, stage].update(done=done, total=total, text=text)
        if time.monotonic() - self._written >= NOTED_EVERY:
            self._write()

    def finished(self, setting: str, stage: str) -> None:
        """A stage has ended."""
        with self._changing:
            known = self._stages.pop((setting, stage), None)
        if known is not None:
            self._write()

    def counted(self, counted: Counted) -> None:
        """The points of the study were counted."""
        if counted != self._counted:
            self._counted = counted
            self._write()

    def _write(self) -> None:
        self._written = time.monotonic()
        with self._changing:
            stages = [dict(one) for one in self._stages.values()]
        counted = asdict(self._counted) if self._counted is not None else {}
        note_progress({**counted, "at": _now(), "stages": stages})


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"


@dataclass
class Shown:
    """Puts a stage on the board of this process; passes everything on."""

    inner: Listener
    setting: str
    stage: str

    def started(self) -> None:
        """See ``Listener``."""
        _board.started(self.setting, self.stage)
        self.inner.started()

    def __call__(self, done: int, total: int, text: str) -> None:
        """See ``Listener``."""
        _board.progressed(self.setting, self.stage, done, total, text)
        self.inner(done, total, text)

    def waiting(self, text: str) -> None:
        """See ``Listener``."""
        self.inner.waiting(text)

    def finished(self, outcome: str, seconds: float) -> None:
        """See ``Listener``."""
        _board.finished(self.setting, self.stage)
        self.inner.finished(outcome, seconds)


def _unwatched(counted: Counted) -> None:
    """Nobody looks."""


_make: Callable[[str, str], Listener] = LogListener
_watcher: Callable[[Counted], None] = _unwatched
_board = Board()


def listen(make: Callable[[str, str], Listener]) -> None:
    """Use the listeners that ``make(setting, stage)`` returns, for all further stages of this process."""
    global _make
    _make = make


def watch(watcher: Callable[[Counted], None]) -> None:
    """Tell ``watcher`` from now on how far the study of this process is, whenever that is looked up."""
    global _watcher
    _watcher = watcher


def tell(counted: Counted) -> None:
    """Tell whoever watches, and ``dynconf status``, how far the study is."""
    _board.counted(counted)
    _watcher(counted)


def listener(setting: str, stage: str) -> Listener:
    """The listener of a stage that runs in this process; an interruption of the run ends the stage."""
    return Interruptible(Shown(_make(setting, stage), setting, stage))


def observer(setting: str, stage: str) -> Listener:
    """The listener of a stage that runs in another process."""
    return Shown(_make(setting, stage), setting, stage)
