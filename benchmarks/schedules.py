"""Thresholds that depend on the time step: a schedule with few parameters, or free ones.

A schedule adds slope * ((t - 1) / (T - 1))^power to a threshold a and allows no exit before an earliest step. Comparing a score
with it is the same as comparing the score minus the schedule with a, so a follows exactly from the front of the shifted scores,
and schedules are chosen like any other scores (`dynconf_core.choosing.cross_fitting`). SNNCutoff uses a free threshold beta_t
per step; `free_thresholds` finds those with the fewest mean steps on the given samples. T - 1 free numbers over-fit these
samples: `benchmarks/step_thresholds.py` measures what they lose on others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dynconf_core.errors import InputError
from dynconf_core.exit.front import ROUNDING

SLOPES = (-1.0, -0.5, -0.25, -0.1, 0.1, 0.25, 0.5, 1.0)
POWERS = (0.5, 1.0, 2.0)
EARLIEST = (1 / 8, 1 / 4, 3 / 8, 1 / 2)
SWEEPS = 20


@dataclass(frozen=True)
class Schedule:
    """A schedule: what is added to the threshold at each step.

    Attributes:
        slope: the threshold at T minus that at step 1, in units of the score.
        power: shape of the schedule, > 0: 1 is linear, below 1 changes early, above 1 late.
        earliest: the first step, from 1, at which a sample may exit.

    Raises:
        InputError: for a value out of range.
    """

    slope: float = 0.0
    power: float = 1.0
    earliest: int = 1

    def __post_init__(self) -> None:
        for name, value in (("slope", self.slope), ("power", self.power)):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                raise InputError(f"schedule {name} = {value!r} is not a finite number; give one in units of the score.")
        if not self.power > 0:
            raise InputError(f"schedule power = {self.power} must be above 0; give 1 for a straight line.")
        if isinstance(self.earliest, bool) or not isinstance(self.earliest, int) or self.earliest < 1:
            raise InputError(f"schedule earliest = {self.earliest!r} is not a step; give a whole number from 1.")

    def added(self, time_steps: int) -> NDArray[np.float64]:
        """``(T,)`` what is added to the threshold at each step; inf before the earliest."""
        part = np.arange(time_steps) / max(time_steps - 1, 1)
        added: NDArray[np.float64] = self.slope * part**self.power
        added[: self.earliest - 1] = np.inf
        return added

    def shifted(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """``(N, T)`` the scores minus the schedule, to be compared with the threshold a; -inf before the earliest step."""
        first = self.earliest - 1
        shifted = scores - Schedule(self.slope, self.power).added(scores.shape[1])
        shifted[:, :first] = -np.inf
        return shifted


def schedules(scores: NDArray[np.float64]) -> list[Schedule]:
    """A small family of schedules, the constant threshold first.

    Slopes are multiples of the interquartile range of the scores; earliest steps are fractions of T.

    Args:
        scores: ``(N, T)`` on the calibration samples.
    """
    finite = scores[np.isfinite(scores)]
    low, high = np.quantile(finite, [0.25, 0.75]) if finite.size else (0.0, 0.0)
    spread = float(high - low)
    sloped = [Schedule(slope * spread, power) for slope in SLOPES for power in POWERS] if spread > 0 else []
    steps = sorted({round(part * scores.shape[1]) for part in EARLIEST} - {0, 1})
    return [Schedule(), *sloped, *(Schedule(earliest=step) for step in steps)]


def exit_steps_by_step(scores: NDArray[np.float64], thresholds: NDArray[np.float64]) -> NDArray[np.int64]:
    """``(N,)`` the first step, from 1, whose score ``(N, T)`` exceeds its threshold ``(T,)`` or ``(T - 1,)``, else T."""
    time_steps = scores.shape[1]
    exits = np.ones(scores.shape, dtype=bool)
    exits[:, : time_steps - 1] = scores[:, : time_steps - 1] > thresholds[: time_steps - 1]
    steps: NDArray[np.int64] = exits.argmax(axis=1) + 1
    return steps


def free_thresholds(
    scores: NDArray[np.float64],
    correct: NDArray[np.bool_],
    start: float,
    max_drop: float = 0.0,
    sweeps: int = SWEEPS,
) -> NDArray[np.float64]:
    """One threshold per step, with the fewest mean steps for the accuracy that may be lost on these samples.

    Coordinate descent: each step's threshold is optimised exactly with the others fixed, until none improves. Not meant for
    use: it shows how far free thresholds over-fit.

    Args:
        scores: ``(N, T)``; larger is surer.
        correct: ``(N, T)``, whether the prediction at each step is correct.
        start: the initial threshold of all steps.
        max_drop: the accuracy that may be lost on these samples against T, a fraction.
        sweeps: the most passes over all steps.

    Returns:
        ``(T - 1,)`` thresholds; at T all remaining samples exit.
    """
    samples, time_steps = scores.shape
    needed = math.ceil(samples * (float(correct[:, -1].mean()) - max_drop - ROUNDING))
    thresholds = np.full(time_steps - 1, start)
    fewest = int(exit_steps_by_step(scores, thresholds).sum())
    for _ in range(sweeps):
        for step in range(time_steps - 1):
            thresholds[step] = _best_at(step, scores, correct, thresholds, needed)
        steps = int(exit_steps_by_step(scores, thresholds).sum())
        if steps >= fewest:
            break
        fewest = steps
    return thresholds


def _best_at(
    step: int, scores: NDArray[np.float64], correct: NDArray[np.bool_], thresholds: NDArray[np.float64], needed: int
) -> float:
    """The threshold of one step (from 0) with the fewest steps in total, at ``needed`` or more correct predictions."""
    without = thresholds.copy()
    without[step] = np.inf
    waited = exit_steps_by_step(scores, without) - 1
    here = np.flatnonzero(waited > step)
    right = correct[np.arange(len(scores)), waited]
    # The samples that reach this step, surest first: correct predictions gained and steps saved if the first so many exit.
    order = here[np.argsort(-scores[here, step], kind="stable")]
    gained = np.cumsum(correct[order, step].astype(np.int64) - right[order])
    saved = np.cumsum(waited[order] - step)
    values = scores[order, step]
    # A cut between equal scores cannot be made; those at -inf never exit.
    cut = np.flatnonzero(np.append(values[1:] < values[:-1], True) & (values > -np.inf)) if len(values) else np.empty(0, int)
    allowed = cut[right.sum() + gained[cut] >= needed]
    stays = bool(right.sum() >= needed)
    if not allowed.size:
        return np.inf if stays else float(thresholds[step])
    best = allowed[np.argmax(saved[allowed])]
    return float(values[best + 1]) if best + 1 < len(values) else -np.inf
