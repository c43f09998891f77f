"""Robustness of the exit in its two parameters: accuracy and mean steps over threshold and smoothing alpha.

Li, Jones and Furber (ICCV 2023) find the agent robust in them. Here that is a map and widths: how far the threshold (in units
of the softmax, as they give it) and alpha (in decades) may be moved within the region where at most a tenth of a point of the
accuracy at T is lost. Never to exit keeps the accuracy too, so that every threshold near 1 is within; the *useful* region
therefore also asks for at least half of the largest saving of steps that is found within it.
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
    """The widest unbroken range of thresholds (on the softmax) at one alpha; None: there is none."""

    width: float
    lowest: float | None
    highest: float | None
    alpha: float | None


@dataclass(frozen=True)
class AlphaRange:
    """The widest unbroken range of alpha, in decades; ``threshold`` is None where it is set anew for every alpha."""

    decades: float
    lowest: float | None
    highest: float | None
    threshold: float | None = None


@dataclass(frozen=True)
class Region:
    """How wide a region of the map is.

    Attributes:
        threshold: at the alpha that gives the threshold most room.
        alpha: at the threshold that gives alpha most room.
        alpha_with_its_threshold: where the threshold is set anew for every alpha.
        share: of the points of the map.
    """

    threshold: ThresholdRange
    alpha: AlphaRange
    alpha_with_its_threshold: AlphaRange
    share: float


@dataclass(frozen=True)
class Robustness:
    """The regions of a map: within the ``tolerance`` of the accuracy at T, and useful besides (half of the best saving)."""

    within: Region
    useful: Region
    tolerance: float


@dataclass(frozen=True, eq=False)
class RobustnessMap:
    """Accuracy and mean steps of max softmax over A values of alpha and K thresholds.

    Attributes:
        form: of the smoothing.
        alphas: (A,), rising.
        thresholds: (K,) on the softmax, within (0, 1), rising.
        accuracy, mean_steps: (A, K).
        full_accuracy: at T, time_steps.
        time_steps: T.
        tolerance: what may be lost within the region, a fraction.
    """

    form: str
    alphas: NDArray[np.float64]
    thresholds: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    mean_steps: NDArray[np.float64]
    full_accuracy: float
    time_steps: int
    tolerance: float = TOLERANCE

    @property
    def within(self) -> NDArray[np.bool_]:
        """(A, K) where no more than the tolerance is lost."""
        within: NDArray[np.bool_] = self.accuracy >= self.full_accuracy - self.tolerance - ROUNDING
        return within

    @property
    def useful(self) -> NDArray[np.bool_]:
        """(A, K) where, besides, at least half of the largest saving within the region is had; nowhere if none is saved."""
        saved = np.where(self.within, self.time_steps - self.mean_steps, 0.0)
        useful: NDArray[np.bool_] = self.within & (saved >= SHARE_OF_SAVING * saved.max()) & (saved > 0)
        return useful

    def widths(self) -> Robustness:
        """The widest unbroken range in either direction, for both regions.

        A range is as long as from its first point to its last; where there is none, it has the width 0 and no ends.
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
    """The map of `traces` under max softmax of z_t / alpha (`form` sum) or z_t / (t alpha) (mean).

    Args:
        traces: of N samples.
        alphas: (A,) above 0, rising; None: two decades about what the logits suggest (`fitting_alphas`).
        thresholds: (K,) on the softmax, within (0, 1), rising.
        form: "sum" or "mean".
        tolerance: what may be lost within the region, a fraction.

    Raises:
        InputError: for alphas or thresholds that do not rise or are out of range.
    """
    chosen = fitting_alphas(traces, form) if alphas is None else alphas
    temperatures, on_softmax = np.asarray(chosen, dtype=np.float64), np.asarray(thresholds, dtype=np.float64)
    for name, values in (("alphas", temperatures), ("thresholds", on_softmax)):
        if values.ndim != 1 or not values.size or not (np.diff(values) > 0).all():
            raise InputError(f"{name} must be a row of rising numbers.")
    if not (on_softmax[0] > 0 and on_softmax[-1] < 1):
        raise InputError(f"thresholds from {on_softmax[0]} to {on_softmax[-1]} must lie between 0 and 1, as a softmax does.")
    log_odds = np.log(on_softmax) - np.log1p(-on_softmax)
    correct = traces.correct()
    accuracy, mean_steps = (np.empty((len(temperatures), len(on_softmax))) for _ in range(2))
    for row, alpha in enumerate(temperatures):
        front = exact_front(MEASURE.scores(traces, Smoothing(form, float(alpha))), correct)
        points = points_at(front, log_odds)
        accuracy[row], mean_steps[row] = front.accuracy[points], front.mean_steps[points]
    full = float(correct[:, -1].mean())
    return RobustnessMap(form, temperatures, on_softmax, accuracy, mean_steps, full, traces.time_steps, tolerance)


def _longest(region: NDArray[np.bool_], places: NDArray[np.float64]) -> tuple[int, int, int]:
    """(row, first, last) of the unbroken stretch in a row that is longest by its places, the first such; (0, 0, 0): none."""
    best, found = -1.0, (0, 0, 0)
    for row, inside in enumerate(region):
        edges = np.flatnonzero(np.diff(np.concatenate(([0], inside.astype(np.int8), [0]))))
        for first, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            length = float(places[end - 1] - places[first])
            if length > best:
                best, found = length, (row, first, end - 1)
    return found
