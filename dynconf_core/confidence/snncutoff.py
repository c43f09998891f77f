"""`snncutoff`: the top-k cutoff of SNNCutoff, a gap with a threshold beta_t of its own at every step (Wu et al., 2023).

The gap g_t is the largest summed logit minus the second largest. For each of 100 evenly spaced values beta, the share of the
calibration samples with g_t > beta is found that are predicted correctly at step t and at every later one. beta_t is the lowest
value at which this share is at least 1 - epsilon, and a sample exits when g_t > beta_t. The published code's epsilon is 0.

The score is the largest share at any value below g_t: it reaches 1 - epsilon exactly if g_t > beta_t. One threshold on it, 1 -
epsilon, thus stands for the whole family of rules, with all their beta_t. The published code calibrates on training samples
with dropout switched on, which recorded traces cannot repeat: held-out samples take their place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dynconf_core.confidence.elementary import gap
from dynconf_core.confidence.folds import FOLDS, fitted_in_folds
from dynconf_core.confidence.measure import ConfidenceMeasure, State, StepOutputs, chunks
from dynconf_core.confidence.smoothing import PLAIN, Smoothing
from dynconf_core.confidence.step_parameters import checked_numbers, checked_table
from dynconf_core.errors import InputError
from dynconf_core.traces.schema import Traces

BINS = 100


@dataclass(frozen=True, eq=False, repr=False)
class SnnCutoff(ConfidenceMeasure):
    """The largest share of right exits at any beta below g_t; 0 where there is none. Steps beyond the last count as the last.

    Attributes:
        shares: (T, 100) for each step and beta, the largest share of right exits at it or a lower one; None: not fitted yet.
        spacing: of the values beta = 0, spacing, 2 spacing, ..., in units of the logits.

    Raises:
        InputError: for shares that are not rows of 100 numbers, or a spacing that is no finite number from 0.
    """

    name = "snncutoff"
    label = "share of right exits"
    least_samples = FOLDS
    rival = True
    default_threshold = math.nextafter(1.0, 0.0)

    shares: Sequence[Sequence[float]] | None = None
    spacing: float = 0.0

    def __post_init__(self) -> None:
        if self.shares is None:
            return
        (spacing,) = checked_numbers("snncutoff spacing", (self.spacing,))
        if spacing < 0.0:
            raise InputError(f"snncutoff spacing = {spacing}: give a number from 0.")
        object.__setattr__(self, "spacing", spacing)
        object.__setattr__(self, "shares", checked_table("snncutoff shares", self.shares, BINS))

    @property
    def fitted(self) -> bool:
        return self.shares is not None

    def fit(self, calibration: Traces, smoothing: Smoothing, seed: int) -> tuple[Self, NDArray[np.float64] | None]:
        """The shares on all calibration samples, and out-of-fold scores; smoothing is not used."""
        return fitted_in_folds(calibration, seed, lambda traces: type(self)(*_shares(traces)))

    @cached_property
    def _table(self) -> Tensor:
        """(T, 1 + 100) the score of a gap that exceeds no beta, the first, the first two, ..."""
        if self.shares is None:
            raise InputError("measure 'snncutoff' needs its fitted parameters: call fit on calibration traces first.")
        return torch.nn.functional.pad(torch.tensor(self.shares, dtype=torch.float64), (1, 0))

    def step(self, outputs: StepOutputs, state: State) -> tuple[Tensor, State]:
        return self._of_gaps(gap(outputs.accumulated), outputs.step), state

    def scores(self, traces: Traces, smoothing: Smoothing = PLAIN) -> NDArray[np.float64]:
        steps = torch.arange(1, traces.time_steps + 1).expand(traces.samples, -1)
        return self._of_gaps(torch.from_numpy(_gaps(traces)), steps).numpy()

    def _of_gaps(self, gaps: Tensor, step: Tensor) -> Tensor:
        grid = torch.arange(BINS, dtype=torch.float64, device=gaps.device) * self.spacing
        exceeded = torch.searchsorted(grid, gaps.contiguous())
        return self._table.to(gaps.device)[(step - 1).clamp(max=len(self._table) - 1), exceeded]


def _gaps(traces: Traces) -> NDArray[np.float64]:
    gaps = np.empty((traces.samples, traces.time_steps), dtype=np.float64)
    for rows, accumulated in chunks(traces):
        gaps[rows] = gap(accumulated).numpy()
    return gaps


def _shares(traces: Traces) -> tuple[list[list[float]], float]:
    """The shares (T, 100) and the spacing of beta."""
    gaps = _gaps(traces)
    spacing = float(gaps.max()) / BINS
    grid = np.arange(BINS) * spacing
    # Right at this step and at every later one.
    stays_right = np.logical_and.accumulate(traces.correct()[:, ::-1], axis=1)[:, ::-1]
    found = np.empty((traces.time_steps, BINS))
    for step, of_step in enumerate(found):
        every, right = np.sort(gaps[:, step]), np.sort(gaps[stays_right[:, step], step])
        exits = len(every) - np.searchsorted(every, grid, side="right")
        rightly = len(right) - np.searchsorted(right, grid, side="right")
        # Where no sample exceeds beta the share is undefined and never enough; the last beta always is.
        of_step[:] = rightly / np.maximum(exits, 1)
        of_step[-1] = 1.0
    return np.maximum.accumulate(found, axis=1).tolist(), spacing
