"""`snncutoff`: the top-k cutoff of SNNCutoff, a gap with a threshold beta_t of its own at every step (Wu et al., 2023).

The gap g_t is the largest summed logit minus the second largest. On the calibration samples, beta_t is the lowest of 100 evenly
spaced values at which at least the share 1 - epsilon of the samples with g_t > beta_t are predicted correctly at step t and at
every later step. A sample exits when g_t - beta_t exceeds 0; other thresholds shift all beta_t alike. The published code
calibrates on training samples with dropout switched on, which recorded traces cannot repeat: held-out samples take their place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dynconf_core.confidence.elementary import gap
from dynconf_core.confidence.folds import FOLDS, fitted_in_folds
from dynconf_core.confidence.measure import ConfidenceMeasure, State, StepOutputs, chunks
from dynconf_core.confidence.smoothing import PLAIN, Smoothing
from dynconf_core.confidence.step_parameters import at_step, checked_numbers
from dynconf_core.errors import InputError
from dynconf_core.traces.schema import Traces

BINS = 100


@dataclass(frozen=True, eq=False, repr=False)
class SnnCutoff(ConfidenceMeasure):
    """g_t - beta_t; steps beyond the last beta use the last one.

    Attributes:
        betas: beta_t for t = 1 to T, in units of the logits; None: not fitted yet.
        epsilon: the share of the exits, within [0, 1), that may be wrong on the calibration samples.

    Raises:
        InputError: for betas that are no finite numbers, or an epsilon out of range.
    """

    name = "snncutoff"
    label = "gap above beta"
    least_samples = FOLDS
    rival = True
    default_threshold = 0.0

    betas: Sequence[float] | None = None
    epsilon: float = 0.0

    def __post_init__(self) -> None:
        if isinstance(self.epsilon, bool) or not isinstance(self.epsilon, (int, float)) or not 0.0 <= self.epsilon < 1.0:
            raise InputError(
                f"snncutoff epsilon = {self.epsilon!r}: give the share of exits that may be wrong, 0 or more, below 1."
            )
        if self.betas is not None:
            object.__setattr__(self, "betas", checked_numbers("snncutoff betas", self.betas))

    @property
    def fitted(self) -> bool:
        return self.betas is not None

    def fit(self, calibration: Traces, smoothing: Smoothing, seed: int) -> tuple[Self, NDArray[np.float64] | None]:
        """beta_t on all calibration samples, and out-of-fold scores; smoothing is not used."""
        return fitted_in_folds(calibration, seed, lambda traces: type(self)(_betas(traces, self.epsilon), self.epsilon))

    def step(self, outputs: StepOutputs, state: State) -> tuple[Tensor, State]:
        return gap(outputs.accumulated) - at_step(self.betas, outputs.step), state

    def scores(self, traces: Traces, smoothing: Smoothing = PLAIN) -> NDArray[np.float64]:
        betas = at_step(self.betas, torch.arange(1, traces.time_steps + 1)).numpy()
        scores: NDArray[np.float64] = _gaps(traces) - betas
        return scores


def _gaps(traces: Traces) -> NDArray[np.float64]:
    gaps = np.empty((traces.samples, traces.time_steps), dtype=np.float64)
    for rows, accumulated in chunks(traces):
        gaps[rows] = gap(accumulated).numpy()
    return gaps


def _betas(traces: Traces, epsilon: float) -> list[float]:
    gaps = _gaps(traces)
    # Right at this step and at every later one.
    stays_right = np.logical_and.accumulate(traces.correct()[:, ::-1], axis=1)[:, ::-1]
    grid = np.arange(BINS) * (gaps.max() / BINS)
    betas = []
    for step in range(traces.time_steps):
        order = np.sort(gaps[:, step])
        right = np.sort(gaps[stays_right[:, step], step])
        exits = len(order) - np.searchsorted(order, grid, side="right")
        rightly = len(right) - np.searchsorted(right, grid, side="right")
        # Where no sample exceeds beta the share is undefined and counts as too low; the last beta of the grid always counts.
        enough = (exits > 0) & (rightly >= (1.0 - epsilon) * exits)
        enough[-1] = True
        betas.append(float(grid[int(enough.argmax())]))
    return betas
