"""Robustness of the exit to its two parameters: accuracy and mean steps over threshold and smoothing alpha.

Li, Jones and Furber (ICCV 2023) report that the agent is robust to them. Here robustness is a map and its widths: how far the
threshold (as a softmax probability, the paper's unit) and alpha (in decades) can be moved within the region where at most 0.1
percentage points of the accuracy at T are lost. Never exiting also keeps the accuracy, so that every threshold near 1 lies in
this region; the *useful* region therefore also requires at least half of the largest saving of steps found in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dynconf_core.confidence.max_softmax import MaxSoftmax
from dynconf_core.confidence.smoothing import Form, Smoothing
from dynconf_core.confidence.temperature import fitting_alphas
from dynconf_core.errors import InputError
from dynconf_core.exit.front import ROUNDING, exact_front, points_at
from dynconf_core.traces.schema import Traces

TOLERANCE = 0.001
SHARE_OF_SAVING = 0.5
MEASURE = MaxSoftmax()
THRESHOLDS = tuple(float(threshold) for threshold in np.linspace(0.01, 0.99, 99))


@dataclass(frozen=True)
class ThresholdRange:
    """The widest unbroken range of thresholds (softmax probabilities) at one alpha; None if there is none."""

    width: float
    lowest: float | None
    highest: float | None
    alpha: float | None


@dataclass(frozen=True)
class AlphaRange:
    """The widest unbroken range of alpha, in decades; ``threshold`` is None if it is chosen anew for every alpha."""

    decades: float
    lowest: float | None
    highest: float | None
    threshold: float | None = None


@dataclass(frozen=True)
class Region:
    """The widths of a region of the map.

    Attributes:
        threshold: the widest range of thresholds, at the alpha where it occurs.
        alpha: the widest range of alpha, at the threshold where it occurs.
        alpha_with_its_threshold: the widest range of alpha if the threshold is chosen anew for every alpha.
        share: the fraction of the map's points that lie in the region.
    """

    threshold: ThresholdRange
    alpha: AlphaRange
    alpha_with_its_threshold: AlphaRange
    share: float


@dataclass(frozen=True)
class Robustness:
    """The regions of a map: within ``tolerance`` of the accuracy at T; and, in addition, useful (half of the best saving)."""

    within: Region
    useful: Region
    tolerance: float


@dataclass(frozen=True, eq=False)
class RobustnessMap:
    """Accuracy and mean steps of max softmax for A values of alpha and K thresholds.

    Attributes:
        form: of the smoothing.
        alphas: (A,), ascending.
        thresholds: (K,) softmax probabilities within (0, 1), ascending.
        accuracy, mean_steps: (A, K).
        full_accuracy: the accuracy at T = time_steps.
        time_steps: T, or the mean length of samples that end before T.
        tolerance: the accuracy that may be lost within the region, a fraction.
    """

    form: str
    alphas: NDArray[np.float64]
    thresholds: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    mean_steps: NDArray[np.float64]
    full_accuracy: float
    time_steps: float
    tolerance: float = TOLERANCE

    @property
    def within(self) -> NDArray[np.bool_]:
        """(A, K) where at most the tolerance is lost."""
        within: NDArray[np.bool_] = self.accuracy >= self.full_accuracy - self.tolerance - ROUNDING
        return within

    @property
    def useful(self) -> NDArray[np.bool_]:
        """(A, K) where, in addition, at least half of the largest saving within the region is reached; nowhere if nothing is
        saved."""
        saved = np.where(self.within, self.time_steps - self.mean_steps, 0.0)
        useful: NDArray[np.bool_] = self.within & (saved >= SHARE_OF_SAVING * saved.max()) & (saved > 0)
        return useful

    def widths(self) -> Robustness:
        """The widest unbroken range in either direction, for both regions.

        The width of a range is the distance from its first to its last point; if there is no range, the width is 0 and the ends
        are None.
        """
        return Robustness(self._region(self.within), self._region(self.useful), self.tolerance)

    def _region(self, region: NDArray[np.bool_]) -> Region:
        decades = np.log10(self.alphas)
        row, first, last = _longest(region, self.thresholds)
        column, lowest, highest = _longest(region.T, decades)
        _, least, most = _longest(np.atleast_2d(region.any(axis=1)), decades)
        empty = not region.any()

        def shown(values: NDArray[np.float64], place: int) -> float | None:
            return None if empty else float(values[place])

        return Region(
            ThresholdRange(
                float(self.thresholds[last] - self.thresholds[first]),
                shown(self.thresholds, first),
                shown(self.thresholds, last),
                shown(self.alphas, row),
            ),
            AlphaRange(
                float(decades[highest] - decades[lowest]),
                shown(self.alphas, lowest),
                shown(self.alphas, highest),
                shown(self.thresholds, column),
            ),
            AlphaRange(float(decades[most] - decades[least]), shown(self.alphas, least), shown(self.alphas, most)),
            float(region.mean()),
        )


def robustness_map(
    traces: Traces,
    alphas: Sequence[float] | None = None,
    thresholds: Sequence[float] = THRESHOLDS,
    form: Form = "sum",
    tolerance: float = TOLERANCE,
) -> RobustnessMap:
    """The map of `traces` for max softmax of z_t / alpha (`form` sum) or z_t / (t alpha) (`form` mean).

    Args:
        traces: of N samples.
        alphas: (A,) above 0, ascending; None: two decades suggested by the logits (`fitting_alphas`).
        thresholds: (K,) softmax probabilities within (0, 1), ascending.
        form: "sum" or "mean".
        tolerance: the accuracy that may be lost within the region, a fraction.

    Raises:
        InputError: for alphas or thresholds that are not ascending or out of range.
    """
    chosen = fitting_alphas(traces, form) if alphas is None else alphas
    temperatures, on_softmax = np.asarray(chosen, dtype=np.float64), np.asarray(thresholds, dtype=np.float64)
    for name, values in (("alphas", temperatures), ("thresholds", on_softmax)):
        if values.ndim != 1 or not values.size or not (np.diff(values) > 0).all():
            raise InputError(f"{name} must be a sequence of ascending numbers.")
    if not (on_softmax[0] > 0 and on_softmax[-1] < 1):
        raise InputError(f"thresholds from {on_softmax[0]} to {on_softmax[-1]} must lie between 0 and 1, as a softmax does.")
    log_odds = np.log(on_softmax) - np.log1p(-on_softmax)
    correct = traces.correct()
    accuracy, mean_steps = (np.empty((len(temperatures), len(on_softmax))) for _ in range(2))
    for row, alpha in enumerate(temperatures):
        front = exact_front(MEASURE.scores(traces, Smoothing(form, float(alpha))), correct, traces.lengths)
        points = points_at(front, log_odds)
        accuracy[row], mean_steps[row] = front.accuracy[points], front.mean_steps[points]
    full = float(correct[:, -1].mean())
    steps = traces.time_steps if traces.mean_length is None else traces.mean_length
    return RobustnessMap(form, temperatures, on_softmax, accuracy, mean_steps, full, steps, tolerance)


def _longest(region: NDArray[np.bool_], places: NDArray[np.float64]) -> tuple[int, int, int]:
    """(row, first, last) of the longest unbroken stretch in any row, measured by `places`; the first of equals, (0, 0, 0) if
    none."""
    best, found = -1.0, (0, 0, 0)
    for row, inside in enumerate(region):
        edges = np.flatnonzero(np.diff(np.concatenate(([0], inside.astype(np.int8), [0]))))
        for first, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            length = float(places[end - 1] - places[first])
            if length > best:
                best, found = length, (row, first, end - 1)
    return found
