"""The exact front: every operating point that some threshold on a score reaches, at once.

A sample exits at the first step whose score is greater than the threshold, else at T. As the threshold rises,
its exit step changes only where the threshold meets a new running maximum of its scores (a record), and then
moves to the next record. So: keep the records, sort them once, sum up what each moves. A search over the
threshold by trial can come near this and never beat it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dynconf_core.confidence.scores import score
from dynconf_core.confidence.smoothing import Smoothing
from dynconf_core.traces import Traces


@dataclass(frozen=True, eq=False)
class Front:
    """K operating points, one a threshold, from exiting soonest to never; mean steps rise strictly.

    Attributes:
        thresholds: (K,) float64, rising: the largest score that does not exit; -inf first (at once), inf last
            (never). Where every threshold acts alike there is one point, inf.
        accuracy: (K,) fraction of samples whose prediction is right at their exit step.
        mean_steps: (K,) mean exit step, from 1 to T.
    """

    thresholds: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    mean_steps: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.thresholds)


def exact_front(scores: NDArray[np.float64], correct: NDArray[np.bool_]) -> Front:
    """Every operating point that a threshold on `scores` reaches, each once.

    Args:
        scores: (N, T), larger is surer; -inf never exits before T, inf exits at every threshold but inf.
        correct: (N, T), whether the prediction at each step is right.

    Raises:
        ValueError: for shapes that differ, no sample, no step, or a score that is not a number.
    """
    if scores.ndim != 2 or scores.shape != correct.shape or not scores.size:
        raise ValueError(f"scores {scores.shape} and correct {correct.shape} must both be (N, T), N, T > 0")
    if np.isnan(scores).any():
        raise ValueError("a score is not a number")
    samples, time_steps = scores.shape
    last = time_steps - 1

    # At T everybody exits, whatever the score there.
    early = scores[:, :last]
    before = np.full_like(early, -np.inf)
    np.maximum.accumulate(early[:, :-1], axis=1, out=before[:, 1:])
    sample, step = np.nonzero(early > before)  # the records, by sample and then by step
    values = early[sample, step]

    # Once the threshold reaches a record, its sample waits for its next record, or for T.
    same_sample = sample[1:] == sample[:-1]
    following = np.full(len(step), last)
    following[:-1][same_sample] = step[1:][same_sample]
    waited = following - step
    gained = correct[sample, following].astype(np.int64) - correct[sample, step]

    first = np.full(samples, last)
    starts = np.concatenate(([True], ~same_sample))[: len(step)]
    first[sample[starts]] = step[starts]
    steps_at_once = int(first.sum()) + samples
    right_at_once = int(correct[np.arange(samples), first].sum())

    order = np.argsort(values)
    values = values[order]
    ends = np.flatnonzero(np.concatenate((values[1:] > values[:-1], [True]))[: len(values)])
    total_steps = steps_at_once + np.concatenate(([0], np.cumsum(waited[order])[ends]))
    total_right = right_at_once + np.concatenate(([0], np.cumsum(gained[order])[ends]))
    thresholds = np.concatenate(([-np.inf], values[ends]))
    thresholds[-1] = np.inf  # past the highest record nobody exits: write it as what it is
    return Front(thresholds, total_right / samples, total_steps / samples)


def front_of(traces: Traces, measure: str, smoothing: Smoothing) -> Front:
    """The exact front of `traces` under one score: `exact_front` of its scores and its right predictions."""
    return exact_front(score(traces, measure, smoothing), traces.correct())
