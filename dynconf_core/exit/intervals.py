"""Intervals: how far a figure measured on N samples may be from that of their source.

All assume samples drawn independently from one source. They are central, and of 95 % where nothing else is said.
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
    """The exact interval of a fraction (Clopper and Pearson, 1934): covers at least as often as it says, for every N.

    Args:
        right: number of right predictions among the samples.
        samples: N.
        confidence: how often, at least, the interval covers the truth.

    Raises:
        ValueError: for counts that cannot be, or a confidence that is not between 0 and 1.
    """
    from scipy.special import betaincinv

    if not (samples > 0 and 0 <= right <= samples):
        raise ValueError(f"right = {right} of samples = {samples} cannot be: 0 <= right <= samples, samples > 0")
    tail = _tail(confidence)
    low = 0.0 if right == 0 else float(betaincinv(right, samples - right + 1, tail))
    high = 1.0 if right == samples else float(betaincinv(right + 1, samples - right, 1.0 - tail))
    return low, high


def net_loss_interval(lost: int, gained: int, samples: int, confidence: float = CONFIDENCE) -> Interval:
    """The interval of the accuracy lost between two paired predictions, by Tango's score test (Statistics in Medicine, 1998).

    Being paired it is far narrower than the difference of two accuracies would have it, and it does not shrink to nothing where
    no sample changed: then it is +- z^2 / (N + z^2). Its coverage is close to what it says, not at least that.

    Args:
        lost: number of samples right in the first (the full T) and wrong in the second (the exit).
        gained: number of samples wrong in the first and right in the second.
        samples: N.
        confidence: how often the interval covers the truth.

    Raises:
        ValueError: for counts that cannot be, or a confidence that is not between 0 and 1.
    """
    from scipy.special import ndtri

    if not (samples > 0 and lost >= 0 and gained >= 0 and lost + gained <= samples):
        raise ValueError(f"lost = {lost} and gained = {gained} of samples = {samples} cannot be")
    z = float(-ndtri(_tail(confidence)))
    estimate = (lost - gained) / samples
    # The score falls from the estimate, where it is 0, towards 1, and rises towards -1.
    low = _crossing(lambda difference: net_loss_score(lost, gained, samples, difference) > z, -1.0, estimate)
    high = _crossing(lambda difference: net_loss_score(lost, gained, samples, difference) < -z, 1.0, estimate)
    return low, high


def net_loss_score(lost: int, gained: int, samples: int, difference: float) -> float:
    """Tango's score: by how many standard deviations lost - gained exceeds what a mean net loss of `difference` expects.

    The variance is the one under that hypothesis, n (2 q + d - d^2), at the likeliest fraction q of gained samples
    (`likeliest_gains`).
    """
    gains = likeliest_gains(lost, gained, samples, difference)
    variance = samples * (2.0 * gains + difference * (1.0 - difference))
    excess = lost - gained - samples * difference
    if variance <= 1e-12:
        return 0.0 if abs(excess) <= 1e-9 else math.copysign(math.inf, excess)
    return float(excess / math.sqrt(variance))


def likeliest_gains(lost: float, gained: float, samples: int, difference: float) -> float:
    """The likeliest fraction q of gained samples, where that of lost samples is q + d: the larger root of
    2 n q^2 - (lost (1 + d) + gained (1 - d) - 2 n d) q - gained d (1 - d) = 0."""
    linear = lost * (1.0 + difference) + gained * (1.0 - difference) - 2.0 * samples * difference
    root = math.sqrt(max(linear * linear + 8.0 * samples * gained * difference * (1.0 - difference), 0.0))
    return (linear + root) / (4.0 * samples)


def mean_interval(values: NDArray[Any], confidence: float = CONFIDENCE, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """The interval of the mean of whole numbers, such as exit steps, by the percentile bootstrap (Efron, 1979).

    The mean of a resample depends only on how often each value is drawn, which is multinomial: no index is drawn. Coverage is
    close to what it says from some hundred samples on; where all values agree the interval is that value alone.

    Args:
        values: (N,) integers of not too many different values.
        confidence: how often the interval covers the truth.
        resamples: number of bootstrap samples.
        seed: of the resampling.

    Raises:
        ValueError: for no value, or a confidence that is not between 0 and 1.
    """
    if values.ndim != 1 or not values.size:
        raise ValueError(f"values {values.shape} must be (N,), N > 0")
    tail = _tail(confidence)
    found, counts = np.unique(values, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(values.size, counts / values.size, size=resamples)
    low, high = np.quantile(drawn @ found / values.size, [tail, 1.0 - tail])
    return float(low), float(high)


def _tail(confidence: float) -> float:
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence = {confidence} must lie between 0 and 1")
    return (1.0 - confidence) / 2.0


def _crossing(outside: Callable[[float], bool], end: float, inside: float) -> float:
    """By halving: the border between `inside` and the `end`, which may lie inside itself."""
    if not outside(end):
        return end
    for _ in range(60):
        middle = 0.5 * (end + inside)
        if outside(middle):
            end = middle
        else:
            inside = middle
    return inside
