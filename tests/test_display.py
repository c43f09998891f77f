"""The progress of a command: what is said of settings, points and other participants, on a terminal and without one."""

from __future__ import annotations

import io
import re
import time

import pytest

from dynconf_core.experiment.job import RunContext
from dynconf_core.experiment.profiles import resolve
from dynconf_core.experiment.stages import STAGES
from dynconf_flows.command import display
from dynconf_flows.command.display import Display, duration, roughly, starting
from dynconf_flows.command.terminal import Terminal
from dynconf_flows.workers.messages import Assignment
from dynconf_tasks.listening import Counted, observer, tell

VGG = "cifar10-vgg16-qffs"
LONG = "imagenet-resnet50-qcfs time_steps=16 levels=4 initial_potential=0.25"


class Screen:
    """A console of 80 columns and what was printed on it; ``terminal`` says what it takes itself for."""

    def __init__(self, terminal: bool) -> None:
        self.out = io.StringIO()
        self.console = Terminal(width=80)
        self.console.file, self.console._force_terminal = self.out, terminal

    @property
    def text(self) -> str:
        return self.out.getvalue()


def run(name: str, outcomes: dict[str, str], seconds: float = 2.0) -> None:
    """Let the stages of a setting end one after the other."""
    for stage in STAGES:
        if stage.name in outcomes:
            shown = observer(name, stage.name)
            if outcomes[stage.name] == "ran":
                shown.started()
                shown(1, 2, "half")
            shown.finished(outcomes[stage.name], seconds)


def every(outcome: str) -> dict[str, str]:
    return {stage.name: outcome for stage in STAGES}


@pytest.mark.parametrize("terminal", [True, False])
def test_a_line_a_setting_and_the_two_longest_stages(terminal: bool) -> None:
    screen = Screen(terminal)
    with Display(screen.console):
        tell(Counted(3, 0, 0, 0))
        run(VGG, {**every("cached"), "search": "ran", "evaluate": "ran"})
        run("other", every("cached"))
        run("broken", {"train": "ran", "convert": "failed"})
    plain = re.sub(r"\x1b\[[^a-zA-Z]*[a-zA-Z]", "", screen.text)
    said = [line for line in plain.splitlines() if "done in" in line or "store" in line or "failed" in line]
    assert [" ".join(line.split()) for line in said] == [
        f"{VGG} done in 4.0 s: search 2.0 s, evaluate 2.0 s",
        "other all of it from the store",
        "broken failed at convert after 2.0 s",
    ]


def test_the_whole_counts_what_others_did() -> None:
    with Display(Screen(False).console, "point") as shown:
        assert "opening" in shown.whole()
        tell(Counted(12, 5, 2, 3))
        assert shown.whole().startswith("5 of 12 points done (2 by others, 3 with others")


def test_the_time_left_is_not_judged_by_what_the_store_had(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with Display(Screen(False).console) as shown:
        tell(Counted(4, 0, 0, 0))
        run("one", every("cached"))
        run("two", every("cached"))
        tell(Counted(4, 2, 0, 0))
        now[0] = 60.0
        assert shown.left() == ""
        run("three", every("ran"))
        tell(Counted(4, 3, 0, 0))
        assert shown.left() == "about 1 min left"


def test_the_time_left_of_points_is_judged_by_what_the_newest_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first point trains for ten minutes; the others find that in the store and search for eight seconds each."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with Display(Screen(False).console, "point") as shown:
        tell(Counted(5, 0, 0, 0))
        now[0] = 600.0
        observer("one", "train").finished("ran", 600.0)
        assert shown.left() == "", "no point is finished"
        observer("one", "search").finished("ran", 8.0)
        observer("one", "evaluate").finished("ran", 2.0)
        tell(Counted(5, 1, 0, 0))
        assert shown.left() == "about 41 min left", "as far as anybody knows, the others train, too"
        observer("two", "train").finished("cached", 0.0)
        assert shown.left() == "about 40 s left"
        observer("two", "search").finished("ran", 8.0)
        observer("two", "evaluate").finished("ran", 2.0)
        tell(Counted(5, 2, 0, 0))
        assert shown.left() == "about 30 s left"
        tell(Counted(5, 3, 1, 1))
        assert shown.left() == "about 10 s left", "others do one"
    with Display(Screen(False).console, "point") as shown:
        tell(Counted(5, 2, 2, 0))
        assert shown.left() == "", "none of them is this run's"


@pytest.mark.parametrize(
    ("seconds", "text"), [(40.2, "40 s"), (59.6, "1 min"), (1327, "22 min"), (3580, "1 h 00 min"), (7500, "2 h 05 min")]
)
def test_the_time_left_in_words(seconds: float, text: str) -> None:
    assert roughly(seconds) == text


def test_two_points_of_a_setting_look_different(tmp_path_factory: pytest.TempPathFactory) -> None:
    home = tmp_path_factory.getbasetemp()
    plan = resolve(VGG, "smoke")
    names = {
        Assignment(plan, RunContext(home, home), None, {}, None, point).name
        for point in (None, {"time_steps": 4}, {"alpha": 8.0})
    }
    assert names == {VGG, f"{VGG} time_steps=4", f"{VGG} alpha=8"}


def test_bars_fit_80_columns() -> None:
    screen = Screen(True)
    with Display(screen.console) as shown:
        tell(Counted(200, 100, 50, 50))
        for stage in ("train", "collect_calibration"):
            bar = observer(LONG, stage)
            bar.started()
            bar(1234, 56789, "loss 0.1234, accuracy 91.2 %, and more than anybody wants to know")
        screen.out.truncate(0)
        screen.console.print(shown.screen())
    lines = Screen(False)
    lines.console.print(shown.screen())
    for line in lines.text.splitlines():
        assert len(line) <= 80
    assert "1234/56789" in lines.text and "collect cal." in lines.text and "imagenet-resnet50" in lines.text


def test_without_a_terminal_the_whole_is_said_once_in_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    screen = Screen(False)
    with Display(screen.console):
        tell(Counted(2, 0, 0, 0))
        bar = observer(VGG, "train")
        bar.started()
        for step in range(40):
            now[0] += 4.0
            bar(step, 40, "")
    lines = screen.text.splitlines()
    assert len(lines) == 2 and all("0 of 2 settings done" in line and f"{VGG} train" in line for line in lines)


def test_what_is_starting_is_said_before_it_starts() -> None:
    screen = Screen(False)
    with starting(screen.console) as say:
        say("starting a local Prefect server")
        assert screen.text == "starting a local Prefect server ...\n"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (9.96, "10 s"), (59.6, "1:00"), (185, "3:05"), (3599.7, "1 h 00"), (7500, "2 h 05")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text and len(text) <= 7
    assert display.LONG < display.EVERY
