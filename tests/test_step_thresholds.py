"""Thresholds per step: schedules against plain loops, free thresholds against all possible ones, and their overfitting."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from benchmarks.schedules import Schedule, exit_steps_by_step, free_thresholds, schedules
from dynconf_core.choosing.cross_fitting import cross_fitted_choice
from dynconf_core.choosing.selection import operating_point
from dynconf_core.errors import InputError
from dynconf_core.exit.front import exact_front

INF = math.inf


def test_schedules_by_hand() -> None:
    assert Schedule(2.0, 1.0).added(5).tolist() == [0.0, 0.5, 1.0, 1.5, 2.0]
    assert Schedule(-2.0, 2.0, earliest=3).added(5).tolist() == [INF, INF, -0.5, -1.125, -2.0]
    assert Schedule(3.0, 0.5).added(1).tolist() == [0.0]
    scores = np.array([[1.0, 1.0, INF], [-INF, 5.0, 0.0]])
    assert Schedule(4.0, 1.0).shifted(scores).tolist() == [[1.0, -1.0, INF], [-INF, 3.0, -4.0]]
    assert Schedule(earliest=2).shifted(scores).tolist() == [[-INF, 1.0, INF], [-INF, 5.0, 0.0]]
    assert Schedule(earliest=9).shifted(np.array([[INF, INF]])).tolist() == [[-INF, -INF]]


@pytest.mark.parametrize("schedule", [Schedule(), Schedule(1.5, 0.5), Schedule(-1.0, 2.0, 3), Schedule(earliest=9)])
def test_a_threshold_on_shifted_scores_is_a_threshold_a_step(schedule: Schedule) -> None:
    scores = np.random.default_rng(0).normal(size=(50, 6))
    shifted = schedule.shifted(scores)
    for threshold in (-1.0, 0.0, 0.7):
        expected = []
        for row in scores:
            limits = threshold + schedule.added(6)
            expected.append(next((step + 1 for step in range(5) if row[step] > limits[step]), 6))
        assert exit_steps_by_step(scores, threshold + schedule.added(6)).tolist() == expected
        assert exit_steps_by_step(shifted, np.full(6, threshold)).tolist() == expected
    # So the exact front holds every threshold of the schedule.
    correct = np.random.default_rng(1).random(scores.shape) < 0.5
    front = exact_front(shifted, correct)
    assert (
        exit_steps_by_step(shifted, np.full(6, front.thresholds[len(front) // 2])).mean() == front.mean_steps[len(front) // 2]
    )


def test_numbers_out_of_range_are_named() -> None:
    for name, value in (("slope", INF), ("slope", "1"), ("power", 0.0), ("power", True), ("earliest", 0), ("earliest", 1.5)):
        with pytest.raises(InputError, match=name):
            Schedule(**{name: value})


def test_the_family_is_small_and_fits_the_scores() -> None:
    scores = np.random.default_rng(2).normal(size=(200, 16)).cumsum(axis=1)
    found = schedules(scores)
    assert found[0] == Schedule() and len(found) == len(set(found)) < 40
    louder = schedules(1000.0 * scores)
    assert [schedule.slope for schedule in louder] == pytest.approx([1000 * schedule.slope for schedule in found])
    assert {schedule.earliest for schedule in found} == {1, 2, 4, 6, 8}
    assert schedules(np.full((3, 2), -INF)) == [Schedule()]
    assert [schedule.earliest for schedule in schedules(np.ones((3, 8)))] == [1, 2, 3, 4]


@pytest.mark.parametrize("seed", range(12))
def test_no_move_of_one_free_threshold_helps(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.choice([-INF, -1.0, 0.0, 0.5, 1.0, 2.0, INF], size=(9, 4)) if seed % 2 else rng.normal(size=(9, 4))
    correct = rng.random((9, 4)) < 0.6
    for max_drop in (0.0, 0.25):
        found = free_thresholds(scores, correct, INF, max_drop, sweeps=50)
        steps = exit_steps_by_step(scores, found)
        right = correct[np.arange(9), steps - 1].sum()
        assert right >= correct[:, -1].sum() - 9 * max_drop - 1e-9
        for step, value in itertools.product(range(3), {-INF, INF, *scores.ravel().tolist()}):
            moved = found.copy()
            moved[step] = value
            other = exit_steps_by_step(scores, moved)
            allowed = correct[np.arange(9), other - 1].sum() >= correct[:, -1].sum() - 9 * max_drop - 1e-9
            assert not allowed or other.sum() >= steps.sum()


def test_free_thresholds_over_fit_where_a_schedule_does_not() -> None:
    rng = np.random.default_rng(5)
    lead = (0.45 * rng.gamma(1.2, 1.0, (20_000, 1)) + rng.normal(size=(20_000, 24))).cumsum(axis=1)
    scores, correct = np.abs(lead), lead > 0
    fitted, unseen, scheduled = [], [], []
    for draw in range(10):
        here = rng.integers(0, 20_000, 500)
        front = exact_front(scores[here], correct[here])
        start = front.thresholds[operating_point(front, correct[here, -1].mean())]
        free = free_thresholds(scores[here], correct[here], start)
        for samples, losses in ((here, fitted), (np.arange(20_000), unseen)):
            steps = exit_steps_by_step(scores[samples], free)
            losses.append(correct[samples, -1].mean() - correct[samples, steps - 1].mean())
        family = schedules(scores[here])
        found = cross_fitted_choice(((one.shifted(scores[here]), correct[here]) for one in family), seed=draw)
        steps = exit_steps_by_step(family[found.index].shifted(scores), np.full(24, found.threshold))
        scheduled.append(correct[:, -1].mean() - correct[np.arange(20_000), steps - 1].mean())
    assert max(fitted) <= 1e-12, "no loss on the samples that chose"
    assert np.mean(unseen) > 0.01
    assert np.mean(scheduled) < 1 / 501 + 3 * np.std(scheduled) / np.sqrt(10)
