"""The operating point: the fewest mean steps among the points that lose no more accuracy than is allowed."""

from __future__ import annotations

import numpy as np

from dynconf_core.exit.front import Front

# Accuracies are whole numbers over N: rounding of their difference must not cost a point its place.
ROUNDING = 1e-9


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
