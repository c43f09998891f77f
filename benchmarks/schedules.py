"""A threshold for every step: by a schedule of few parameters, or freely.

A schedule adds slope * ((t - 1) / (T - 1))^power to a threshold a, and lets nobody exit before a first step. To compare a score
with it is to compare the score less the schedule with a alone: so a is solved exactly by the front of the shifted scores, and
schedules are chosen as any scores are (`dynconf_core.choosing.cross_fitting`). SNNCutoff sets one threshold beta_t a step
instead; `free_thresholds` does, to the fewest mean steps on the given samples. T - 1 free numbers fit these samples rather than
their source: what they lose on others is measured in `benchmarks/step_thresholds.py`.
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
    """What is added to the threshold at each step.

    Attributes:
        slope: by how much the threshold at T exceeds that at step 1, in units of the score; negative: it falls.
        power: > 0, how it gets there: 1 evenly, below 1 early, above 1 late.
        earliest: the first step, from 1, at which anybody may exit.

    Raises:
        InputError: for a number out of its range.
    """

    slope: float = 0.0
    power: float = 1.0
    earliest: int = 1

    def __post_init__(self) -> None:
        for name, value in (("slope", self.slope), ("power", self.power)):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                raise InputError(f"schedule {name} = {value!r} is no finite number; give one in units of the score.")
        if not self.power > 0:
            raise InputError(f"schedule power = {self.power} must be above 0; give 1 for a straight line.")
        if isinstance(self.earliest, bool) or not isinstance(self.earliest, int) or self.earliest < 1:
            raise InputError(f"schedule earliest = {self.earliest!r} is no step; give a whole number from 1.")

    def added(self, time_steps: int) -> NDArray[np.float64]:
        """(T,) what is added to the threshold at each step, inf before the earliest."""
        part = np.arange(time_steps) / max(time_steps - 1, 1)
        added: NDArray[np.float64] = self.slope * part**self.power
        added[: self.earliest - 1] = np.inf
        return added

    def shifted(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """(N, T) the scores less what is added: these are compared with the threshold a alone; -inf before the earliest."""
        first = self.earliest - 1
        shifted = scores - Schedule(self.slope, self.power).added(scores.shape[1])
        shifted[:, :first] = -np.inf
        return shifted


def schedules(scores: NDArray[np.float64]) -> list[Schedule]:
    """A small family for these scores, the constant threshold first: slopes in units of the scores' own spread (the middle
    half of them), or a first step at a part of T.

    Args:
        scores: (N, T) on the calibration samples.
    """
    finite = scores[np.isfinite(scores)]
    low, high = np.quantile(finite, [0.25, 0.75]) if finite.size else (0.0, 0.0)
    spread = float(high - low)
    sloped = [Schedule(slope * spread, power) for slope in SLOPES for power in POWERS] if spread > 0 else []
    steps = sorted({round(part * scores.shape[1]) for part in EARLIEST} - {0, 1})
    return [Schedule(), *sloped, *(Schedule(earliest=step) for step in steps)]


def exit_steps_by_step(scores: NDArray[np.float64], thresholds: NDArray[np.float64]) -> NDArray[np.int64]:
    """(N,) the first step, from 1, whose score (N, T) is greater than its threshold (T,) or (T - 1,); T where none is."""
    time_steps = scores.shape[1]
    leaves = np.ones(scores.shape, dtype=bool)
    leaves[:, : time_steps - 1] = scores[:, : time_steps - 1] > thresholds[: time_steps - 1]
    steps: NDArray[np.int64] = leaves.argmax(axis=1) + 1
    return steps


def free_thresholds(
    scores: NDArray[np.float64],
    correct: NDArray[np.bool_],
    start: float,
    max_drop: float = 0.0,
    sweeps: int = SWEEPS,
) -> NDArray[np.float64]:
    """One threshold a step, each moved in turn to the fewest mean steps at no more lost on these samples than allowed.

    A descent by coordinates: for one step, the others held, every threshold is tried exactly. It ends where no step's threshold
    helps any more. Not a rule to use: it shows how far free thresholds fit what they are given.

    Args:
        scores: (N, T), larger is surer.
        correct: (N, T), whether the prediction at each step is right.
        start: the threshold of all steps at the beginning.
        max_drop: what may be lost on these samples against the full T, a fraction.
        sweeps: how often, at most, all steps are gone through.

    Returns:
        (T - 1,) thresholds; at T everybody exits.
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
    """The threshold of one step (from 0) with the fewest steps in all, at `needed` or more right predictions."""
    without = thresholds.copy()
    without[step] = np.inf
    waited = exit_steps_by_step(scores, without) - 1
    here = np.flatnonzero(waited > step)
    right = correct[np.arange(len(scores)), waited]
    # Those who are here and the surest first: how many right, and how many steps, where the first so many exit here.
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
