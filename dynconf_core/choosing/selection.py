"""The operating point: the fewest mean steps among the points that lose no more accuracy than allowed.

`operating_point` is the naive choice: the loss on the calibration images is at most what is allowed. It picks the luckiest of
all thresholds, so that more is lost on unseen images (the winner's curse). `promised_point` keeps the promise in expectation,
through two changes:

- It moves down from the highest threshold and stops before the first one that loses too much, without looking further. The
  losses so far are then about as expected, whereas the luckiest threshold of all is found only in hindsight.
- It counts one unseen sample as lost, as conformal risk control does (Angelopoulos et al., ICLR 2024): the net losses of n
  samples plus one may be at most (n + 1) times what is allowed.

For losses alone, which never decrease as the threshold falls, the expected loss of an unseen sample from the same distribution
is then at most what is allowed, exactly (Theorem 1 of that paper); the net loss is no larger. If gains are subtracted from
losses, as here, this holds to the extent that one more sample rarely moves the point (the stability of Angelopoulos, 2026,
arXiv 2602.20151); `benchmarks/selection.py` measures the effect by resampling. All of this is for one score fixed beforehand;
if the images choose the score too, see `dynconf_core.choosing.cross_fitting`.
"""

from __future__ import annotations

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
    limit = allowed_net_losses(front.samples, max_drop, strict)
    within = np.flatnonzero(worst_so_far(front) <= limit)
    return int(within[0]) if within.size else len(front) - 1


def promised_loss(samples: int, max_drop: float) -> float:
    """The expected loss that n samples can promise if `max_drop` is allowed: never less than 1 / (n + 1)."""
    return max(max_drop, 1.0 / (samples + 1))


def allowed_net_losses(samples: int, max_drop: float, strict: bool = False) -> float:
    """The number of net losses among n samples that keeps the promise: (n + 1) max_drop - 1, but at least 0; if negative and
    `strict`, -inf.

    Raises:
        ValueError: for a `max_drop` that is negative or not finite.
    """
    if not (np.isfinite(max_drop) and max_drop >= 0):
        raise ValueError(f"max_drop = {max_drop} must be a finite fraction, 0 or more")
    limit = (samples + 1) * max_drop - 1.0 + ROUNDING * samples
    if limit >= 0:
        return float(limit)
    return -np.inf if strict else 0.0


def worst_so_far(front: PairedFront) -> NDArray[np.int64]:
    """(K,) the most net losses (lost - gained) at this threshold or any higher one: non-increasing in the threshold."""
    worst: NDArray[np.int64] = np.maximum.accumulate((front.lost - front.gained)[::-1])[::-1]
    return worst
