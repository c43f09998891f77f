"""Confidence intervals: how far a figure measured on N samples may be from its true value.

All assume samples drawn independently from the same distribution. They are two-sided and of 95 % unless stated otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Interval = tuple[float, float]
"""(low, high)."""
CONFIDENCE = 0.95
RESAMPLES = 2000


def accuracy_interval(right: int, samples: int, confidence: float = CONFIDENCE) -> Interval:
    """The exact interval of a fraction (Clopper and Pearson, 1934): its coverage is at least the stated one, for every N.

    Args:
        right: number of correct predictions among the samples.
        samples: N.
        confidence: the minimum coverage, within (0, 1).

    Raises:
        ValueError: for impossible counts, or a confidence that is not between 0 and 1.
    """
    from scipy.special import betaincinv

    if not (samples > 0 and 0 <= right <= samples):
        raise ValueError(f"right = {right} of samples = {samples} is impossible: 0 <= right <= samples, samples > 0")
    tail = _tail(confidence)
    low = 0.0 if right == 0 else float(betaincinv(right, samples - right + 1, tail))
    high = 1.0 if right == samples else float(betaincinv(right + 1, samples - right, 1.0 - tail))
    return low, high


def net_loss_interval(lost: int, gained: int, samples: int, confidence: float = CONFIDENCE) -> Interval:
    """The interval of the accuracy lost between two paired predictions, by Tango's score test (Statistics in Medicine, 1998).

    Because it is paired, it is far narrower than an interval for the difference of two independent accuracies, and it does not
    shrink to nothing if no sample changed: then it is +- z^2 / (N + z^2). Its coverage is approximately the stated one, not at
    least that.

    Args:
        lost: number of samples correct in the first prediction (the full T steps) and wrong in the second (the exit).
        gained: number of samples wrong in the first and correct in the second.
        samples: N.
        confidence: the approximate coverage, within (0, 1).

    Raises:
        ValueError: for impossible counts, or a confidence that is not between 0 and 1.
    """
    from scipy.special import ndtri

    if not (samples > 0 and lost >= 0 and gained >= 0 and lost + gained <= samples):
        raise ValueError(f"lost = {lost} and gained = {gained} of samples = {samples} are impossible")
    z = float(-ndtri(_tail(confidence)))
    estimate = (lost - gained) / samples
    # The score falls from the estimate, where it is 0, towards 1, and rises towards -1.
    low = _crossing(lambda difference: net_loss_score(lost, gained, samples, difference) > z, -1.0, estimate)
    high = _crossing(lambda difference: net_loss_score(lost, gained, samples, difference) < -z, 1.0, estimate)
    return low, high


def net_loss_score(lost: int, gained: int, samples: int, difference: float) -> float:
    """Tango's score: by how many standard deviations lost - gained exceeds its expectation for a mean net loss of `difference`.

    The variance is that under this hypothesis, n (2 q + d - d^2), at the maximum-likelihood fraction q of gained samples
    (`likeliest_gains`).
    """
    gains = likeliest_gains(lost, gained, samples, difference)
    variance = samples * (2.0 * gains + difference * (1.0 - difference))
    excess = lost - gained - samples * difference
    if variance <= 1e-12:
        return 0.0 if abs(excess) <= 1e-9 else math.copysign(math.inf, excess)
    return float(excess / math.sqrt(variance))


def likeliest_gains(lost: float, gained: float, samples: int, difference: float) -> float:
    """The maximum-likelihood fraction q of gained samples if that of lost samples is q + d: the larger root of 2 n q^2 -
    (lost (1 + d) + gained (1 - d) - 2 n d) q - gained d (1 - d) = 0."""
    linear = lost * (1.0 + difference) + gained * (1.0 - difference) - 2.0 * samples * difference
    root = math.sqrt(max(linear * linear + 8.0 * samples * gained * difference * (1.0 - difference), 0.0))
    return (linear + root) / (4.0 * samples)


def mean_interval(values: NDArray[Any], confidence: float = CONFIDENCE, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """The interval of the mean of whole numbers, such as exit steps, by the percentile bootstrap (Efron, 1979).

    The mean of a resample depends only on how often each value is drawn, and these counts are multinomial, so that no indices
    need to be drawn. The coverage is close to the stated one from some hundred samples on; if all values are equal, the
    interval is that value alone.

    Args:
        values: (N,) integers with a moderate number of distinct values.
        confidence: the approximate coverage, within (0, 1).
        resamples: number of bootstrap samples.
        seed: of the resampling.

    Raises:
        ValueError: for no values, or a confidence that is not between 0 and 1.
    """
    if values.ndim != 1 or not values.size:
        raise ValueError(f"values {values.shape} must be (N,), N > 0")
    tail = _tail(confidence)
    found, counts = np.unique(values, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(values.size, counts / values.size, size=resamples)
    low, high = np.quantile(drawn @ found / values.size, [tail, 1.0 - tail])
    return float(low), float(high)


def ratio_interval(
    values: NDArray[Any],
    of: NDArray[Any],
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """The interval of the mean of `values` (N,) divided by that of `of` (N,), whole numbers of the same samples, by the same
    bootstrap: each resample draws both of a sample.

    Arguments and errors otherwise as for `mean_interval`.
    """
    if values.ndim != 1 or not values.size or values.shape != of.shape:
        raise ValueError(f"values {values.shape} and of {of.shape} must both be (N,), N > 0")
    tail = _tail(confidence)
    found, counts = np.unique(np.stack([values, of]), axis=1, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(values.size, counts / values.size, size=resamples)
    low, high = np.quantile((drawn @ found[0]) / (drawn @ found[1]), [tail, 1.0 - tail])
    return float(low), float(high)


def _tail(confidence: float) -> float:
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence = {confidence} must lie between 0 and 1")
    return (1.0 - confidence) / 2.0


def _crossing(outside: Callable[[float], bool], end: float, inside: float) -> float:
    """The border between `inside` and `end`, by bisection; `end` itself if it lies inside."""
    if not outside(end):
        return end
    for _ in range(60):
        middle = 0.5 * (end + inside)
        if outside(middle):
            end = middle
        else:
            inside = middle
    return inside
