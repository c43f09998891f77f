"""Intervals compared with second implementations and values worked out by hand, and their coverage."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import binom, binomtest

from dynconf_core.exit.intervals import (
    accuracy_interval,
    likeliest_gains,
    mean_interval,
    net_loss_interval,
    net_loss_score,
)
from dynconf_core.exit.judgement import judged_exit


@pytest.mark.parametrize(("right", "samples"), [(0, 10), (10, 10), (1, 1), (81, 263), (9022, 10_000)])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.999])
def test_accuracy_against_scipy(right: int, samples: int, confidence: float) -> None:
    expected = binomtest(right, samples).proportion_ci(confidence, method="exact")
    assert accuracy_interval(right, samples, confidence) == pytest.approx([expected.low, expected.high], abs=1e-9)


def test_accuracy_by_hand() -> None:
    # All of n right: the fraction p with p^n = 2.5 %.
    assert accuracy_interval(20, 20) == pytest.approx([0.025 ** (1 / 20), 1.0])
    assert accuracy_interval(0, 20) == pytest.approx([0.0, 1 - 0.025 ** (1 / 20)])


@pytest.mark.parametrize("truth", [0.02, 0.5, 0.9, 0.995])
def test_the_accuracy_interval_covers_at_least_as_often_as_stated(truth: float) -> None:
    samples = 60
    covers = sum(
        binom.pmf(right, samples, truth)
        for right in range(samples + 1)
        if accuracy_interval(right, samples)[0] <= truth <= accuracy_interval(right, samples)[1]
    )
    assert covers >= 0.95


@pytest.mark.parametrize(
    ("lost", "gained", "samples"), [(0, 0, 30), (5, 0, 40), (0, 7, 40), (9, 3, 32), (40, 35, 5000), (1, 1, 2)]
)
@pytest.mark.parametrize("difference", [-0.2, -0.01, 0.0, 0.004, 0.3])
def test_the_likeliest_gains_maximise_the_likelihood(lost: int, gained: int, samples: int, difference: float) -> None:
    def unlikely(gains: float) -> float:
        parts = ((lost, gains + difference), (gained, gains), (samples - lost - gained, 1 - 2 * gains - difference))
        return -sum(count * math.log(max(share, 1e-300)) for count, share in parts if count)

    low, high = max(0.0, -difference), (1 - difference) / 2
    best = minimize_scalar(unlikely, bounds=(low, high), method="bounded", options={"xatol": 1e-12})
    found = likeliest_gains(lost, gained, samples, difference)
    assert low - 1e-12 <= found <= high + 1e-12
    assert unlikely(found) <= min(best.fun, unlikely(low), unlikely(high)) + 1e-7


def test_net_loss_by_hand() -> None:
    z2 = 1.959963984540054**2
    # Nothing changed: the score is -n d / sqrt(n d (1 - d)), which is -z at d = z^2 / (n + z^2).
    assert net_loss_interval(0, 0, 100) == pytest.approx([-z2 / (100 + z2), z2 / (100 + z2)], abs=1e-9)
    # At no difference it is McNemar's score.
    assert net_loss_score(9, 3, 32, 0.0) == pytest.approx((9 - 3) / math.sqrt(9 + 3))
    assert net_loss_interval(3, 9, 32) == pytest.approx([-end for end in net_loss_interval(9, 3, 32)[::-1]], abs=1e-9)


@pytest.mark.parametrize(("lost", "gained", "samples"), [(0, 0, 1), (1, 0, 1), (5, 0, 5), (0, 5, 5), (9, 3, 32), (100, 2, 103)])
def test_the_net_loss_interval_ends_where_the_score_is_z(lost: int, gained: int, samples: int) -> None:
    low, high = net_loss_interval(lost, gained, samples)
    assert -1 <= low <= (lost - gained) / samples <= high <= 1
    for end, z in ((low, 1.959963984540054), (high, -1.959963984540054)):
        if abs(end) < 1:
            assert net_loss_score(lost, gained, samples, end) == pytest.approx(z, abs=1e-6)
        else:
            assert abs(net_loss_score(lost, gained, samples, end)) <= abs(z)


@pytest.mark.parametrize(("samples", "loses", "gains"), [(500, 0.01, 0.004), (500, 0.004, 0.0), (5000, 0.004, 0.002)])
def test_the_net_loss_interval_covers_about_as_often_as_stated(samples: int, loses: float, gains: float) -> None:
    drawn = np.random.default_rng(1).multinomial(samples, [loses, gains, 1 - loses - gains], size=4000)
    pairs, counts = np.unique(drawn[:, :2], axis=0, return_counts=True)
    ends = [net_loss_interval(int(lost), int(gained), samples) for lost, gained in pairs]
    covers = sum(count for (low, high), count in zip(ends, counts, strict=True) if low <= loses - gains <= high) / 4000
    assert covers > 0.93
    assert max(high - low for low, high in ends) < 0.5 * (accuracy_interval(samples // 2, samples)[1] - 0.5) * 2


def test_the_mean_against_a_plain_bootstrap() -> None:
    rng = np.random.default_rng(2)
    steps = rng.integers(1, 33, 400)
    plain = [steps[rng.integers(0, 400, 400)].mean() for _ in range(4000)]
    assert mean_interval(steps, resamples=20_000) == pytest.approx(np.quantile(plain, [0.025, 0.975]), abs=0.06)
    assert mean_interval(steps, 0.5)[0] > mean_interval(steps, 0.95)[0]
    assert mean_interval(steps) == mean_interval(steps) != mean_interval(steps, seed=1)
    assert mean_interval(np.full(9, 32)) == (32.0, 32.0)


def test_the_interval_of_the_mean_covers_about_as_often_as_stated() -> None:
    rng = np.random.default_rng(3)
    values, shares = np.arange(1, 33), rng.dirichlet(np.full(32, 0.3))
    truth = float(values @ shares)
    hits = [low <= truth <= high for low, high in (mean_interval(rng.choice(values, 300, p=shares)) for _ in range(600))]
    assert 0.92 < np.mean(hits) < 0.98


def test_the_intervals_of_an_exit() -> None:
    correct = np.array([[True, False], [False, True], [True, True], [False, False]])
    found = judged_exit(correct, np.array([1, 1, 1, 2]))
    assert found.accuracy_interval == accuracy_interval(2, 4)
    assert found.loss_interval == net_loss_interval(1, 1, 4)
    low, high = found.mean_steps_interval
    assert found.latency_saving_interval == (1 - high / 2, 1 - low / 2)
    assert (found.accuracy, found.mean_steps, found.loss) == (0.5, 1.25, 0.0)
    intervals = [value for name, value in vars(found).items() if name.endswith("_interval")]
    assert len(intervals) == 4 and all(low <= high for low, high in intervals)


def test_more_samples_narrow_and_more_confidence_widens_an_interval() -> None:
    widths = [np.diff(net_loss_interval(2 * n, n, 500 * n))[0] for n in (1, 2, 4, 8)]
    assert all(wide > narrow for wide, narrow in pairwise(widths))
    assert np.diff(net_loss_interval(2, 1, 500, 0.99)) > np.diff(net_loss_interval(2, 1, 500, 0.9))


def test_impossible_counts_are_refused() -> None:
    for right, samples in ((-1, 5), (6, 5), (0, 0)):
        with pytest.raises(ValueError, match="impossible"):
            accuracy_interval(right, samples)
    for lost, gained, samples in ((-1, 0, 5), (3, 3, 5), (0, 0, 0)):
        with pytest.raises(ValueError, match="impossible"):
            net_loss_interval(lost, gained, samples)
    with pytest.raises(ValueError, match="N > 0"):
        mean_interval(np.empty(0, int))
    for confidence in (0.0, 1.0, -1.0):
        with pytest.raises(ValueError, match="confidence"):
            accuracy_interval(1, 2, confidence)
