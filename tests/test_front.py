"""The exact front against brute force, and by hand."""

from __future__ import annotations

import time
import tracemalloc

import numpy as np
import pytest

from dynconf_core.confidence.max_softmax import MaxSoftmax
from dynconf_core.confidence.measure import measure_of, scores_of
from dynconf_core.confidence.smoothing import Smoothing
from dynconf_core.exit.front import Crossings, Front, exact_front, paired_front, points_at
from dynconf_core.traces.schema import Traces

INF = float("inf")


def exits_by_definition(scores: np.ndarray, threshold: float) -> list[int]:
    """Exit steps from 0, sample by sample and step by step: the definition, as plainly as possible."""
    found = []
    for row in scores:
        step = 0
        while step < len(row) - 1 and not row[step] > threshold:
            step += 1
        found.append(step)
    return found


def brute_force(scores: np.ndarray, correct: np.ndarray) -> list[tuple[float, int, int]]:
    """(threshold, correct samples, steps) for every threshold with a different effect."""
    points: dict[tuple[int, ...], tuple[float, int, int]] = {}
    for threshold in sorted({-INF, *scores.ravel().tolist(), INF}):
        steps = exits_by_definition(scores, threshold)
        right = sum(bool(correct[sample, step]) for sample, step in enumerate(steps))
        # The smallest threshold of a kind stays: the largest score that does not exit begins the kind.
        points.setdefault(tuple(steps), (threshold, right, sum(steps) + len(steps)))
    return list(points.values())


def check(scores: np.ndarray, correct: np.ndarray) -> Front:
    front = exact_front(scores, correct)
    samples = len(scores)
    expected = brute_force(scores, correct)
    never = exits_by_definition(scores, INF)
    assert [round(right * samples) for right in front.accuracy] == [right for _, right, _ in expected]
    assert [round(steps * samples) for steps in front.mean_steps] == [steps for _, _, steps in expected]
    # The last kind never exits and is written inf, whatever score it begins at.
    assert front.thresholds.tolist() == [threshold for threshold, _, _ in expected[:-1]] + [INF]
    assert exits_by_definition(scores, front.thresholds[-1]) == never
    # What is written reproduces the point, and so does any number up to the next score.
    for index, threshold in enumerate(front.thresholds):
        following = expected[index + 1][0] if index + 1 < len(front) else INF
        for same in (float(threshold), max(float(threshold), float(np.nextafter(following, -INF)))):
            steps = exits_by_definition(scores, same)
            assert (sum(steps) + samples) / samples == front.mean_steps[index]
            right = sum(bool(correct[sample, step]) for sample, step in enumerate(steps))
            assert right / samples == front.accuracy[index]
    assert (np.diff(front.mean_steps) > 0).all()
    assert (np.diff(front.thresholds) > 0).all()
    return front


@pytest.mark.parametrize("seed", range(200))
def test_against_brute_force_with_ties(seed: int) -> None:
    rng = np.random.default_rng(seed)
    samples, time_steps = int(rng.integers(1, 9)), int(rng.integers(1, 8))
    values = np.array([-INF, -2.0, -1.0, 0.0, 0.5, 1.0, 3.0, INF])[: rng.integers(1, 9)]
    scores = rng.choice(values, size=(samples, time_steps))
    check(scores, rng.random((samples, time_steps)) < 0.6)


@pytest.mark.parametrize("seed", range(20))
def test_against_brute_force_without_ties(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(12, 6)).cumsum(axis=1)
    check(scores, rng.random((12, 6)) < 0.6)


def test_by_hand() -> None:
    # The records of sample 0 are 1 at step 1 and 5 at step 3; that of sample 1 is 2 at step 1, and no more.
    scores = np.array([[1.0, 0.0, 5.0, 0.0], [2.0, 1.0, 2.0, 9.0]])
    correct = np.array([[False, True, True, True], [True, True, False, True]])
    front = check(scores, correct)
    # -inf: steps 1, 1, right 0 + 1;  1: steps 3, 1, right 1 + 1;  2: steps 3, 4;  from 5 on: steps 4, 4.
    assert front.thresholds.tolist() == [-INF, 1, 2, INF]
    assert front.mean_steps.tolist() == [1, 2, 3.5, 4]
    assert front.accuracy.tolist() == [0.5, 1, 1, 1]
    assert len(front) == 4


def test_one_step_is_one_point() -> None:
    front = check(np.array([[3.0], [INF]]), np.array([[True], [False]]))
    assert (front.thresholds.tolist(), front.accuracy.tolist(), front.mean_steps.tolist()) == (
        [INF],
        [0.5],
        [1],
    )


def test_one_sample() -> None:
    front = check(np.array([[0.0, 2.0, 1.0]]), np.array([[False, True, False]]))
    assert front.thresholds.tolist() == [-INF, 0, INF]
    assert front.accuracy.tolist() == [0, 1, 0]
    assert front.mean_steps.tolist() == [1, 2, 3]


@pytest.mark.parametrize(("constant", "thresholds"), [(0.0, [-INF, INF]), (INF, [-INF, INF]), (-INF, [INF])])
def test_constant_scores_exit_at_once_or_never(constant: float, thresholds: list[float]) -> None:
    front = check(np.full((5, 4), constant), np.ones((5, 4), bool))
    assert front.thresholds.tolist() == thresholds


def test_the_score_at_the_last_step_does_not_matter() -> None:
    rng = np.random.default_rng(4)
    scores, correct = rng.normal(size=(9, 5)), rng.random((9, 5)) < 0.5
    changed = scores.copy()
    changed[:, -1] = rng.choice([-INF, 100.0, INF], 9)
    first, second = exact_front(scores, correct), exact_front(changed, correct)
    assert (first.thresholds == second.thresholds).all() and (first.accuracy == second.accuracy).all()


def test_any_memory_layout_and_inputs_unchanged() -> None:
    rng = np.random.default_rng(5)
    scores, correct = rng.normal(size=(9, 5)), rng.random((9, 5)) < 0.5
    kept = scores.copy()
    first = exact_front(np.asfortranarray(scores), correct)
    second = exact_front(scores, correct)
    assert (first.mean_steps == second.mean_steps).all() and (scores == kept).all()


@pytest.mark.parametrize(
    ("scores", "correct", "words"),
    [
        (np.zeros((2, 3)), np.zeros((2, 2), bool), "must both be"),
        (np.zeros(3), np.zeros(3, bool), "must both be"),
        (np.zeros((0, 3)), np.zeros((0, 3), bool), "must both be"),
        (np.zeros((3, 0)), np.zeros((3, 0), bool), "must both be"),
        (np.array([[0.0, np.nan]]), np.zeros((1, 2), bool), "not a number"),
    ],
)
def test_refuses(scores: np.ndarray, correct: np.ndarray, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        exact_front(scores, correct)


def test_front_of_traces() -> None:
    rng = np.random.default_rng(6)
    made = Traces(rng.normal(size=(30, 6, 3)), rng.integers(0, 3, 30))
    smoothing = Smoothing("mean", 2.0)
    front = exact_front(scores_of(measure_of("max_softmax"), made, smoothing), made.correct())
    direct = check(MaxSoftmax().scores(made, smoothing), made.correct())
    assert (front.thresholds == direct.thresholds).all()
    assert front.accuracy[-1] == made.correct()[:, -1].mean()
    assert front.accuracy[0] == made.correct()[:, 0].mean()


@pytest.mark.parametrize("seed", range(30))
def test_sums_of_any_quantity_against_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.choice([-INF, -1.0, 0.0, 1.0, 2.0, INF], size=(int(rng.integers(1, 8)), int(rng.integers(1, 7))))
    crossings = Crossings(scores)
    samples = np.arange(len(scores))
    whole, real = rng.integers(-5, 200, scores.shape), rng.normal(size=scores.shape)
    for index, threshold in enumerate(crossings.thresholds):
        steps = exits_by_definition(scores, float(threshold))
        assert crossings.steps[index] == sum(steps) + len(steps)
        assert crossings.totals(whole)[index] == whole[samples, steps].sum()
        assert crossings.totals(whole.astype(np.uint8))[index] == whole.astype(np.uint8)[samples, steps].sum(dtype=int)
        assert crossings.totals(real)[index] == pytest.approx(real[samples, steps].sum())
    with pytest.raises(ValueError, match="shape of the scores"):
        crossings.totals(whole[:, :-1])


@pytest.mark.parametrize("seed", range(30))
def test_lost_and_gained_are_counted_sample_by_sample(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.choice([-INF, -1.0, 0.0, 1.0, 2.0, INF], size=(int(rng.integers(1, 8)), int(rng.integers(1, 7))))
    correct = rng.random(scores.shape) < 0.5
    paired, front = paired_front(scores, correct), exact_front(scores, correct)
    assert (paired.thresholds == front.thresholds).all() and (paired.mean_steps == front.mean_steps).all()
    for index, threshold in enumerate(paired.thresholds):
        right = [bool(correct[sample, step]) for sample, step in enumerate(exits_by_definition(scores, float(threshold)))]
        pairs = list(zip(correct[:, -1].tolist(), right, strict=True))
        assert (paired.lost[index], paired.gained[index]) == (pairs.count((True, False)), pairs.count((False, True)))
    assert np.allclose(paired.loss, front.accuracy[-1] - front.accuracy, atol=1e-12)
    assert (paired.lost[-1], paired.gained[-1], paired.samples) == (0, 0, len(scores))


def test_points_at_thresholds() -> None:
    rng = np.random.default_rng(7)
    scores, correct = rng.integers(0, 6, (9, 5)).astype(float), rng.random((9, 5)) < 0.5
    front = exact_front(scores, correct)
    thresholds = np.array([-INF, -1.0, 0.0, 0.5, 2.0, 3.7, 5.0, 9.0, INF])
    expected = [(sum(exits_by_definition(scores, float(threshold))) + 9) / 9 for threshold in thresholds]
    assert front.mean_steps[points_at(front, thresholds)].tolist() == expected
    assert points_at(front, 2.0) == points_at(front, [2.0])[0]
    assert points_at(check(np.full((3, 4), -INF), np.ones((3, 4), bool)), -INF) == 0, "one point: every threshold is there"


def test_fifty_thousand_samples_take_little_time_and_memory() -> None:
    rng = np.random.default_rng(8)
    scores = rng.random((50_000, 64)).cumsum(axis=1)  # every step a record: as many points as there can be
    correct = rng.random(scores.shape) < 0.9
    spent = []
    for _ in range(3):
        begin = time.process_time()
        front = exact_front(scores, correct)
        spent.append(time.process_time() - begin)
    assert len(front) == 50_000 * 63 + 1
    assert min(spent) < 1.0, "0.2 s where it was written"
    del front
    tracemalloc.start()
    exact_front(scores, correct)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**28
