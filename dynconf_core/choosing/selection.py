"""The operating point: the fewest mean steps among the points that lose no more accuracy than is allowed.

`operating_point` is the raw choice: no more lost on the calibration images than is allowed. It looks for the luckiest
threshold among all, so that on unseen images more is lost than was allowed: the winner's curse. `promised_point` keeps the
promise in expectation, by two changes:

- It comes down from the surest threshold and stops before the first at which too much is lost, whatever luck lies beyond.
  There the losses met so far are about as expected; the luckiest threshold of all is found by looking back.
- It counts one unseen sample as lost, as conformal risk control does (Angelopoulos et al., ICLR 2024): of n samples the net
  losses plus one may be (n + 1) times what is allowed.

For the samples lost alone, never fewer as the threshold falls, the expected loss of an unseen sample drawn from the same source
is then at most what is allowed, exactly (Theorem 1 there); and the net loss is no more than that. Where gains are counted
against losses, as here, it holds as far as one sample more would seldom move the point (the stability of Angelopoulos, 2026,
arXiv 2602.20151): what it comes to is measured, by resampling, in `benchmarks/selection.py`. All this is for one score that was
fixed beforehand; where the images choose the score too, see `dynconf_core.choosing.cross_fitting`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dynconf_core.exit.front import ROUNDING, Front, PairedFront


def operating_point(front: Front, accuracy_at_full: float, max_drop: float = 0.0) -> int:
    """Index of the point with the fewest mean steps whose accuracy is at least `accuracy_at_full - max_drop`.

    Among equal mean steps the higher accuracy wins. Where no point qualifies, which cannot be when
    `accuracy_at_full` is that of the same traces at T and `max_drop` >= 0, it is the one that waits longest.

    Args:
        front: operating points on the calibration traces.
        accuracy_at_full: the accuracy at T, a fraction.
        max_drop: what may be lost, a fraction; a negative one asks for a margin.

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

    What is promised is `promised_loss(front.samples, max_drop)`: n samples cannot tell less than 1 / (n + 1) from nothing.

    Args:
        front: operating points on n calibration samples, against the full T; of a score fixed beforehand.
        max_drop: what may be lost in expectation, a fraction.
        strict: never exit where less than 1 / (n + 1) is allowed, rather than promise 1 / (n + 1).

    Raises:
        ValueError: for a `max_drop` that is not finite or is negative.
    """
    limit = allowed_net_losses(front.samples, max_drop, strict)
    within = np.flatnonzero(worst_so_far(front) <= limit)
    return int(within[0]) if within.size else len(front) - 1


def promised_loss(samples: int, max_drop: float) -> float:
    """The expected loss that n samples can promise where `max_drop` is allowed: not less than 1 / (n + 1)."""
    return max(max_drop, 1.0 / (samples + 1))


def allowed_net_losses(samples: int, max_drop: float, strict: bool = False) -> float:
    """How many net losses among n samples keep the promise: (n + 1) max_drop - 1, not below 0; strict: -inf there.

    Raises:
        ValueError: for a `max_drop` that is not finite or is negative.
    """
    if not (np.isfinite(max_drop) and max_drop >= 0):
        raise ValueError(f"max_drop = {max_drop} must be a finite fraction, 0 or more")
    limit = (samples + 1) * max_drop - 1.0 + ROUNDING * samples
    if limit >= 0:
        return float(limit)
    return -np.inf if strict else 0.0


def worst_so_far(front: PairedFront) -> NDArray[np.int64]:
    """(K,) the most net losses (lost - gained) at this threshold or any surer one: falls as the threshold rises."""
    worst: NDArray[np.int64] = np.maximum.accumulate((front.lost - front.gained)[::-1])[::-1]
    return worst
