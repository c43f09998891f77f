"""The guarantee: its table summed up in full for small n, its rule written out plainly, its promise tested in simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom, multinomial

from dynconf_core.choosing.critical_losses import critical_losses, most_lost_certifying, samples_needed
from dynconf_core.choosing.guarantee import Guarantee, candidate_thresholds, certify
from dynconf_core.errors import InputError
from dynconf_core.exit.front import exact_front, paired_front
from dynconf_core.traces.parts import halves

INF = math.inf


def tracks(samples: int, time_steps: int = 12, seed: int = 0, speed: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Scores and correct predictions for two classes whose difference drifts to the correct side with noise."""
    rng = np.random.default_rng(seed)
    lead = (speed * rng.gamma(1.0, 1.0, (samples, 1)) + rng.normal(size=(samples, time_steps))).cumsum(axis=1)
    return np.abs(lead), lead > 0


@pytest.mark.parametrize(
    ("samples", "epsilon", "delta"),
    [(1, 0.5, 0.5), (8, 0.3, 0.1), (20, 0.2, 0.05), (30, 0.1, 0.05), (30, 0.02, 0.2), (45, 0.15, 0.01), (60, 0.05, 0.1)],
)
def test_the_table_is_valid_for_all_probabilities(samples: int, epsilon: float, delta: float) -> None:
    """All outcomes (lost, gained) of n samples, one by one, under many distributions with a net loss of epsilon or more."""
    table = critical_losses(samples, epsilon, delta)
    inside = [
        (lost, gained)
        for gained in range(samples + 1)
        for lost in range(samples + 1 - gained)
        if lost <= table[min(gained, len(table) - 1)]
    ]
    outcomes = np.array([(lost, gained, samples - lost - gained) for lost, gained in inside]).reshape(-1, 3)
    worst = 0.0
    for net in (epsilon, epsilon * 1.05, min(1.0, 2 * epsilon)):
        for gains in np.linspace(0.0, (1 - net) / 2, 120):
            truth = [gains + net, gains, max(0.0, 1 - net - 2 * gains)]
            worst = max(worst, float(multinomial.pmf(outcomes, samples, truth).sum()) if len(outcomes) else 0.0)
    assert worst <= delta + 1e-9
    assert (np.diff(table) >= 0).all()


def test_the_table_is_nearly_as_tight_as_the_normal_approximation() -> None:
    for samples, epsilon, delta, z in ((2500, 0.005, 0.05, 1.645), (5000, 0.01, 0.1, 1.282), (10_000, 0.002, 0.01, 2.326)):
        table = critical_losses(samples, epsilon, delta)
        gains = np.arange(0, 200, 10)
        gains = gains[gains < len(table)]
        expected = gains + samples * epsilon
        approximate = expected - z * np.sqrt(expected + gains)
        assert (np.abs(table[gains] - approximate)[expected > 10] < 2.5).all()


def test_without_gains_it_is_the_exact_binomial_test() -> None:
    for samples, epsilon, delta in ((500, 0.01, 0.05), (3000, 0.005, 0.1), (25_000, 0.002, 0.05)):
        lost = int(critical_losses(samples, epsilon, delta)[0])
        assert binom.cdf(lost, samples, epsilon) <= delta < binom.cdf(lost + 1, samples, epsilon) * 1.05


@pytest.mark.parametrize(("epsilon", "delta"), [(0.01, 0.05), (0.001, 0.05), (0.005, 0.1), (0.3, 0.001), (0.5, 0.5)])
def test_samples_needed(epsilon: float, delta: float) -> None:
    needed = samples_needed(epsilon, delta)
    assert (1 - epsilon) ** needed <= delta * (1 + 1e-9) and (1 - epsilon) ** (needed - 1) > delta
    assert critical_losses(needed, epsilon, delta)[0] >= 0
    if needed > 1:
        assert critical_losses(needed - 1, epsilon, delta)[0] == -1


def test_most_lost_beyond_the_table_is_its_last() -> None:
    table = critical_losses(400, 0.02, 0.05)
    assert most_lost_certifying(np.array([0, 1, 10_000]), 400, 0.02, 0.05).tolist() == [table[0], table[1], table[-1]]
    for bad in ((0, 0.1, 0.1), (5, 0.0, 0.1), (5, 1.0, 0.1), (5, 0.1, 0.0), (5, 0.1, 1.0)):
        with pytest.raises(ValueError, match="n > 0"):
            critical_losses(*bad)
    with pytest.raises(ValueError, match="read-only"):
        table[0] = 3


def plainly(scores: np.ndarray, correct: np.ndarray, thresholds: list[float], epsilon: float, delta: float) -> float:
    """The same rule, sample by sample."""
    table = critical_losses(len(scores), epsilon, delta)
    certified = INF
    for threshold in sorted(thresholds, reverse=True):
        lost = gained = 0
        for row, right in zip(scores, correct, strict=True):
            step = next((step for step, score in enumerate(row[:-1]) if score > threshold), len(row) - 1)
            lost += int(right[-1] and not right[step])
            gained += int(right[step] and not right[-1])
        if lost > table[min(gained, len(table) - 1)]:
            break
        certified = threshold
    return certified


@pytest.mark.parametrize("seed", range(6))
def test_against_the_rule_written_out(seed: int) -> None:
    scores, correct = tracks(400, seed=seed)
    thresholds = np.random.default_rng(seed).uniform(0, 1.2 * scores.max(), 40).tolist()
    for epsilon, delta in ((0.05, 0.1), (0.02, 0.05), (0.1, 0.01)):
        found = certify(scores, correct, thresholds, epsilon, delta)
        assert found.threshold == plainly(scores, correct, thresholds, epsilon, delta)
        assert found.certified == (found.threshold < INF)
        shuffled = certify(scores, correct, np.random.default_rng(1).permutation(thresholds), epsilon, delta)
        assert shuffled.threshold == found.threshold


def pool(kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """A distribution with frequent errors: (scores, correct, candidates, epsilon)."""
    if kind == "tracks":
        scores, correct = tracks(4000, seed=11)
        front = paired_front(*tracks(1500, seed=12))
        return scores, correct, candidate_thresholds(front, 0.02), 0.02
    # Every candidate but the surest loses a little more than may be lost: with gains, or without any.
    samples, lost, gained = 10_000, {"even": 510, "gains": 1510}[kind], {"even": 0, "gains": 1000}[kind]
    correct = np.ones((samples, 2), bool)
    correct[:lost, 0] = False
    correct[lost : lost + gained, 1] = False
    return np.ones((samples, 2)), correct, np.array([0.5]), 0.0509


@pytest.mark.parametrize("kind", ["tracks", "even", "gains"])
@pytest.mark.parametrize("delta", [0.05, 0.2])
def test_promises_are_broken_no_more_often_than_delta(kind: str, delta: float) -> None:
    scores, correct, candidates, epsilon = pool(kind)
    truth = exact_front(scores, correct)
    rng = np.random.default_rng(5)
    broken = certified = 0
    for _ in range(1000):
        drawn = rng.integers(0, len(scores), 500)
        found = certify(scores[drawn], correct[drawn], candidates, epsilon, delta)
        certified += found.certified
        exits = scores[:, :-1] > found.threshold
        step = np.where(exits.any(axis=1), exits.argmax(axis=1), scores.shape[1] - 1)
        broken += truth.accuracy[-1] - correct[np.arange(len(scores)), step].mean() > epsilon + 1e-12
    assert broken <= binom.ppf(0.999, 1000, delta)
    if kind == "tracks":
        assert certified > 900
    else:
        # The truth lies at the border: the level is used, not just kept.
        assert broken >= 0.5 * delta * 1000


def test_too_few_samples_certify_nothing_and_the_number_needed_is_given() -> None:
    scores, correct = tracks(298, speed=20.0)  # as good as always right: none lost
    found = certify(scores, correct, [5.0, 1.0], 0.01, 0.05)
    assert (found.certified, found.threshold, found.mean_steps, found.lost, found.gained) == (False, INF, 12.0, 0, 0)
    assert found.samples_needed == 299
    assert "at least 299" in found.statement() and "cannot certify" in found.statement()
    more = certify(*tracks(299, speed=20.0), [5.0], 0.01, 0.05)
    assert more.certified and more.threshold == 5.0


def test_the_record() -> None:
    scores, correct = tracks(1000, speed=2.0)
    record = certify(scores, correct, [3.0, 1.0, -INF, INF], 0.05, 0.1, seen_in_training=True).record()
    assert (record.epsilon, record.delta, record.calibration, record.certified) == (0.05, 0.1, 1000, True)
    assert "not met here" in record.assumes and record.seen_in_training is True and "Learn then Test" in record.method
    assert record.candidates == 3 and 1 <= record.passed <= 3
    never = certify(scores[:5], correct[:5], [1.0], 0.01, 0.05).record()
    assert (never.threshold, never.certified) == (INF, False)
    assert "not given" not in never.assumes
    always = certify(scores, np.ones_like(correct), [-INF], 0.01, 0.05)
    assert always.record().threshold == -INF and always.mean_steps == 1.0
    assert "loses at most 1 point of" in always.statement() and "trained" not in always.statement()


def test_nothing_to_test_certifies_nothing() -> None:
    scores, correct = tracks(1000)
    assert certify(scores, correct, [], 0.05, 0.1).threshold == INF
    assert isinstance(certify(scores, correct, np.array([INF]), 0.05, 0.1), Guarantee)


@pytest.mark.parametrize("bad", [0, 0.0, 1.0, -0.1, 2, math.nan, True, "0.1"])
def test_impossible_arguments_are_refused(bad: object) -> None:
    scores, correct = tracks(50)
    with pytest.raises(InputError, match="epsilon"):
        certify(scores, correct, [1.0], bad, 0.1)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="delta"):
        certify(scores, correct, [1.0], 0.1, bad)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="thresholds"):
        certify(scores, correct, [math.nan], 0.1, 0.1)


def test_candidates_range_from_t_to_where_too_much_is_lost() -> None:
    front = paired_front(*tracks(2000, seed=3))
    candidates = candidate_thresholds(front, 0.02, count=50)
    assert 40 <= len(candidates) <= 50 and (np.diff(candidates) < 0).all()
    at = np.searchsorted(front.thresholds, candidates)
    steps, loss = front.mean_steps[at], front.loss[at]
    assert steps[0] > 11 and np.ptp(np.diff(steps)) < 0.1 * (steps[0] - steps[-1]) / 10 + 0.02
    assert 0.02 < loss[-1] <= 2 * (0.02 + 1 / 2000) + 1e-12
    assert len(candidate_thresholds(paired_front(np.zeros((5, 1)), np.ones((5, 1), bool)), 0.1)) == 1


def test_halves_contain_every_sample_once() -> None:
    for samples, share in ((2, 0.5), (101, 0.5), (101, 0.3)):
        choose, certifying = halves(samples, 7, share)
        assert sorted([*choose, *certifying]) == list(range(samples)) and len(certifying) == round(samples * share)
    assert (halves(50, 1)[0] != halves(50, 2)[0]).any() and (halves(50, 1)[0] == halves(50, 1)[0]).all()
    for samples, share in ((1, 0.5), (10, 0.0), (10, 1.0), (10, 0.01)):
        with pytest.raises(InputError, match="share"):
            halves(samples, 0, share)
