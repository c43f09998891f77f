"""The figures of an exit: accuracy, mean steps and loss of samples that exit early, with 95 % confidence intervals.

All functions take `correct` (N, T), whether the prediction at each step is correct, and `steps` (N,), the exit step of each
sample, counted from 1. Where samples end before T (`lengths` (N,)), `correct` is after a sample's end as there, and savings are
relative to the mean length instead of T. Accuracies, losses and savings are fractions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dynconf_core.exit.intervals import (
    CONFIDENCE,
    Interval,
    accuracy_interval,
    mean_interval,
    net_loss_interval,
    ratio_interval,
)


@dataclass(frozen=True)
class OperatingPoint:
    """The accuracy at the exit steps, and their mean."""

    accuracy: float
    mean_steps: float


@dataclass(frozen=True)
class Loss(OperatingPoint):
    """An operating point and the accuracy that it loses relative to all T steps; negative if the exit gains accuracy."""

    loss: float


@dataclass(frozen=True)
class Judgement(Loss):
    """An exit evaluated on samples that were not used to choose it, with 95 % intervals [low, high].

    Attributes:
        accuracy_interval: exact (Clopper and Pearson).
        mean_steps_interval, latency_saving_interval: bootstrap; the saving is 1 - mean steps / T, or / the mean length.
        loss_interval: paired (Tango).
    """

    accuracy_interval: Interval
    mean_steps_interval: Interval
    latency_saving_interval: Interval
    loss_interval: Interval


@dataclass(frozen=True)
class ExitFigures(Judgement):
    """All figures of an exit.

    Attributes:
        median_steps, p90_steps: median and 90th percentile of the exit steps, interpolated linearly as in numpy.
        latency_saving: 1 - mean steps / T, or / the mean length.
        speedup: T / mean steps, or the mean length / mean steps.
        histogram: n_1 .. n_T, the number of samples that exit at each step.
    """

    median_steps: float
    p90_steps: float
    latency_saving: float
    speedup: float
    histogram: tuple[int, ...]


def at_exit(correct: NDArray[np.bool_], steps: NDArray[np.int64]) -> OperatingPoint:
    """Accuracy and mean steps of samples that exit at `steps`."""
    right = correct[np.arange(len(steps)), steps - 1]
    return OperatingPoint(float(right.mean()), float(steps.mean()))


def loss_at_exit(correct: NDArray[np.bool_], steps: NDArray[np.int64]) -> Loss:
    """The same, with the accuracy lost relative to T."""
    point = at_exit(correct, steps)
    return Loss(point.accuracy, point.mean_steps, float(correct[:, -1].mean()) - point.accuracy)


def judged_exit(
    correct: NDArray[np.bool_],
    steps: NDArray[np.int64],
    seed: int = 0,
    confidence: float = CONFIDENCE,
    lengths: NDArray[np.int64] | None = None,
) -> Judgement:
    """The same, with confidence intervals.

    Args:
        correct: (N, T).
        steps: (N,).
        lengths: (N,), or None.
        seed: of the bootstrap.
        confidence: the coverage of each interval, within (0, 1).
    """
    samples, time_steps = correct.shape
    right, full = correct[np.arange(samples), steps - 1], correct[:, -1]
    found = loss_at_exit(correct, steps)
    low, high = mean_interval(steps, confidence, seed=seed)
    if lengths is None:
        least, most = low / time_steps, high / time_steps
    else:
        least, most = ratio_interval(steps, lengths, confidence, seed=seed)
    return Judgement(
        found.accuracy,
        found.mean_steps,
        found.loss,
        accuracy_interval=accuracy_interval(int(right.sum()), samples, confidence),
        mean_steps_interval=(low, high),
        latency_saving_interval=(1.0 - most, 1.0 - least),
        loss_interval=net_loss_interval(int((full & ~right).sum()), int((right & ~full).sum()), samples, confidence),
    )


def exit_figures(
    correct: NDArray[np.bool_], steps: NDArray[np.int64], seed: int = 0, lengths: NDArray[np.int64] | None = None
) -> ExitFigures:
    """All figures of samples that exit at `steps`; `seed` is that of the bootstrap."""
    time_steps = correct.shape[1]
    full = time_steps if lengths is None else float(lengths.mean())
    judgement = judged_exit(correct, steps, seed, lengths=lengths)
    return ExitFigures(
        **vars(judgement),
        median_steps=float(np.median(steps)),
        p90_steps=float(np.percentile(steps, 90)),
        latency_saving=1.0 - judgement.mean_steps / full,
        speedup=full / judgement.mean_steps,
        histogram=tuple(np.bincount(steps, minlength=time_steps + 1)[1:].tolist()),
    )
