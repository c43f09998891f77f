"""Oracles: what an exit that knows the labels would reach by stopping each sample at its best step.

Three stand in the literature:
- first correct: stop at the first right step (the reading taken here of Li, Jones and Furber, ICCV 2023);
- stays correct: stop at the earliest step from which the prediction stays right to the end (the optimal
  cutoff timestep of SNNCutoff);
- AET, the averaged earliest timestep of Li et al., "SEENN" (NeurIPS 2023).

What an SNN could reach (the paper's third claim) is given by its first correct steps. `oracle_curve` draws it for every
budget of mean steps, and `oracle_gap` says how far an exit rule stays behind.

All take `correct` (N, T), whether the prediction at each step is right, and give fractions and steps from 1.
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
        accuracy, mean_steps: those of the first correct steps: the empirical AET of SEENN's released code.
        mean_steps_if_nested: SEENN's AET proper, see `aet`.
    """

    mean_steps_if_nested: float


@dataclass(frozen=True)
class Oracles:
    """All three on the same samples."""

    first_correct: OperatingPoint
    stays_correct: OperatingPoint
    aet: AveragedEarliest

    def points(self) -> dict[str, OperatingPoint]:
        """By name."""
        return {"first_correct": self.first_correct, "stays_correct": self.stays_correct, "aet": self.aet}


@dataclass(frozen=True)
class OracleGap:
    """How far an exit rule stays behind the oracle on the same samples.

    Attributes:
        accuracy_gap, step_gap: the accuracy that `first_correct` has more, and the mean steps that it needs less.
        share_of_saving: the mean steps saved against T, as a part of what `first_correct` saves (1 where that is nothing).
        accuracy_gap_at_equal_steps: what the oracle curve has more at the rule's mean steps.
        step_gap_at_equal_accuracy: the mean steps that it needs less for the rule's accuracy.
    """

    accuracy_gap: float
    step_gap: float
    share_of_saving: float
    accuracy_gap_at_equal_steps: float
    step_gap_at_equal_accuracy: float


def first_correct(correct: NDArray[np.bool_]) -> OperatingPoint:
    """Stopping at the first right step; never right: T steps and an error."""
    return at_exit(correct, _first_right_steps(correct))


def stays_correct(correct: NDArray[np.bool_]) -> OperatingPoint:
    """Stopping at the first step from which all predictions are right, else T.

    The accuracy is that at T: no sample is gained that the full T steps would lose.
    """
    time_steps = correct.shape[1]
    # Length of the run of right predictions that ends at T.
    run = np.logical_and.accumulate(correct[:, ::-1], axis=1).sum(axis=1, dtype=np.int64)
    return at_exit(correct, np.minimum(time_steps - run + 1, time_steps))


def aet(correct: NDArray[np.bool_]) -> AveragedEarliest:
    """SEENN's averaged earliest timestep.

    `mean_steps` is the empirical AET of SEENN's released code: the mean over the samples of the first right
    step, T where none is right. It thus equals the mean steps of `first_correct`, by another name.
    `mean_steps_if_nested` is SEENN's AET proper, which takes a sample once right to stay right and needs the
    accuracies a_t alone: a_1 + 2 (a_2 - a_1) + ... + T (a_T - a_{T-1}) + T (1 - a_T), that is T - (a_1 + ...
    + a_{T-1}).
    """
    oracle = at_exit(correct, _first_right_steps(correct))
    early_accuracy = correct[:, :-1].mean(axis=0)
    nested = float(correct.shape[1] - early_accuracy.sum())
    return AveragedEarliest(oracle.accuracy, oracle.mean_steps, nested)


def oracles(correct: NDArray[np.bool_]) -> Oracles:
    """All three."""
    return Oracles(first_correct(correct), stays_correct(correct), aet(correct))


def oracle_curve(correct: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(mean steps, accuracy), each (T,): the most that any exit rule can reach, whatever it knows, for every budget.

    Samples that are never right exit at step 1, where they cost least; the others wait for their first right step, those that
    wait shortest first. Point t is where all samples have waited that are right by step t; between points it is straight (some
    of the samples wait). It begins at step 1 and ends at the accuracy of `first_correct`, with fewer mean steps than that,
    which counts T steps for a sample that is never right.
    """
    samples, time_steps = correct.shape
    first = np.where(correct.any(axis=1), correct.argmax(axis=1), -1)
    newly_right = np.bincount(first[first >= 0], minlength=time_steps) / samples
    return 1.0 + np.cumsum(newly_right * np.arange(time_steps)), np.cumsum(newly_right)


def oracle_gap(correct: NDArray[np.bool_], exiting: OperatingPoint) -> OracleGap:
    """How far an exit rule, `exiting` (`at_exit`), stays behind the oracle on the same samples."""
    oracle = first_correct(correct)
    steps, accuracy = oracle_curve(correct)
    saved, saveable = correct.shape[1] - exiting.mean_steps, correct.shape[1] - oracle.mean_steps
    # From the first point of each height on: the curve is flat where no sample becomes right.
    height, first = np.unique(accuracy, return_index=True)
    return OracleGap(
        accuracy_gap=oracle.accuracy - exiting.accuracy,
        step_gap=exiting.mean_steps - oracle.mean_steps,
        share_of_saving=saved / saveable if saveable > 0 else 1.0,
        accuracy_gap_at_equal_steps=float(np.interp(exiting.mean_steps, steps, accuracy)) - exiting.accuracy,
        step_gap_at_equal_accuracy=exiting.mean_steps - float(np.interp(exiting.accuracy, height, steps[first])),
    )


def _first_right_steps(correct: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(N,) the first right step, from 1; T where none is."""
    steps: NDArray[np.int64] = np.where(correct.any(axis=1), correct.argmax(axis=1) + 1, correct.shape[1])
    return steps
