"""Studies that participants share: each point is taken once, whoever dies; one alone asks for the same points."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
from processes import killed_at

from dynconf_core.errors import InputError
from dynconf_core.experiment.points import Range
from dynconf_core.failing import failing
from dynconf_core.schemes.field import Value
from dynconf_core.store.owner import Owner
from dynconf_tasks.study.points import MEAN_STEPS, Chosen, Listed, Points
from dynconf_tasks.study.searches import ABOVE_PROMISE, keep_search
from dynconf_tasks.study.shared import Code, SharedStudy
from dynconf_tasks.study.storage import journal, open_file, studies, title
from dynconf_tasks.study.trials import RETRIES

RANGES = [Range("alpha", 0.5, 64.0), Range("time_steps", 4, 32), Range("smoothing", choices=("sum", "mean"))]
TRIALS = 16
"""More than the ten that TPE draws at random."""
CODE = Code("1.0", "abc")


class Dies(BaseException):
    """The process is killed."""


def figures(values: Mapping[str, Value]) -> Sequence[float]:
    """Accuracy and mean steps as they could be: longer is better, and takes longer."""
    alpha, steps = float(values["alpha"]), int(values["time_steps"])
    return 1 - 1 / steps - abs(alpha - 8) / 100 - (values["smoothing"] == "mean") / 50, steps * 0.5


def shared(home: Path, points: Points, name: str = "a", code: Code = CODE, **options: Any) -> SharedStudy:
    return SharedStudy(home, name, points, code, lambda: "run", **options)


def listed(count: int) -> Listed:
    return Listed([{"n": number} for number in range(count)])


def studied(home: Path, dies_at: int | None = None, seed: int = 0, fails_at: int | None = None) -> list[dict[str, Value]]:
    """Take part alone; returns the points that were computed. Optuna's storage is all that a killed process leaves."""
    asked: list[dict[str, Value]] = []
    with shared(home, Chosen(RANGES, TRIALS, seed)) as study:
        while (taken := study.take()) is not None:
            asked.append(dict(taken.values))
            if len(asked) - 1 == dies_at:
                study._mine.clear()  # a killed process gives nothing back
                raise Dies
            failed = len(asked) - 1 == fails_at
            study.done(taken, [{"number": taken.index}], None if failed else figures(taken.values))
    return asked


def trials(home: Path) -> list[optuna.trial.FrozenTrial]:

    return next(study.trials for name, study in studies(home) if name == "a")


def test_a_study_that_died_at_any_trial_goes_on_as_if_it_had_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = studied(tmp_path / "whole")
    assert len({str(values) for values in whole}) > TRIALS / 2, "the points differ"
    for number in range(0, TRIALS, 3):
        home = tmp_path / str(number)
        with monkeypatch.context() as patch:
            patch.setattr(Owner, "this", lambda: Owner("this-host", 1, 1))
            with pytest.raises(Dies):
                studied(home, dies_at=number)
        assert [trial.state.name for trial in trials(home)] == ["COMPLETE"] * number + ["RUNNING"]
        assert studied(home) == whole
        assert [trial.params for trial in trials(home)] == whole
        assert {trial.state.name for trial in trials(home)} == {"COMPLETE"}
    assert studied(tmp_path / "other", seed=1) != whole


def test_a_failed_point_is_recorded_as_failed_and_tried_again_by_the_next_command(tmp_path: Path) -> None:
    first = studied(tmp_path, fails_at=3)
    assert [trial.number for trial in trials(tmp_path) if trial.state.name == "FAIL"] == [3]
    assert studied(tmp_path) == first, "with the values that it had"
    assert {trial.state.name for trial in trials(tmp_path)} == {"COMPLETE"}


def test_who_joins_leaves_alone_what_is_done_or_failed(tmp_path: Path) -> None:
    with shared(tmp_path, listed(3)) as study:
        for number in range(2):
            taken = study.take()
            assert taken is not None
            study.done(taken, [{}], None if number else [0.5, 1.0])
    with shared(tmp_path, listed(3), join=True) as study:
        assert [point.condition for point in study.state()] == ["done", "done", "free"]
        taken = study.take()
        assert taken is not None and taken.index == 2
        study.release(taken)
        assert [point.condition for point in study.state()] == ["done", "done", "free"], "given back"
        assert all(not point.attempts for point in study.state())


def test_values_come_back_as_they_are_and_a_point_of_a_long_list_takes_no_more_room(tmp_path: Path) -> None:
    def size(count: int) -> float:
        numbers = range(count)
        points = [{"n": n, "alpha": n / 3, "smoothing": ("sum", "mean")[n % 2], "fixed": n % 2 == 0} for n in numbers]
        with shared(tmp_path / str(count), Listed(points)) as study:
            for point in points:
                taken = study.take()
                assert taken is not None and dict(taken.values) == point
                assert [type(value) for value in taken.values.values()] == [int, float, str, bool]
                study.done(taken, [{}], [0.5, 1.0])
        return journal(tmp_path / str(count), "a").stat().st_size / count

    assert size(40) < 1.1 * size(5)


def test_points_are_shared_by_those_who_work_at_the_same_time(tmp_path: Path) -> None:
    with shared(tmp_path, listed(5)) as first, shared(tmp_path, listed(5), "a") as second:
        mine, theirs = first.take(), second.take()
        assert mine is not None and theirs is not None and (mine.index, theirs.index) == (0, 1)
        first.done(mine, [{"by": "first"}], [0.5, 1.0])
        second.done(theirs, [{"by": "second"}], [0.5, 1.0])
        points = second.state()
        assert [point.rows for point in points[:2]] == [[{"by": "first"}], [{"by": "second"}]]
        assert first.run == second.run == "run"


def test_processes_that_are_killed_anywhere_lose_no_point(tmp_path: Path) -> None:
    """Killed between any two steps of taking and reporting a point; the next process takes it again."""
    count = 6

    def work() -> None:
        with shared(tmp_path, listed(count), join=True) as study:
            while (taken := study.take()) is not None:
                study.done(taken, [{"n": taken.index}], [0.5, 1.0])

    for place in ("study.enqueued", "study.taken", "study.point", "study.enqueued:2", "study.taken:2"):
        killed_at(place, work)
    work()
    with shared(tmp_path, listed(count), join=True) as study:
        points = study.state()
    assert [point.condition for point in points] == ["done"] * count
    assert [row["n"] for point in points for row in point.rows] == list(range(count))


def test_a_point_whose_participants_always_die_is_lost_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for attempt in range(RETRIES + 1):
        with monkeypatch.context() as patch:
            patch.setattr(Owner, "this", lambda: Owner("this-host", 1, 1))
            with shared(tmp_path, listed(1), join=True) as study:
                taken = study.take()
                assert taken is not None and taken.attempt == attempt + 1
                study._mine.clear()
        with monkeypatch.context() as patch:
            patch.setattr(Owner, "alive", lambda self: False)
            with shared(tmp_path, listed(1), join=True) as study:
                (point,) = study.state()
                assert [by.owner.pid for by in study.dead] == [1]
        assert (point.condition, point.attempts) == ("lost" if attempt == RETRIES else "free", attempt + 1)


def test_the_mark_of_a_living_participant_on_another_host_protects_its_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = Owner("another-host", 7, 7)
    with monkeypatch.context() as patch:
        patch.setattr(Owner, "this", lambda: elsewhere)
        other = shared(tmp_path, listed(2)).__enter__()
        assert other.take() is not None
    with shared(tmp_path, listed(2)) as study:
        assert [point.condition for point in study.state()] == ["running", "free"], "it joins, since the other lives"
        other._mine.clear()
        other.__exit__()
        assert [point.condition for point in study.state()] == ["free", "free"]
        assert [by.owner for by in study.dead] == [elsewhere]


def test_other_code_and_other_numbers_are_refused(tmp_path: Path) -> None:
    with shared(tmp_path, listed(2)) as study:
        assert study.take() is not None
        other = Code("2.0", "def")
        with (
            pytest.raises(InputError, match=r"2\.0 \(def\).*--allow-other-code") as refused,
            shared(tmp_path, listed(2), code=other),
        ):
            pass
        assert "1.0 (abc)" in str(refused.value)
        with shared(tmp_path, listed(2), code=other, other_code=True) as joined:
            assert joined.take() is not None
        with pytest.raises(InputError, match=r"2 points.*3.*--trials"), shared(tmp_path, listed(3)):
            pass


def test_the_results_are_made_once(tmp_path: Path) -> None:
    made: list[bool] = []

    def make(points: Sequence[object], settled: bool) -> str:
        made.append(settled)
        return "made"

    with shared(tmp_path, listed(1)) as study, shared(tmp_path, listed(1)) as other:
        assert study.gathered(make, lambda: "read") == "made" and made == [False]
        taken = study.take()
        assert taken is not None
        study.done(taken, [{}], [0.5, 1.0])
        assert [one.gathered(make, lambda: "read") for one in (study, other)] == ["made", "read"] and made == [False, True]


def test_two_threads_never_take_the_same_point(tmp_path: Path) -> None:
    taken: list[int] = []

    def take() -> None:
        with shared(tmp_path, listed(12)) as study:
            while (found := study.take()) is not None:
                taken.append(found.index)
                study.done(found, [{}], [0.5, 1.0])

    with shared(tmp_path, listed(12)) as held:
        first = held.take()  # keeps the study alive, so that the others join it
        threads = [threading.Thread(target=take) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert first is not None and sorted([first.index, *taken]) == list(range(12))


@pytest.mark.parametrize("damage", [b"{\n", b"\xff\xfe\n", b'{"op_code": 99}\n', b"[" * 5000 + b"\n"])
def test_a_damaged_journal_is_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: bytes) -> None:
    with shared(tmp_path, listed(1)):
        pass
    path = journal(tmp_path, "a")
    path.write_bytes(path.read_bytes() + damage + damage)
    with shared(tmp_path, listed(1)) as study:
        assert study.take() is not None
    assert str(path) in caplog.text and path.with_name("a.journal.damaged").read_bytes().count(damage) == 2


def test_points_pass_the_failure_points(tmp_path: Path) -> None:
    passed: list[str] = []
    with failing(passed.append), shared(tmp_path, listed(1)) as study:
        taken = study.take()
        assert taken is not None
        study.done(taken, [{}], [0.5, 1.0])
    assert [name for name in passed if name.startswith("study.")] == ["study.enqueued", "study.taken", "study.point"]


def test_who_comes_before_the_first_point_is_taken_joins(tmp_path: Path) -> None:
    """Otherwise two commands that begin at the same time would each begin the study anew."""
    with shared(tmp_path, listed(2)) as first, shared(tmp_path, listed(2)) as second:
        taken, other = first.take(), second.take()
        assert taken is not None and other is not None and {taken.index, other.index} == {0, 1}


def test_a_study_has_a_readable_name_and_a_file_name_that_a_shell_takes(tmp_path: Path) -> None:
    name = title("cifar10-resnet18-qcfs", "my.module:Rule", "smoke", "1a2b3c4d")
    assert name == "cifar10-resnet18-qcfs · my.module:Rule · smoke · 1a2b3c4d"
    with shared(tmp_path, listed(1), name) as study:
        taken = study.take()
        assert taken is not None
        study.done(taken, [{}], [0.5, 1.0])
    (file,) = (tmp_path / "studies").iterdir()
    assert file == journal(tmp_path, name) and file.name == "cifar10-resnet18-qcfs-my.module-Rule-smoke-1a2b3c4d.journal"
    ((found, kept),) = studies(tmp_path)
    assert found == kept.study_name == name
    with shared(tmp_path, listed(1), name, join=True) as again:
        assert [point.condition for point in again.state()] == ["done"]


def test_a_study_names_its_objectives_and_what_is_not_feasible(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    with shared(tmp_path, Listed([{"alpha": 1.0}, {"alpha": 2.0}], [MEAN_STEPS])) as study:
        for steps, above in ((4.0, -0.01), (2.0, 0.02)):
            taken = study.take()
            assert taken is not None
            study.done(taken, [{}], [steps], {ABOVE_PROMISE: above})
    ((_, found),) = studies(tmp_path)
    assert found.metric_names == ["mean steps at the promised loss (calibration)"]
    assert [trial.params for trial in found.trials] == [{"alpha": 1.0}, {"alpha": 2.0}]
    assert found.best_trial.value == 4.0, "the other loses more than was promised"
    assert not [one for one in recwarn if "experimental" in str(one.message)]
    with shared(tmp_path, listed(1), "two"):
        assert next(one for name, one in studies(tmp_path) if name == "two").metric_names == [
            "accuracy with exit (calibration)",
            "mean steps at the promised loss (calibration)",
        ]


def test_a_finished_search_is_kept_to_be_looked_at(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    memory = optuna.create_study(directions=["maximize", "minimize"])
    for alpha, steps in ((1.0, 5.0), (2.0, 3.0), (3.0, 4.0)):
        memory.enqueue_trial({"alpha": alpha})
        trial = memory.ask({"alpha": optuna.distributions.FloatDistribution(0.1, 10.0)})
        memory.tell(trial, [0.9, steps])
    name = title("net", "max_softmax", "smoke", "1a2b3c4d")
    for _ in range(2):  # the second time, it is there already
        keep_search(tmp_path, name, memory.trials, [0.0, 0.004, 0.001], 0.002)
    (file,) = (tmp_path / "studies" / "searches").iterdir()
    kept = optuna.load_study(study_name=name, storage=open_file(file))
    assert file.name == "net-max_softmax-smoke-1a2b3c4d.journal"
    assert [(trial.params["alpha"], trial.value) for trial in kept.trials] == [(1.0, 5.0), (2.0, 3.0), (3.0, 4.0)]
    assert [trial.user_attrs["points lost (calibration)"] for trial in kept.trials] == [0.0, 0.4, 0.1]
    assert kept.best_trial.params == {"alpha": 3.0} and not caplog.records
    assert list(studies(tmp_path)) == []  # it is nobody's to take part in
    keep_search(file, name, memory.trials, [0.0] * 3, 0.0)  # a home that is a file
    assert "cannot be shown in Optuna's dashboard" in caplog.text
