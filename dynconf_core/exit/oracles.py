"""Oracles: what an exit that knows the labels would reach by stopping each sample at its best step.

The literature has three:
- first correct: stop at the first correct step (our reading of Li, Jones and Furber, ICCV 2023);
- stays correct: stop at the earliest step from which the prediction stays correct up to T (the optimal cutoff timestep of
  SNNCutoff);
- AET, the averaged earliest timestep of Li et al., "SEENN" (NeurIPS 2023).

The best that an SNN could reach (the paper's third claim) follows from its first correct steps: `oracle_curve` gives it for
every budget of mean steps, and `oracle_gap` the distance of an exit rule from it.

All functions take `correct` (N, T), whether the prediction at each step is correct, and return fractions, and steps counted
from 1. Where samples end before T (`lengths` (N,)), `correct` stays after a sample's end as it is there, and its end takes the
place of T.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dynconf_core.exit.judgement import OperatingPoint, at_exit


@dataclass(frozen=True)
class AveragedEarliest(OperatingPoint):
    """SEENN's averaged earliest timestep.

    Attributes:
        accuracy, mean_steps: those of the first correct steps, the empirical AET of SEENN's released code.
        mean_steps_if_nested: the AET as SEENN's paper defines it, see `aet`.
    """

    mean_steps_if_nested: float


@dataclass(frozen=True)
class Oracles:
    """All three on the same samples."""

    first_correct: OperatingPoint
    stays_correct: OperatingPoint
    aet: AveragedEarliest

    def points(self) -> dict[str, OperatingPoint]:
        """The three by name."""
        return {"first_correct": self.first_correct, "stays_correct": self.stays_correct, "aet": self.aet}


@dataclass(frozen=True)
class OracleGap:
    """The distance of an exit rule from the oracle on the same samples.

    Attributes:
        accuracy_gap, step_gap: how much higher the accuracy of `first_correct` is, and how many fewer mean steps it needs.
        share_of_saving: the mean steps that the rule saves relative to T (or the mean length), as a fraction of those that
            `first_correct` saves (1 if it saves none).
        accuracy_gap_at_equal_steps: how much higher the oracle curve is at the rule's mean steps.
        step_gap_at_equal_accuracy: how many fewer mean steps the oracle curve needs for the rule's accuracy.
    """

    accuracy_gap: float
    step_gap: float
    share_of_saving: float
    accuracy_gap_at_equal_steps: float
    step_gap_at_equal_accuracy: float


Lengths = NDArray[np.int64] | None


def first_correct(correct: NDArray[np.bool_], lengths: Lengths = None) -> OperatingPoint:
    """Stop at the first correct step; a sample that is never correct takes T steps and counts as an error."""
    return at_exit(correct, _first_right_steps(correct, lengths))


def stays_correct(correct: NDArray[np.bool_], lengths: Lengths = None) -> OperatingPoint:
    """Stop at the first step from which all predictions are correct, else at T.

    The accuracy is that at T: a sample that is wrong at T is wrong here too.
    """
    time_steps = correct.shape[1]
    # Length of the run of correct predictions that ends at T.
    run = np.logical_and.accumulate(correct[:, ::-1], axis=1).sum(axis=1, dtype=np.int64)
    return at_exit(correct, np.minimum(time_steps - run + 1, time_steps if lengths is None else lengths))


def aet(correct: NDArray[np.bool_], lengths: Lengths = None) -> AveragedEarliest:
    """SEENN's averaged earliest timestep.

    `mean_steps` is the empirical AET of SEENN's released code: the mean over the samples of the first correct step, or T if
    none is correct. It thus equals the mean steps of `first_correct`. `mean_steps_if_nested` is the AET of the paper, which
    assumes that a sample once correct stays correct, and needs only the accuracies a_t: a_1 + 2 (a_2 - a_1) + ... + T (a_T -
    a_{T-1}) + T (1 - a_T), which is T - (a_1 + ... + a_{T-1}).
    """
    oracle = at_exit(correct, _first_right_steps(correct, lengths))
    if lengths is None:
        early_accuracy = correct[:, :-1].mean(axis=0)
        nested = float(correct.shape[1] - early_accuracy.sum())
    else:  # the same sum, of each sample's steps before its end
        early = correct & (np.arange(1, correct.shape[1] + 1) < lengths[:, None])
        nested = float(lengths.mean() - early.sum(axis=1).mean())
    return AveragedEarliest(oracle.accuracy, oracle.mean_steps, nested)


def oracles(correct: NDArray[np.bool_], lengths: Lengths = None) -> Oracles:
    """All three oracles."""
    return Oracles(first_correct(correct, lengths), stays_correct(correct, lengths), aet(correct, lengths))


def oracle_curve(correct: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(mean steps, accuracy), each (T,): the highest accuracy that any exit rule, with any knowledge, can reach for every
    budget.

    Samples that are never correct exit at step 1, where they cost least; the others wait for their first correct step, those
    with the shortest wait first. At point t, all samples that are correct by step t have waited; between points the curve is
    straight (some of the samples wait). It starts at step 1 and ends at the accuracy of `first_correct`, with fewer mean steps,
    because `first_correct` counts T steps for a sample that is never correct.
    """
    samples, time_steps = correct.shape
    first = np.where(correct.any(axis=1), correct.argmax(axis=1), -1)
    newly_right = np.bincount(first[first >= 0], minlength=time_steps) / samples
    return 1.0 + np.cumsum(newly_right * np.arange(time_steps)), np.cumsum(newly_right)


def oracle_gap(correct: NDArray[np.bool_], exiting: OperatingPoint, lengths: Lengths = None) -> OracleGap:
    """The distance of an exit rule with the operating point `exiting` (`at_exit`) from the oracle on the same samples."""
    oracle = first_correct(correct, lengths)
    steps, accuracy = oracle_curve(correct)
    full = correct.shape[1] if lengths is None else float(lengths.mean())
    saved, saveable = full - exiting.mean_steps, full - oracle.mean_steps
    # Only the first point at each height: the curve is flat where no further sample becomes correct.
    height, first = np.unique(accuracy, return_index=True)
    return OracleGap(
        accuracy_gap=oracle.accuracy - exiting.accuracy,
        step_gap=exiting.mean_steps - oracle.mean_steps,
        share_of_saving=saved / saveable if saveable > 0 else 1.0,
        accuracy_gap_at_equal_steps=float(np.interp(exiting.mean_steps, steps, accuracy)) - exiting.accuracy,
        step_gap_at_equal_accuracy=exiting.mean_steps - float(np.interp(exiting.accuracy, height, steps[first])),
    )


def _first_right_steps(correct: NDArray[np.bool_], lengths: Lengths) -> NDArray[np.int64]:
    """(N,) the first correct step, counted from 1; the sample's end if none is correct."""
    ends = correct.shape[1] if lengths is None else lengths
    steps: NDArray[np.int64] = np.where(correct.any(axis=1), correct.argmax(axis=1) + 1, ends)
    return steps
