"""A readout that depends on the time step: corrected sums of the outputs, from which a rule predicts and scores.

An SNN's prediction is read from z_t, the sum of its outputs up to step t. The first outputs of a converted network have a
systematic error, since deep layers have not been charged yet. A readout replaces z_t by

    z'_t = a_t z_t + b_t r_t + c_t    (t < T),    z'_T = z_T

where r_t is an average of the outputs in which each step has half the weight of the next one, r_t = (r_{t-1} + logits_t) / 2,
a_t and b_t are numbers, and c_t holds a bias for each class. From T on the plain sum remains, so that samples that never exit
keep their prediction, and the accuracy at T is the same for both. To whatever reads the outputs, the output of step t is then
z'_t - z'_{t-1}: every confidence measure works behind a readout as it does behind the plain sum.

All arithmetic is elementwise in float64, so that a running network (`step`) and stored traces (`DecodedTraces`) give the same
bits for any batch or device. `dynconf_core.exit.readout_fit` fits a readout on calibration traces.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dynconf_core.confidence.recent import next_recent, recent_average
from dynconf_core.confidence.smoothing import LARGEST
from dynconf_core.errors import InputError
from dynconf_core.traces.schema import EVERY, Traces

FIELDS = ("sum_weights", "recent_weights", "biases")
# Larger parameters are rejected, so that no product with a float32 logit overflows.
LARGEST_PARAMETER = 1e100


@dataclass(frozen=True)
class Readout:
    """The parameters of a readout for T time steps and C classes.

    Attributes:
        sum_weights: a_1 .. a_{T-1}.
        recent_weights: b_1 .. b_{T-1}.
        biases: c_1 .. c_{T-1}, each of C numbers, in units of the accumulated logits.

    Raises:
        InputError: for numbers that are missing, not finite or beyond 1e100.
    """

    sum_weights: Sequence[float]
    recent_weights: Sequence[float]
    biases: Sequence[Sequence[float]]

    def __post_init__(self) -> None:
        for name in FIELDS:
            object.__setattr__(self, name, _numbers(name, getattr(self, name), rows=name == "biases"))
        if len({len(getattr(self, name)) for name in FIELDS}) != 1 or len({len(row) for row in self.biases}) != 1:
            raise InputError(
                f"readout: {len(self.sum_weights)} sum_weights, {len(self.recent_weights)} recent_weights and "
                f"{len(self.biases)} rows of biases; give one of each for every step before T, with a bias for each class."
            )
        classes = len(self.biases[0])
        for name, at_full in zip(FIELDS, (1.0, 0.0, (0.0,) * classes), strict=True):
            values = torch.tensor([*getattr(self, name), at_full], dtype=torch.float64)
            object.__setattr__(self, f"_{name}", values)

    @property
    def time_steps(self) -> int:
        """T, the step from which the plain sum is used."""
        return len(self.sum_weights) + 1

    @property
    def classes(self) -> int:
        """C."""
        return len(self.biases[0])

    def decoded(self, accumulated: Tensor, recent: Tensor, step: Tensor) -> Tensor:
        """z' (..., C) float64 for the sums z (..., C), the averages r (..., C) and the steps t (...), counted from 1."""
        place = step.clamp(max=self.time_steps) - 1
        a, b, c = (getattr(self, f"_{name}").to(accumulated.device)[place] for name in FIELDS)
        of_sum, of_recent = ((x * y[..., None]).clamp(-LARGEST, LARGEST) for x, y in ((accumulated, a), (recent, b)))
        early = (of_sum + of_recent + c).clamp(-LARGEST, LARGEST)
        return torch.where((step >= self.time_steps)[..., None], accumulated, early)

    def initial(self, samples: int, device: torch.device | str = "cpu") -> tuple[Tensor, ...]:
        """What is remembered of new samples before their first step: r_0 and z'_0, both 0 (n, C)."""
        return tuple(torch.zeros(samples, self.classes, dtype=torch.float64, device=device) for _ in range(2))

    def step(
        self, logits: Tensor, accumulated: Tensor, step: Tensor, state: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """One time step of n samples, which may be at different steps.

        Args:
            logits: (n, C) float64, the output of this step alone.
            accumulated: z_t (n, C) float64.
            step: t (n,) int64, counted from 1.
            state: from `initial` or the previous step.

        Returns:
            z'_t - z'_{t-1} and z'_t, both (n, C), and the new state.
        """
        recent = next_recent(state[0], logits)
        decoded = self.decoded(accumulated, recent, step)
        return decoded - state[1], decoded, (recent, decoded)

    def to_json(self) -> dict[str, Any]:
        """The parameters as stored in `rule.json`."""
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def from_json(cls, entry: Any) -> Readout:
        """The inverse of `to_json`; an InputError names what is missing or wrong."""
        if not isinstance(entry, Mapping) or set(entry) != set(FIELDS):
            raise InputError(f"readout = {str(entry)[:80]} is not known; give null, or an object of {', '.join(FIELDS)}.")
        return cls(**entry)


def ends_early(lengths: NDArray[np.int64] | None, time_steps: int) -> bool:
    """Whether any sample ends before T."""
    return lengths is not None and bool((lengths < time_steps).any())


def check_readable(readout: Readout, classes: int, early: bool = False) -> None:
    """Raise InputError unless the readout fits outputs of so many classes, of samples none of which ends before T (`early`)."""
    if readout.classes != classes:
        raise InputError(f"the rule's readout is for {readout.classes} classes, the outputs have {classes}; fit it anew.")
    if early:
        raise InputError(
            "the rule has a readout, which needs samples that all have T time steps; choose a rule with readout = plain."
        )


def check_long_enough(readout: Readout, time_steps: int) -> None:
    """Raise InputError for samples that end before the readout gives way to the plain sum."""
    if time_steps < readout.time_steps:
        raise InputError(
            f"the rule's readout is for T = {readout.time_steps} time steps, and there are {time_steps}; choose a rule on "
            f"traces cut at {time_steps}."
        )


@dataclass(frozen=True, eq=False)
class DecodedTraces(Traces):
    """Traces behind a readout: their outputs, accumulated outputs and predictions are those of z'. The array `logits` holds the
    outputs of the SNN itself.

    Attributes:
        readouts: one or more.
        fold: (N,) which of the readouts decodes each sample; None: the first.
    """

    readouts: tuple[Readout, ...] = ()
    fold: NDArray[np.int64] | None = None

    by_sample: ClassVar[tuple[str, ...]] = (*Traces.by_sample, "fold")

    def __post_init__(self) -> None:
        """The plain traces have been checked already."""
        for readout in self.readouts:
            check_readable(readout, self.classes, ends_early(self.lengths, self.time_steps))

    @classmethod
    def of(cls, traces: Traces, readouts: Sequence[Readout], fold: NDArray[np.int64] | None = None) -> DecodedTraces:
        """The traces behind a readout, or behind one for each fold.

        Raises:
            InputError: for another number of classes, and for samples that end before T.
        """
        own = {field.name: getattr(traces, field.name) for field in fields(Traces)}
        return cls(**own, readouts=tuple(readouts), fold=fold)

    def accumulated(self) -> Iterator[tuple[slice, NDArray[np.float64]]]:
        for rows, sums in super().accumulated():
            yield rows, self._decoded(rows, sums)

    def outputs(self, rows: slice | NDArray[np.int64] = EVERY) -> NDArray[np.float64]:
        sums = np.cumsum(super().outputs(rows), axis=1)
        return np.diff(self._decoded(rows, sums), axis=1, prepend=0.0)

    def _decoded(self, rows: slice | NDArray[np.int64], sums: NDArray[np.float64]) -> NDArray[np.float64]:
        z, recent = torch.from_numpy(sums), recent_average(torch.from_numpy(super().outputs(rows)))
        steps = torch.arange(1, self.time_steps + 1)
        if self.fold is None:
            return self.readouts[0].decoded(z, recent, steps).numpy()
        fold, found = torch.from_numpy(self.fold[rows]), torch.empty_like(z)
        for number, readout in enumerate(self.readouts):
            mine = fold == number
            found[mine] = readout.decoded(z[mine], recent[mine], steps)
        decoded: NDArray[np.float64] = found.numpy()
        return decoded


def _numbers(name: str, values: Any, rows: bool = False) -> tuple[Any, ...]:
    if not isinstance(values, Sequence) or isinstance(values, str) or not values:
        raise InputError(f"readout: {name} = {str(values)[:80]} must be a list of {'lists of ' if rows else ''}numbers.")
    if rows:
        return tuple(_numbers(name, row) for row in values)
    for value in values:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= LARGEST_PARAMETER:
            raise InputError(f"readout: {name} holds {value!r}, which is not a finite number; give one within +-1e100.")
    return tuple(map(float, values))


def _plain(values: Any) -> Any:
    return [_plain(value) for value in values] if isinstance(values, tuple) else values
