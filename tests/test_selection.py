"""The promised point and the cross-fitted choice: by hand, written out plainly, and by what they lose on unseen samples."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from dynconf_core.choosing.cross_fitting import METHOD, RESAMPLES, CrossFitted, cross_fitted_choice
from dynconf_core.choosing.paths import budgets_of, cross_fit
from dynconf_core.choosing.selection import (
    allowed_losses,
    expected_losses,
    operating_point,
    promised_loss,
    promised_point,
    worst_so_far,
)
from dynconf_core.exit.front import PairedFront, exact_front, paired_front, points_at
from dynconf_core.results.records import plain

INF = math.inf


def made(net: list[int], samples: int = 99) -> PairedFront:
    """Points with these net losses, the last one (never exit) 0, one step apart."""
    lost = np.array([*net, 0])
    steps = np.arange(1.0, len(lost) + 1)
    return PairedFront(np.array([*range(len(net)), INF]), steps, np.maximum(lost, 0), np.maximum(-lost, 0), samples)


def test_expected_losses_by_hand() -> None:
    """8 samples: the share of losses is that of the first point at which 3 more differ, or of the last one."""
    net, differing = np.array([3, 2, 0, 1, 0]), np.array([6, 4, 2, 1, 0])
    share = {0: 3 / 5, 1: 3 / 5, 2: 4 / 7, 4: 4 / 7, 6: 4 / 7}  # one unseen sample more is lost
    expected = [(number + 1) * share[number] for number in differing.tolist()]
    assert expected_losses(net, differing, 8) == pytest.approx(expected)
    assert expected_losses(-net, differing, 8) == pytest.approx(np.zeros(5), abs=1.0), "gains count as no loss"
    back_again = expected_losses(net, np.array([4, 6, 2, 1, 0]), 8)
    assert back_again[0] == back_again[1], "samples that differ no more still count"


def test_it_stops_before_the_first_threshold_that_is_expected_to_lose_too_much() -> None:
    front = made([6, 3, -2, 1, 2, 0, -1, 0])
    assert worst_so_far(front).tolist() == [6, 3, 2, 2, 2, 0, 0, 0, 0]
    expected = expected_losses(front.lost - front.gained, front.lost + front.gained, 99)
    assert (np.diff(expected) <= 0).all() and expected[-1] <= 1.0
    for drop in (0, 0.009, 0.01, 0.012, 0.02, 0.03, 1.0):
        point, limit = promised_point(front, drop), max(100 * drop, 1.0) + 1e-6
        assert expected[point] <= limit and (point == 0 or expected[point - 1] > limit)
    assert promised_point(front, 0) > 0 and promised_point(front, 1.0) == 0
    accuracy = 0.9 - front.loss
    raw = exact_front(np.zeros((1, 1)), np.ones((1, 1), bool)).__class__(front.thresholds, accuracy, front.mean_steps)
    assert operating_point(raw, 0.9, 0.0) == 2, "the luckiest of all lies beyond 2 net losses"


def test_what_few_samples_can_promise() -> None:
    assert promised_loss(99, 0.0) == 0.01 and promised_loss(99, 0.03) == 0.03
    assert allowed_losses(99, 0.03) == pytest.approx(3.0, abs=1e-6)
    assert allowed_losses(99, 0.009) == pytest.approx(1.0) and allowed_losses(99, 0.009, strict=True) == -INF
    assert allowed_losses(299, 0.01) >= 3.0, "300 * 0.01 is 3, whatever floats make of it"
    front = made([1, 1, 1, 1, 1, 0, 0])
    assert promised_point(front, 0.0) == 5 and promised_point(front, 0.0, strict=True) == 7
    for bad in (-0.1, math.nan, INF):
        with pytest.raises(ValueError, match="max_drop"):
            promised_point(front, bad)


def tracks(samples: int, seed: int, time_steps: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """(gap (N, T), correct (N, T)) for two classes whose difference drifts with noise: exits both lose and gain."""
    rng = np.random.default_rng(seed)
    lead = (0.45 * rng.gamma(1.2, 1.0, (samples, 1)) + rng.normal(size=(samples, time_steps))).cumsum(axis=1)
    return lead, lead > 0


def family(lead: np.ndarray, size: int = 12) -> list[np.ndarray]:
    """Scores that differ in how they grow with the step."""
    steps = np.arange(1, lead.shape[1] + 1)
    return [np.abs(lead) / steps**power for power in np.linspace(-0.3, 1.0, size)]


def judged(found: CrossFitted, scores: list[np.ndarray], correct: np.ndarray) -> tuple[float, float]:
    front = paired_front(scores[found.index], correct)
    point = points_at(front, found.threshold)
    return float(front.loss[point]), float(front.mean_steps[point])


def plainly(scores: list[np.ndarray], correct: np.ndarray, max_drop: float, folds: int, seed: int) -> tuple[int, float, int]:
    """(score, threshold, net losses of the unseen folds), directly from the four steps in the module's docstring."""
    samples, time_steps = correct.shape

    def leave(row: np.ndarray, threshold: float) -> int:
        return next((step for step, score in enumerate(row[:-1]) if score > threshold), time_steps - 1)

    def net(chosen: np.ndarray, rows: np.ndarray, threshold: float) -> int:
        return sum(int(correct[row, -1]) - int(correct[row, leave(chosen[row], threshold)]) for row in rows)

    def mean_steps(chosen: np.ndarray, rows: np.ndarray, threshold: float) -> float:
        return float(np.mean([leave(chosen[row], threshold) + 1 for row in rows]))

    def path(rows: np.ndarray) -> list[tuple[int, float]]:
        table = []  # per score, per budget: (worst, threshold)
        for chosen in scores:
            kinds: dict[tuple[int, ...], float] = {}  # of thresholds that act alike, the lowest
            for threshold in sorted({-INF, *chosen[rows, :-1].ravel().tolist()}):
                kinds.setdefault(tuple(leave(chosen[row], threshold) for row in rows), threshold)
            thresholds = sorted(kinds.values(), reverse=True)
            # From the surest down; the highest is never to exit.
            points, worst = [], -(10**9)
            for threshold in thresholds:
                worst = max(worst, net(chosen, rows, threshold))
                points.append((mean_steps(chosen, rows, threshold), worst, threshold))
            points[0] = (points[0][0], points[0][1], INF)
            table.append([next(((w, t) for s, w, t in points if s <= budget + 1e-9), (10**9, INF)) for budget in budgets])
        taken = []
        for number in range(len(budgets)):
            least = min(line[number][0] for line in table)
            already = [
                next(i for i, (worst, _) in enumerate(line) if worst <= least) if line[number][0] == least else 10**9
                for line in table
            ]
            best = int(np.argmin(already))
            taken.append((best, table[best][number][1]))
        cheapest = taken[-1:]
        for best, threshold in reversed(taken[:-1]):
            fewer = mean_steps(scores[best], rows, threshold) < mean_steps(scores[cheapest[0][0]], rows, cheapest[0][1])
            cheapest.insert(0, (best, threshold) if fewer else cheapest[0])
        return cheapest

    def stop(drawn: list[int]) -> float:
        """The budget at which these samples stop, of which one may occur several times."""
        found, most, reached = budgets[-1], 0.0, []
        for number in reversed(range(len(budgets))):  # from T down
            differing = sum(abs(losses[sample][number]) for sample in drawn)
            reached.append((max(differing, reached[-1][0] if reached else 0), sum(losses[sample][number] for sample in drawn)))
        for budget, (differing, _) in zip(reversed(budgets), reached, strict=True):
            wider = next((pair for pair in reached if pair[0] >= differing + math.ceil(samples**0.5)), reached[-1])
            share = min(max((wider[1] + 1) / (wider[0] + 1), 0.0), 1.0)
            most = max(most, share * (differing + 1))
            if most > max(1.0, (samples + 1) * max_drop) + 1e-6:
                break
            found = budget
        return found

    budgets = budgets_of(time_steps)
    random = np.random.default_rng(seed)
    fold_of = random.permutation(samples) % folds
    losses = [[0] * len(budgets) for _ in range(samples)]
    for fold in range(folds):
        for number, (best, threshold) in enumerate(path(np.flatnonzero(fold_of != fold))):
            for sample in np.flatnonzero(fold_of == fold):
                losses[sample][number] = net(scores[best], np.array([sample]), threshold)
    times = random.poisson(1.0, (RESAMPLES, samples))
    mean = np.mean([stop([sample for sample in range(samples) for _ in range(draw[sample])]) for draw in times])
    number = next(place for place, budget in enumerate(budgets) if budget >= mean - 1e-9)
    best, threshold = path(np.arange(samples))[number]
    return best, threshold, sum(line[number] for line in losses)


@pytest.mark.parametrize("seed", range(2))
def test_against_the_four_steps_written_out(seed: int) -> None:
    lead, correct = tracks(24, seed, time_steps=4)
    scores = family(lead, 3)
    scores[1] = np.round(scores[1])  # ties
    for max_drop in (0.0, 0.1):
        found = cross_fitted_choice([(score, correct) for score in scores], max_drop, folds=3, seed=seed)
        best, threshold, net = plainly(scores, correct, max_drop, 3, seed)
        assert (found.index, found.threshold) == (best, threshold)
        assert found.cross_fitted.loss == pytest.approx(net / 24)
        loss, steps = judged(found, scores, correct)
        assert found.calibration.loss == pytest.approx(loss)
        assert found.calibration.mean_steps == pytest.approx(steps)
        assert found.calibration.accuracy == pytest.approx(correct[:, -1].mean() - loss)


@pytest.fixture(scope="module")
def pool() -> tuple[list[np.ndarray], np.ndarray, list[PairedFront]]:
    """(scores, correct, true fronts) of samples that serve as the distribution: calibration sets are drawn from them."""
    lead, correct = tracks(20_000, seed=99)
    scores = family(lead, 5)
    return scores, correct, [paired_front(score, correct) for score in scores]


Pool = tuple[list[np.ndarray], np.ndarray, list[PairedFront]]


@pytest.mark.parametrize(("samples", "max_drop"), [(200, 0.0), (200, 0.02), (800, 0.005)])
def test_the_expected_loss_is_as_promised_and_the_naive_choice_loses_more(pool: Pool, samples: int, max_drop: float) -> None:
    """The mean loss on the whole pool of what many calibration sets choose."""
    scores, correct, truth = pool
    rng = np.random.default_rng(1)
    kept, raw, single = [], [], []
    for draw in range(30):
        drawn = rng.integers(0, len(correct), samples)
        found = cross_fitted_choice([(score[drawn], correct[drawn]) for score in scores], max_drop, seed=draw)
        kept.append(truth[found.index].loss[points_at(truth[found.index], found.threshold)])
        assert found.calibrated.expected_loss_at_most == promised_loss(samples, max_drop)
        fronts = [exact_front(score[drawn], correct[drawn]) for score in scores]
        points = [operating_point(front, correct[drawn, -1].mean(), max_drop) for front in fronts]
        best = int(np.argmin([front.mean_steps[point] for front, point in zip(fronts, points, strict=True)]))
        raw.append(truth[best].loss[points_at(truth[best], fronts[best].thresholds[points[best]])])
        fixed = paired_front(scores[3][drawn], correct[drawn])
        single.append(truth[3].loss[points_at(truth[3], fixed.thresholds[promised_point(fixed, max_drop)])])
    promised = promised_loss(samples, max_drop)
    for losses in (kept, single):
        assert np.mean(losses) <= promised
        assert np.mean(losses) >= promised / 10, "nor is nearly everything that is allowed left unused"
    assert np.mean(raw) > promised + 3 * np.std(raw) / np.sqrt(30), "the winner's curse"


def test_more_allowed_loss_never_gives_more_mean_steps(pool: Pool) -> None:
    """Also with coarse scores, one that never exits, and small budgets that none keeps."""
    scores, correct, _ = pool
    for draw in range(3):
        drawn = np.random.default_rng(draw).integers(0, len(correct), 150)
        late = [np.where(np.arange(score.shape[1]) < 2, -INF, score) for score in (*scores[::2], np.round(scores[4]))]
        scored = [(score[drawn], correct[drawn]) for score in (np.full(correct.shape, -INF), *late)]
        fitted = cross_fit(scored, np.random.default_rng(draw), 5)
        assert (np.diff(fitted.mean_steps) >= 0).all() and fitted.mean_steps[0] >= 3.0
        found = [cross_fitted_choice(scored, drop, seed=draw) for drop in (0.0, 0.02, 0.05, 0.1, 0.4, 1.0)]
        steps = [one.calibration.mean_steps for one in found]
        assert steps == sorted(steps, reverse=True) and steps[0] > steps[-1]


def test_the_choice_spreads_less_than_that_of_the_first_net_loss_too_many(pool: Pool) -> None:
    """At the same promise and about the same mean steps; (1000 + 1) 0.004 - 1 net losses were allowed without smoothing."""
    scores, correct, truth = pool
    steps, max_drop = [], 0.004
    for draw in range(30):
        drawn = np.random.default_rng(draw).integers(0, len(correct), 1000)
        here, right = scores[3][drawn], correct[drawn]
        front = paired_front(here, right)
        first = np.flatnonzero(worst_so_far(front) <= 1001 * max_drop - 1)[0]
        chosen = cross_fitted_choice([(here, right)], max_drop, seed=draw).threshold
        thresholds = np.array([front.thresholds[first], front.thresholds[promised_point(front, max_drop)], chosen])
        steps.append(truth[3].mean_steps[points_at(truth[3], thresholds)])
    before, smoothed, averaged = np.std(steps, axis=0)
    assert smoothed < 0.65 * before and averaged < 0.55 * before
    assert np.mean(steps, axis=0)[1:] == pytest.approx(np.full(2, np.mean(steps, axis=0)[0]), rel=0.03)


def test_the_record_is_small_and_json() -> None:
    lead, correct = tracks(300, 1)
    found = cross_fitted_choice(((score, correct) for score in family(lead)), 0.01, seed=4)
    entry = found.to_json()
    assert json.loads(json.dumps(entry, allow_nan=False)) == plain(entry) and len(json.dumps(entry)) < 1000
    assert set(entry) == {"calibration", "cross_fitted", "calibrated"}
    assert entry["calibrated"] == {
        "method": METHOD,
        "samples": 300,
        "scores": 12,
        "folds": 5,
        "seed": 4,
        "accuracy_at_full": correct[:, -1].mean(),
        "max_drop": 0.01,
        "expected_loss_at_most": 0.01,
    }
    low, high = entry["cross_fitted"]["loss_interval"]
    assert low <= entry["cross_fitted"]["loss"] <= high
    assert found == cross_fitted_choice([(score, correct) for score in family(lead)], 0.01, seed=4)


def test_strict_never_exits_where_too_little_is_known() -> None:
    lead, correct = tracks(300, 1)
    found = cross_fitted_choice([(score, correct) for score in family(lead)], 0.001, strict=True)
    assert found.threshold == INF and found.calibration.loss == 0.0 and found.cross_fitted.mean_steps == 16.0
    assert found.calibrated.expected_loss_at_most == 0.0
    assert cross_fitted_choice([(score, correct) for score in family(lead)], 0.01, strict=True).threshold < INF


def test_odd_inputs() -> None:
    right = np.ones((6, 4), bool)
    one = cross_fitted_choice([(np.zeros((6, 1)), right[:, :1])], folds=2)
    assert (one.index, one.threshold, one.calibration.mean_steps) == (0, INF, 1.0)
    never = cross_fitted_choice([(np.full((6, 4), -INF), right)] * 2, folds=6)
    assert never.threshold == INF and never.index == 0
    best = cross_fitted_choice([(np.full((6, 4), -INF), right), (np.full((6, 4), 2.0), right)], folds=6)
    assert (best.index, best.threshold, best.calibration.mean_steps) == (1, -INF, 1.0)
    scores = np.zeros((6, 4))
    with pytest.raises(ValueError, match="no score"):
        cross_fitted_choice([])
    with pytest.raises(ValueError, match="must both"):
        cross_fitted_choice([(scores[:, :3], right)])
    with pytest.raises(ValueError, match="must both"):
        cross_fitted_choice([(scores, right), (scores[:, 1:], right[:, 1:])])
    with pytest.raises(ValueError, match="the same for all candidates"):
        cross_fitted_choice([(scores, right), (scores, ~right)])
    for folds in (0, 1, 7):
        with pytest.raises(ValueError, match="folds"):
            cross_fitted_choice([(scores, right)], folds=folds)
    for bad in (-0.1, math.nan):
        with pytest.raises(ValueError, match="max_drop"):
            cross_fitted_choice([(scores, right)], bad)


def test_each_candidate_has_predictions_of_its_own() -> None:
    """Equal scores, of which one comes with better early predictions: it is chosen, and its own losses are counted."""
    lead, correct = tracks(400, 3)
    scores, better = np.abs(lead), correct | correct[:, -1:]
    worse = cross_fitted_choice([(scores, correct)], 0.002)
    found = cross_fitted_choice([(scores, correct), (scores, better)], 0.002)
    assert found.index == 1 and found.calibration.mean_steps < worse.calibration.mean_steps
    steps = (scores > found.threshold)[:, :-1]
    exits = np.where(steps.any(axis=1), steps.argmax(axis=1), scores.shape[1] - 1)
    loss = correct[:, -1].mean() - better[np.arange(400), exits].mean()
    assert found.calibration.loss == pytest.approx(loss)
