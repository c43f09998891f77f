"""Progress of the stages: a bar for each running stage and a line for each finished one; without a terminal, only lines."""

import time
from contextlib import AbstractContextManager
from types import TracebackType

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from dynconf_flows.command.terminal import Terminal
from dynconf_tasks import interruption
from dynconf_tasks.listening import listen

QUIET = 30.0
"""Seconds between the lines of a running stage if there are no bars."""
OUTCOMES = {"ran": "done", "cached": "from the store", "given": "given", "adopted": "adopted", "failed": "failed"}


class Display(AbstractContextManager["Display"]):
    """Shows the progress of every stage of this process while it is open."""

    def __init__(self, console: Terminal) -> None:
        self.console = console
        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[text]}", markup=False),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> "Display":
        self.progress.start()
        listen(lambda setting, stage: _StageDisplay(self, setting, stage))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.progress.stop()

    def say(self, text: str) -> None:
        """Print a line above the bars."""
        self.console.print(text)


class _StageDisplay:
    def __init__(self, display: Display, setting: str, stage: str) -> None:
        self.display = display
        self.setting, self.stage = setting, stage
        self.bar: TaskID | None = None
        self.last = time.monotonic()
        self.waited = False

    @property
    def name(self) -> str:
        return f"{self.setting:<23} {self.stage.replace('_', ' '):<19}"

    def started(self) -> None:
        self.bar = self.display.progress.add_task(self.name, total=None, text="")

    def __call__(self, done: int, total: int, text: str) -> None:
        if self.bar is not None:
            self.display.progress.update(self.bar, completed=done, total=total, text=text)
        if not self.display.console.is_terminal and time.monotonic() - self.last >= QUIET:
            self.last = time.monotonic()
            self.display.say(f"{self.name} {done}/{total} {text}")

    def waiting(self, text: str) -> None:
        if not self.waited:
            self.waited = True
            self.display.say(f"{self.name} waits for {text}")

    def finished(self, outcome: str, seconds: float) -> None:
        if self.bar is not None:
            self.display.progress.remove_task(self.bar)
        if outcome == "failed" and interruption.interrupted():
            return
        self.display.say(f"{self.name} {OUTCOMES[outcome]:<14} {seconds:6.1f} s")
