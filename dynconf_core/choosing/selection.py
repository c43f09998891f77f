"""The operating point: the fewest mean steps among the points that lose no more accuracy than allowed.

`operating_point` is the naive choice: the loss on the calibration images is at most what is allowed. It picks the luckiest of
all thresholds, so that more is lost on unseen images (the winner's curse). `promised_point` keeps the promise in expectation.
It moves down from the highest threshold and stops before the first one whose expected loss (`expected_losses`) is too large,
without looking further: the luckiest threshold of all is found only in hindsight.

Near T a handful of samples decides: among 5000, ten may differ between exit and T, seven of them lost and three gained. The net
loss, 4, has a standard error of 3, and a threshold that follows it hangs on single images. The expected loss is therefore

    (D + 1) f,    f = (net losses + 1) / (differing samples + 1), at the first lower point where sqrt(n) more samples differ.

- D is the number of samples that differ, in either direction. It grows as the threshold falls, and its relative error is
  small.
- f, the share of losses among them net of gains, within 0 and 1, changes slowly with the threshold, and is therefore measured
  on more samples than D. Where it falls towards T, as it usually does, this overstates the loss; the bias is towards caution.
- One unseen sample is counted as differing, and as lost, as conformal risk control does (Angelopoulos et al., ICLR 2024): the
  expected losses of n + 1 samples may be at most (n + 1) times what is allowed.

If f were known, f times "differs" would be a loss that never decreases as the threshold falls, and the expected loss of an
unseen sample from the same distribution at most what is allowed, exactly (Theorem 1 of that paper). As f is estimated, this
holds to the extent that one more sample rarely moves the point (the stability of Angelopoulos, 2026, arXiv 2602.20151);
`benchmarks/selection.py` measures it by resampling. All of this is for one score fixed beforehand; if the images choose the
score too, see `dynconf_core.choosing.cross_fitting`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dynconf_core.exit.front import ROUNDING, Front, PairedFront


def operating_point(front: Front, accuracy_at_full: float, max_drop: float = 0.0) -> int:
    """Index of the point with the fewest mean steps whose accuracy is at least `accuracy_at_full - max_drop`.

    Among equal mean steps the highest accuracy wins. If no point qualifies, which is impossible when `accuracy_at_full` is that
    of the same traces at T and `max_drop` >= 0, it is the point with the most mean steps.

    Args:
        front: operating points on the calibration traces.
        accuracy_at_full: the accuracy at T, a fraction.
        max_drop: the accuracy that may be lost, a fraction; a negative value demands a margin.

    Raises:
        ValueError: if either number is not finite.
    """
    if not np.isfinite([accuracy_at_full, max_drop]).all():
        raise ValueError(f"accuracy_at_full = {accuracy_at_full} and max_drop = {max_drop} must be finite")
    allowed = np.flatnonzero(front.accuracy >= accuracy_at_full - max_drop - ROUNDING)
    if not allowed.size:
        return int(np.argmax(front.mean_steps))
    order = np.lexsort((-front.accuracy[allowed], front.mean_steps[allowed]))
    return int(allowed[order[0]])


def promised_point(front: PairedFront, max_drop: float = 0.0, strict: bool = False) -> int:
    """Index of the point with the fewest mean steps at which the expected loss on unseen samples is as promised.

    The promise is `promised_loss(front.samples, max_drop)`: n samples cannot distinguish less than 1 / (n + 1) from zero.

    Args:
        front: operating points on n calibration samples, relative to the full T steps, of a score fixed beforehand.
        max_drop: the accuracy that may be lost in expectation, a fraction.
        strict: if less than 1 / (n + 1) is allowed, never exit instead of promising 1 / (n + 1).

    Raises:
        ValueError: for a `max_drop` that is negative or not finite.
    """
    expected = expected_losses(front.lost - front.gained, front.lost + front.gained, front.samples)
    within = np.flatnonzero(expected <= allowed_losses(front.samples, max_drop, strict))
    return int(within[0]) if within.size else len(front) - 1


def expected_losses(net: NDArray[Any], differing: NDArray[Any], samples: int) -> NDArray[np.float64]:
    """(K,) the net losses to expect among n samples and one unseen one at each point or any later exit; non-increasing.

    Args:
        net: (K,) samples lost minus samples gained at each operating point, from the earliest exits to none.
        differing: (K,) samples lost plus samples gained.
        samples: n.
    """
    more = np.maximum.accumulate(differing[::-1]).astype(np.float64)
    wider = np.minimum(np.searchsorted(more, more + further_samples(samples)), len(more) - 1)
    share = np.clip((net[::-1][wider] + 1.0) / (more[wider] + 1.0), 0.0, 1.0)
    expected: NDArray[np.float64] = np.maximum.accumulate(share * (more + 1.0))[::-1]
    return expected


def further_samples(samples: int) -> int:
    """How many more differing samples the share of losses is measured on: the square root of n, rounded up."""
    return math.ceil(math.sqrt(samples))


def promised_loss(samples: int, max_drop: float) -> float:
    """The expected loss that n samples can promise if `max_drop` is allowed: never less than 1 / (n + 1)."""
    return max(max_drop, 1.0 / (samples + 1))


def allowed_losses(samples: int, max_drop: float, strict: bool = False) -> float:
    """How many of n + 1 samples may be lost, net of gains: (n + 1) times `promised_loss`, thus at least 1; -inf if `strict` and
    `max_drop` is less than 1 / (n + 1).

    Raises:
        ValueError: for a `max_drop` that is negative or not finite.
    """
    if not (np.isfinite(max_drop) and max_drop >= 0):
        raise ValueError(f"max_drop = {max_drop} must be a finite fraction, 0 or more")
    limit = (samples + 1) * max_drop + ROUNDING * samples
    if limit >= 1.0:
        return float(limit)
    return -np.inf if strict else 1.0 + ROUNDING


def worst_so_far(front: PairedFront) -> NDArray[np.int64]:
    """(K,) the most net losses (lost - gained) at this threshold or any higher one: non-increasing in the threshold."""
    worst: NDArray[np.int64] = np.maximum.accumulate((front.lost - front.gained)[::-1])[::-1]
    return worst
