"""What a user sees while a command works: what is starting, how many settings are done, the time left, and the running stages.

On a terminal, a line of the whole and a bar for each running stage stand below the lines of what has ended. Without a terminal,
there are lines alone: of each setting that has ended, of long stages, and of the whole once a minute.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType

from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from dynconf_flows.command.terminal import Terminal
from dynconf_tasks import interruption
from dynconf_tasks.listening import Counted, listen, watch

LONG = 30.0
"""Seconds after which a stage has a line of its own when it ends."""
EVERY = 60.0
"""Seconds between two lines of the whole if there is no terminal."""
WIDE = 100
"""Width of a terminal from which the bars are followed by the stage's own figures."""
SOON = 5.0
"""Seconds before which nothing is said of the time left."""
POINT = "point"
"""What the points of a sweep are called; of them, most take stages from the store that earlier ones have computed."""
STAGES = {
    "train": 0.6,
    "fine_tune": 0.4,
    "convert": 0.05,
    "collect_calibration": 0.1,
    "collect_test": 0.1,
    "search": 0.05,
    "evaluate": 0.1,
}
"""Roughly what part of a setting's time each of its stages takes, for the time left, of which nobody expects more; fine-tuning
adds to it where it runs."""


@contextmanager
def starting(console: Terminal) -> Iterator[Callable[[str], None]]:
    """Yields a function that says what is starting: a spinner on a terminal, otherwise a line."""
    if not console.is_terminal:
        yield lambda text: console.print(f"{text} ...", soft_wrap=True)
        return
    with console.status("") as status:
        yield lambda text: status.update(Text(f"{text} ...", overflow="ellipsis", no_wrap=True))


class Display(AbstractContextManager["Display"]):
    """Shows the progress of the settings of this run, and how many others have done, while it is open.

    Args:
        console: the terminal or file.
        noun: what a study's points are called.
    """

    def __init__(self, console: Terminal, noun: str = "setting") -> None:
        self.console, self.noun = console, noun
        self.settings: dict[str, _Setting] = {}
        self.counted = Counted(0, 0, 0, 0)
        self.stages = Progress(
            TextColumn("{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1), markup=False),
            TextColumn("{task.fields[stage]}", table_column=Column(no_wrap=True, min_width=12), markup=False),
            BarColumn(bar_width=12),
            _Parts(table_column=Column(no_wrap=True, min_width=7, justify="right")),
            _Left(table_column=Column(no_wrap=True, min_width=7, justify="right")),
            TextColumn("{task.fields[text]}", table_column=Column(no_wrap=True, overflow="ellipsis"), markup=False),
            console=console,
            expand=True,
            auto_refresh=False,
        )
        self._start = self._said = time.monotonic()
        self._ran: dict[str, list[float]] = {}
        """Of each stage, how long it took wherever this run computed it."""
        self._newest: dict[str, str] = {}
        """Of each stage, its outcome in the setting or point that it was last needed for."""
        self._given = 0.0
        """The part of all work that the store had done, by which the time left is not to be judged."""
        self._changing = threading.Lock()
        self._live = Live(
            get_renderable=self.screen, console=console, transient=True, refresh_per_second=4, redirect_stdout=False
        )

    def __enter__(self) -> Display:
        if self.console.is_terminal:
            self._live.start()
        listen(lambda setting, stage: _StageDisplay(self, setting, stage))
        watch(self.count)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        watch(lambda counted: None)
        if self.console.is_terminal:
            self._live.stop()

    def count(self, counted: Counted) -> None:
        """Take in how many points are done, by whomever."""
        self.counted = counted

    def say(self, text: str) -> None:
        """Print a line above the bars."""
        self.console.print(text, soft_wrap=not self.console.is_terminal)

    def whole(self) -> str:
        """The line of the whole: what is done of how much, by whom, and for how long it will go on."""
        counted = self.counted
        if not counted.points:
            return "opening the study and MLflow"
        done = f"{counted.done} of {counted.points} {self.noun}s done"
        notes = [f"{counted.by_others} by others"] if counted.by_others else []
        notes += [f"{counted.with_others} with others"] if counted.with_others else []
        notes += ["processes are starting"] if not self.settings and counted.done + counted.with_others < counted.points else []
        return done + (f" ({', '.join(notes)})" if notes else "")

    def left(self) -> str:
        """About how much time is left; "" before that can be told."""
        if self.noun == POINT:
            seconds = self._points_left()
            return "" if seconds is None else f"about {roughly(seconds)} left"
        seconds, part = time.monotonic() - self._start, self.part()
        gained = part - self._given
        if seconds < SOON or gained < 0.02 or part >= 1:
            return ""
        return f"about {roughly(seconds * (1 - part) / gained)} left"

    def _points_left(self) -> float | None:
        """Seconds that the points of a study will still take here; None before this run has finished one.

        A point takes what the stages took that the newest points computed: later points find most stages in the store.
        """
        finished, counted = self.counted.done - self.counted.by_others, self.counted
        waiting = counted.points - counted.done - counted.with_others
        with self._changing:
            ended = sum(one.ended for one in self.settings.values())
            running = [one for one in self.settings.values() if not one.ended]
            each = {stage: statistics.fmean(taken) for stage, taken in self._ran.items() if self._newest[stage] == "ran"}
        if finished < 1 or waiting < 1:
            return None
        done = sum(each.get(stage, 0.0) * part for one in running for stage, part in list(one.parts.items()))
        whole = sum(each.values()) * waiting * max(1.0, ended / finished)
        return max(0.0, whole - done) / max(1, len(running))

    def part(self) -> float:
        """Roughly what part of all work is done, from 0 to 1."""
        if not self.counted.points:
            return 0.0
        with self._changing:
            running = sum(one.part() for one in self.settings.values() if not one.ended)
        return min(1.0, (self.counted.done + running) / self.counted.points)

    def of(self, name: str) -> _Setting:
        """The setting or point of this name."""
        with self._changing:
            return self.settings.setdefault(name, _Setting(name))

    def took(self, setting: _Setting, stage: str, outcome: str, seconds: float) -> None:
        """A stage has ended: print what is worth a line."""
        if outcome not in ("ran", "failed") and self.counted.points:
            self._given += STAGES.get(stage, 0.0) / self.counted.points
        with self._changing:
            self._newest[stage] = outcome
            if outcome == "ran":
                self._ran.setdefault(stage, []).append(seconds)
        setting.outcomes[stage] = outcome
        setting.parts[stage] = 1.0
        if outcome == "ran":
            setting.seconds[stage] = seconds
        if outcome == "failed":
            setting.ended = True
            if not interruption.interrupted():
                self.say(f"{setting.name:<23} failed at {_called(stage)} after {duration(seconds)}")
        elif stage == "evaluate":
            setting.ended = True
            self.say(f"{setting.name:<23} {setting.summary()}")
        elif outcome == "ran" and seconds >= LONG:
            self.say(f"{setting.name:<23} {_called(stage)} took {duration(seconds)}")

    def tick(self) -> None:
        """Without a terminal, print the line of the whole once a minute."""
        if self.console.is_terminal or time.monotonic() - self._said < EVERY:
            return
        self._said = time.monotonic()
        running = [f"{one.name} {_called(stage)} {100 * part:.0f} %" for one in self._running() for stage, part in one.at()]
        self.say("; ".join(text for text in (self.whole(), self.left(), *running) if text))

    def _running(self) -> list[_Setting]:
        with self._changing:
            return [one for one in self.settings.values() if not one.ended]

    def screen(self) -> Group:
        """The bars of the running stages, and the line of the whole."""
        parts = (self.whole(), duration(time.monotonic() - self._start), self.left())
        return Group(self.stages, Text(" · ".join(part for part in parts if part), no_wrap=True, overflow="ellipsis"))


class _Setting:
    """A setting, or a point of a sweep, that this run computes."""

    def __init__(self, name: str) -> None:
        self.name, self.ended = name, False
        self.outcomes: dict[str, str] = {}
        self.seconds: dict[str, float] = {}
        self.parts: dict[str, float] = {}

    def part(self) -> float:
        """Roughly what part of it is done."""
        parts = dict(self.parts)
        whole = 1 + STAGES["fine_tune"] * ("fine_tune" in parts)
        return sum(STAGES.get(stage, 0.0) * part for stage, part in parts.items()) / whole

    def at(self) -> list[tuple[str, float]]:
        """The running stages, with what part of each is done."""
        return [(stage, part) for stage, part in list(self.parts.items()) if stage not in self.outcomes]

    def summary(self) -> str:
        """What was done for it, on a line."""
        if not self.seconds:
            return "all of it from the store"
        longest = sorted(self.seconds, key=lambda stage: -self.seconds[stage])[:2]
        told = ", ".join(f"{_called(stage, True)} {duration(self.seconds[stage])}" for stage in longest)
        return f"done in {duration(sum(self.seconds.values()))}: {told}"


class _StageDisplay:
    """Shows a stage; see ``dynconf_tasks.listening.Listener``."""

    def __init__(self, display: Display, setting: str, stage: str) -> None:
        self.display, self.setting, self.stage = display, display.of(setting), stage
        self.bar: TaskID | None = None
        self.waited = False

    def started(self) -> None:
        self.setting.parts[self.stage] = 0.0
        if self.display.console.is_terminal:
            self.bar = self.display.stages.add_task(self.setting.name, total=None, stage=_called(self.stage, True), text="")

    def __call__(self, done: int, total: int, text: str) -> None:
        self.setting.parts[self.stage] = done / total if total else 0.0
        if self.bar is not None:
            shown = text if self.display.console.width >= WIDE else ""
            self.display.stages.update(self.bar, completed=done, total=total, text=shown)
        self.display.tick()

    def waiting(self, text: str) -> None:
        if not self.waited:
            self.waited = True
            self.display.say(f"{self.setting.name:<23} {_called(self.stage)} waits for {text}")
        self.display.tick()

    def finished(self, outcome: str, seconds: float) -> None:
        if self.bar is not None:
            self.display.stages.remove_task(self.bar)
        self.display.took(self.setting, self.stage, outcome, seconds)


class _Parts(ProgressColumn):
    """What is done of how much; nothing before that is known."""

    def render(self, task: Task) -> Text:
        """See ``rich``."""
        return Text(f"{task.completed:.0f}/{task.total:.0f}" if task.total else "")


class _Left(ProgressColumn):
    """The time that a stage will still take."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        """See ``rich``."""
        return Text("" if task.time_remaining is None or not task.total else duration(task.time_remaining))


def duration(seconds: float) -> str:
    """A duration for people, in at most seven characters: 4.2 s, 48 s, 3:05, 2 h 05."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d}"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d}"


def roughly(seconds: float) -> str:
    """A duration of which only the size matters, in words: about 40 s, 22 min, 2 h 05 min."""
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _called(stage: str, briefly: bool = False) -> str:
    """A stage's name for people."""
    return "collect cal." if briefly and stage == "collect_calibration" else stage.replace("_", " ")
