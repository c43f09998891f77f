"""Upper bounds: what an oracle that knows the labels would reach by stopping each sample at its best step.

Three stand in the literature, and are named here rather than mixed:
- first correct: stop at the first right step (the reading taken here of Li, Jones and Furber, ICCV 2023);
- stays correct: stop at the earliest step from which the prediction stays right to the end (the optimal
  cutoff timestep of SNNCutoff);
- AET, the averaged earliest timestep of Li et al., "SEENN" (NeurIPS 2023).

All take `correct` (N, T), whether the prediction at each step is right, and give fractions and steps from 1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dynconf_core.exit.rules import at_exit


def first_correct(correct: NDArray[np.bool_]) -> dict[str, float]:
    """{"accuracy", "mean_steps"} of stopping at the first right step; never right: T steps and an error."""
    return at_exit(correct, _first_right_steps(correct))


def stays_correct(correct: NDArray[np.bool_]) -> dict[str, float]:
    """{"accuracy", "mean_steps"} of stopping at the first step from which all predictions are right, else T.

    The accuracy is that at T: no sample is gained that the full T steps would lose.
    """
    time_steps = correct.shape[1]
    # Length of the run of right predictions that ends at T.
    run = np.logical_and.accumulate(correct[:, ::-1], axis=1).sum(axis=1, dtype=np.int64)
    return at_exit(correct, np.minimum(time_steps - run + 1, time_steps))


def aet(correct: NDArray[np.bool_]) -> dict[str, float]:
    """SEENN's averaged earliest timestep: {"accuracy", "mean_steps", "mean_steps_if_nested"}.

    `mean_steps` is the empirical AET of SEENN's released code: the mean over the samples of the first right
    step, T where none is right. It thus equals the mean steps of `first_correct`, by another name.
    `mean_steps_if_nested` is SEENN's AET proper, which takes a sample once right to stay right and needs the
    accuracies a_t alone: a_1 + 2 (a_2 - a_1) + ... + T (a_T - a_{T-1}) + T (1 - a_T), that is T - (a_1 + ...
    + a_{T-1}).
    """
    bound = at_exit(correct, _first_right_steps(correct))
    early_accuracy = correct[:, :-1].mean(axis=0)
    return {**bound, "mean_steps_if_nested": float(correct.shape[1] - early_accuracy.sum())}


def upper_bounds(correct: NDArray[np.bool_]) -> dict[str, dict[str, float]]:
    """All three by name, as `bounds` in the results holds them."""
    return {
        "first_correct": first_correct(correct),
        "stays_correct": stays_correct(correct),
        "aet": aet(correct),
    }


def _first_right_steps(correct: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(N,) the first right step, from 1; T where none is."""
    steps: NDArray[np.int64] = np.where(correct.any(axis=1), correct.argmax(axis=1) + 1, correct.shape[1])
    return steps
