"""`spikecp` and `spikecp_simes`: exits whose conformal prediction set is small enough (Chen, Park and Simeone, 2023).

At step t the nonconformity of class c is -log softmax_c(z_t), and its p-value p_t(c) is the share of the calibration samples,
the new one included, whose true class conforms no better. SpikeCP predicts the set of classes with p_t(c) > (1 - coverage) / T,
a Bonferroni correction for the T steps at which it may stop, and exits when the set has at most `set_size` classes. The true
class is then in the set of the exit with at least the probability `coverage`, if calibration and new samples are exchangeable.

The score is the highest coverage at which the set is small enough to exit: 1 - T p, p being the p-value of the first class
beyond the allowed size. One threshold on it, the coverage, thus stands for the whole family of rules; it exits where the
published code does at that coverage. It is negative where no coverage suffices.

With Simes's inequality the k-th smallest of the p-values of a class up to step t is compared with k (1 - coverage) / T, and a
class that left the set stays out. These sets lie within Bonferroni's, and exits come no later; their coverage is proven for
p-values that depend on each other positively, which those of one sample over time nearly do. It is the variant with one
correction over all steps; whether a sample stops early does not weaken it.

A coverage is a statement about sets, not about the accuracy that an exit loses. With n calibration samples no coverage above 1
- T / (n + 1) can be reached.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dynconf_core.confidence.elementary import exponential, logarithm_1p, others_behind, total
from dynconf_core.confidence.folds import FOLDS, fitted_in_folds
from dynconf_core.confidence.measure import ConfidenceMeasure, State, StepOutputs, chunks
from dynconf_core.confidence.smoothing import Smoothing
from dynconf_core.confidence.step_parameters import checked_numbers, checked_table
from dynconf_core.errors import InputError
from dynconf_core.traces.schema import Traces

LEVELS = 120
"""About so many p-values are told apart a step, most of them small ones; a p-value between two of them is rounded up."""


@dataclass(frozen=True, eq=False, repr=False)
class SpikeCP(ConfidenceMeasure):
    """1 - T p with the p-value p of the first class beyond the allowed size: Bonferroni's correction.

    Attributes:
        limits: (T, J) nonconformities of calibration samples, descending; None: not fitted yet.
        ranks: (J,) how many calibration samples conform worse than each of them at most, ascending.
        samples: n, the number of calibration samples.
        set_size: the number of classes that the set of an exit may have.

    Raises:
        InputError: for parameters that do not fit together or are out of range.
    """

    name = "spikecp"
    label = "coverage"
    least_samples = 2 * FOLDS
    rival = True
    default_threshold = 0.8

    limits: Sequence[Sequence[float]] | None = None
    ranks: Sequence[float] | None = None
    samples: int | None = None
    set_size: int = 1

    def __post_init__(self) -> None:
        if isinstance(self.set_size, bool) or not isinstance(self.set_size, int) or self.set_size < 1:
            raise InputError(f"{self.name} set_size = {self.set_size!r}: give a number of classes from 1.")
        if self.limits is None:
            return
        if isinstance(self.samples, bool) or not isinstance(self.samples, int) or self.samples < 1:
            raise InputError(f"{self.name} samples = {self.samples!r}: give the number of calibration samples.")
        ranks = checked_numbers(f"{self.name} ranks", self.ranks)
        object.__setattr__(self, "ranks", ranks)
        object.__setattr__(self, "limits", checked_table(f"{self.name} limits", self.limits, len(ranks)))

    @property
    def fitted(self) -> bool:
        return self.limits is not None

    def fit(self, calibration: Traces, smoothing: Smoothing, seed: int) -> tuple[Self, NDArray[np.float64] | None]:
        """The nonconformities of all calibration samples, and out-of-fold scores; smoothing is not used."""
        return fitted_in_folds(calibration, seed, self._of)

    def _of(self, traces: Traces) -> Self:
        found = np.empty((traces.samples, traces.time_steps), dtype=np.float64)
        for rows, accumulated in chunks(traces):
            own = torch.tensor(traces.labels[rows])[:, None, None].expand(-1, traces.time_steps, 1)
            found[rows] = nonconformity(accumulated).gather(-1, own)[..., 0].numpy()
        descending = np.sort(found, axis=0)[::-1]
        ranks = np.unique(np.rint(np.geomspace(1, traces.samples, LEVELS)).astype(np.int64)) - 1
        return type(self)(descending[ranks].T.tolist(), ranks.astype(float).tolist(), traces.samples, self.set_size)

    @property
    def time_steps(self) -> int:
        """T of the calibration samples."""
        return len(self.limits or ())

    @cached_property
    def _ascending(self) -> Tensor:
        """(T, J) minus the limits."""
        return -torch.tensor(self.limits, dtype=torch.float64)

    @cached_property
    def _p_values(self) -> Tensor:
        """(J + 1,) the p-value of a nonconformity that exceeds all limits, all but the first, ..., none."""
        conforming_worse = torch.tensor([*(self.ranks or ()), float(self.samples or 0)], dtype=torch.float64)
        return (1.0 + conforming_worse) / (1.0 + float(self.samples or 0))

    def p_values(self, accumulated: Tensor, step: Tensor) -> Tensor:
        """p_t(c) (n, C) float64 of z_t (n, C) at the steps t (n,)."""
        if self.limits is None:
            raise InputError(f"measure {self.name!r} needs its fitted parameters: call fit on calibration traces first.")
        limits = self._ascending.to(step.device)[(step - 1).clamp(max=self.time_steps - 1)]
        not_below = torch.searchsorted(limits, -nonconformity(accumulated), right=True)
        return self._p_values.to(step.device)[not_below]

    def step(self, outputs: StepOutputs, state: State) -> tuple[Tensor, State]:
        corrected = self.p_values(outputs.accumulated, outputs.step) * float(self.time_steps)
        return self._of_corrected(corrected), state

    def _of_corrected(self, corrected: Tensor) -> Tensor:
        """Scores (n,) of the corrected p-values (n, C)."""
        beyond = corrected.shape[-1] - self.set_size
        if beyond <= 0:  # every set is small enough
            return torch.ones_like(corrected[..., 0])
        return 1.0 - corrected.sort(dim=-1).values[..., beyond - 1]

    def corrected_at(self, traces: Traces, steps: NDArray[np.int64]) -> NDArray[np.float64]:
        """(N, C) the corrected p-values of all classes at each sample's step (N,), counted from 1."""
        found = np.empty((traces.samples, traces.classes), dtype=np.float64)
        for rows, accumulated in chunks(traces):
            at = torch.from_numpy(steps[rows])
            found[rows] = self.p_values(accumulated[torch.arange(len(at)), at - 1], at).numpy() * float(self.time_steps)
        return found

    def coverage(self, traces: Traces, steps: NDArray[np.int64], threshold: float) -> float:
        """The share of samples whose true class is in the set at their exit, which the threshold promises."""
        own = self.corrected_at(traces, steps)[np.arange(traces.samples), traces.labels]
        return float((own >= 1.0 - threshold).mean())


class SpikeCPSimes(SpikeCP):
    """1 - the p-value of the first class beyond the allowed size, combined over the steps so far by Simes's inequality."""

    name = "spikecp_simes"

    def initial(self, samples: int, classes: int, device: torch.device | str = "cpu") -> State:
        """The p-values (n, C, T) float64 of the steps so far; those to come count as infinite."""
        return (torch.full((samples, classes, max(self.time_steps, 1)), torch.inf, dtype=torch.float64, device=device),)

    def step(self, outputs: StepOutputs, state: State) -> tuple[Tensor, State]:
        (so_far,) = state
        p_values = self.p_values(outputs.accumulated, outputs.step)
        place = (outputs.step - 1).clamp(max=self.time_steps - 1)[:, None, None].expand(-1, so_far.shape[1], 1)
        so_far = so_far.scatter(-1, place, p_values[..., None])
        return self._of_corrected(_simes(so_far)), (so_far,)

    def corrected_at(self, traces: Traces, steps: NDArray[np.int64]) -> NDArray[np.float64]:
        found = np.empty((traces.samples, traces.classes), dtype=np.float64)
        for rows, accumulated in chunks(traces):
            at = torch.from_numpy(steps[rows])
            each = torch.arange(1, traces.time_steps + 1)
            columns = [self.p_values(accumulated[:, t], each[t].expand(len(at))) for t in range(traces.time_steps)]
            so_far = torch.stack(columns, dim=-1).masked_fill((each > at[:, None])[:, None], torch.inf)
            found[rows] = _simes(so_far).numpy()
        return found


def nonconformity(accumulated: Tensor) -> Tensor:
    """-log softmax (..., C) float64 of z (..., C) float64; it does not saturate."""
    others = others_behind(accumulated)
    normaliser = logarithm_1p(total(exponential(others)))
    return normaliser[..., None] + (accumulated.amax(dim=-1, keepdim=True) - accumulated)


def _simes(p_values: Tensor) -> Tensor:
    """(n, C): the least of T / k times the k-th smallest of the p-values (n, C, T)."""
    time_steps = p_values.shape[-1]
    order = torch.arange(1, time_steps + 1, dtype=torch.float64, device=p_values.device)
    return (p_values.sort(dim=-1).values * (float(time_steps) / order)).amin(dim=-1)
