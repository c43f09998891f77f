"""The forecast behind `learned`: which class a network will predict at T, from its outputs up to step t.

The first outputs of a converted network have a systematic error, since deep layers have not been charged yet: some classes lead
too early, others too late. The forecast is a multinomial logistic regression for each of a few steps, in which class c has, up
to a common term, the log-probability

    u_c = a_t z_c / t + b_t r_c + d_{t,c}

with the accumulated logits z, the recent average r of `dynconf_core.confidence.features`, two weights and a bias a class. It
needs no labels: the class to be forecast is the prediction at T. Steps between two fitted ones interpolate the parameters
linearly in log t, and later steps use the last.

The fit penalises biases and weights a little, so that it exists where a few samples determine it. With more than `BIASED`
classes there are no biases, for each class would have too few samples; and only the `RIVALS` largest logits of a sample and its
final class compete, as the others have next to no probability.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dynconf_core.confidence.elementary import exponential, logarithm, total
from dynconf_core.confidence.measure import chunks, logits_of
from dynconf_core.confidence.newton import minimum
from dynconf_core.confidence.recent import recent_average
from dynconf_core.confidence.step_parameters import LARGEST, checked_numbers, checked_table
from dynconf_core.errors import InputError
from dynconf_core.traces.schema import Traces

FIELDS = ("steps", "sum_weights", "recent_weights", "biases")
# The next fitted step is later by this factor: what the outputs mean changes fast at first and hardly later on.
SPACING = 1.3
BIASED = 200
RIVALS = 20
# Penalties: half of it times the square of a weight (of inputs scaled to a mean size of 1), and of a bias.
PULL, BIAS_PULL = 1e-3, 1.0
SMALLEST = 1e-90  # inputs that differ by less tell nothing


@dataclass(frozen=True)
class Forecast:
    """Fitted parameters.

    Attributes:
        steps: (S,) the fitted steps, from 1, ascending.
        sum_weights, recent_weights: (S,) a and b.
        biases: (S, C) d; None: no biases, for any number of classes.

    Raises:
        InputError: for parameters of another form, not finite or beyond 1e100.
    """

    steps: Sequence[int]
    sum_weights: Sequence[float]
    recent_weights: Sequence[float]
    biases: Sequence[Sequence[float]] | None = None

    def __post_init__(self) -> None:
        steps = checked_numbers("forecast steps", self.steps)
        if steps[0] != 1 or any(late <= early or late % 1 for early, late in itertools.pairwise(steps)):
            raise InputError(f"forecast steps = {self.steps!r}; give whole numbers from 1, each larger than the one before.")
        columns = [checked_numbers(f"forecast {name}", getattr(self, name)) for name in ("sum_weights", "recent_weights")]
        biases = None if self.biases is None else checked_table("forecast biases", self.biases)
        if {len(column) for column in (*columns, *(() if biases is None else (biases,)))} != {len(steps)}:
            raise InputError(f"forecast has {len(steps)} steps; give one sum weight, recent weight and row of biases for each.")
        values = (tuple(map(int, steps)), *columns, biases)
        for name, value in zip(FIELDS, values, strict=True):
            object.__setattr__(self, name, value)
        rows = [torch.tensor(column, dtype=torch.float64)[:, None] for column in columns]
        rows += [] if biases is None else [torch.tensor(biases, dtype=torch.float64)]
        object.__setattr__(self, "_table", _interpolated(torch.tensor(steps, dtype=torch.float64), torch.cat(rows, dim=1)))

    @property
    def classes(self) -> int | None:
        """C; None: any."""
        return None if self.biases is None else len(self.biases[0])

    def log_odds(self, accumulated: Tensor, recent: Tensor, step: Tensor) -> Tensor:
        """(...) float64, log(p / (1 - p)) of the probability p that the current prediction is the one at T.

        Args:
            accumulated, recent: z and r (..., C) float64.
            step: t (...), counted from 1; broadcasts.
        """
        table: Tensor = self._table.to(accumulated.device)  # type: ignore[attr-defined]
        row = table[(step - 1).clamp(max=len(table) - 1)]
        average = accumulated / step.to(torch.float64)[..., None]
        terms = (average * row[..., :1]).clamp(-LARGEST, LARGEST)
        terms += (recent * row[..., 1:2]).clamp(-LARGEST, LARGEST)
        if self.biases is not None:
            terms += row[..., 2:]
        prediction = accumulated.argmax(dim=-1, keepdim=True)
        own = terms.gather(-1, prediction)[..., 0]
        others = terms.scatter(-1, prediction, -math.inf)
        largest = others.amax(dim=-1, keepdim=True)
        behind = largest[..., 0] + logarithm(total(exponential(others - largest)))
        return (own - behind).clamp(-LARGEST, LARGEST)

    @classmethod
    def from_json(cls, entry: Any) -> Self:
        """The inverse of `dataclasses.asdict`; an InputError names what is missing or wrong."""
        if not isinstance(entry, Mapping) or set(entry) != set(FIELDS):
            raise InputError(f"forecast = {str(entry)[:80]}; give an object of {', '.join(FIELDS)}.")
        return cls(**entry)


def fitted_steps(time_steps: int) -> list[int]:
    """The steps before T to which parameters are fitted: 1, 2, 3, 4, 5, then later by a quarter to a third each."""
    steps = [1]
    while (following := max(steps[-1] + 1, round(steps[-1] * SPACING))) < time_steps:
        steps.append(following)
    return steps


def fit_forecast(traces: Traces, final: NDArray[np.int64]) -> Forecast:
    """The forecast with the largest penalised likelihood.

    Args:
        traces: N samples, T >= 2; labels are not used.
        final: (N,) the predictions at T.
    """
    steps = fitted_steps(int(traces.ends.max()))
    places = torch.tensor(steps) - 1
    count = min(traces.classes, RIVALS)
    inputs = np.empty((2, len(steps), traces.samples, count))
    classes = np.empty((len(steps), traces.samples, count), dtype=np.int64)
    for samples, accumulated in chunks(traces):
        average = (accumulated[:, places] / (places + 1.0)[:, None]).clamp(-LARGEST, LARGEST).transpose(0, 1).numpy()
        recent = recent_average(logits_of(traces, samples))[:, places].clamp(-LARGEST, LARGEST).transpose(0, 1).numpy()
        chosen = _rivals(average, final[samples], count)
        classes[:, samples] = chosen
        inputs[0, :, samples] = np.take_along_axis(average, chosen, axis=2)
        inputs[1, :, samples] = np.take_along_axis(recent, chosen, axis=2)
    biased = traces.classes if traces.classes <= BIASED else 0
    found = []
    for place, step in enumerate(steps):
        running = traces.ends > step
        # At the first step both inputs are the same but for a factor.
        used = inputs[: 1 if step == 1 else 2, place, running]
        target = (classes[place, running] == final[running, None]).argmax(axis=1)
        weights, biases = _likeliest(used, classes[place, running], target, biased)
        found.append((*weights, *[0.0] * (2 - len(weights)), biases))
    sums, recents, rows = zip(*found, strict=True)
    return Forecast(steps, sums, recents, rows if biased else None)


def _rivals(average: NDArray[np.float64], final: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """(S, n, count) the classes with the largest logits (S, n, C), the final one among them, ascending."""
    if count == average.shape[-1]:
        return np.broadcast_to(np.arange(count), average.shape)
    ranked = average.copy()
    np.put_along_axis(ranked, np.broadcast_to(final[:, None], (len(average), len(final), 1)), np.inf, axis=2)
    return np.sort(np.argpartition(ranked, -count, axis=2)[..., -count:], axis=2)


def _likeliest(
    inputs: NDArray[np.float64], classes: NDArray[np.int64], target: NDArray[np.int64], biased: int
) -> tuple[list[float], list[float]]:
    """The weights of the inputs (K, n, M) and the biases (biased,)."""
    kinds, samples, _ = inputs.shape
    size = np.abs(inputs - inputs.mean(axis=2, keepdims=True)).mean(axis=(1, 2)) if samples else np.ones(kinds)
    size[~((size > SMALLEST) & np.isfinite(size))] = 1.0
    scaled = np.clip(inputs / size[:, None, None], -LARGEST, LARGEST)
    scaled = scaled - scaled.max(axis=2, keepdims=True)
    one_hot = np.zeros(classes.shape)
    one_hot[np.arange(samples), target] = 1.0
    pulls = np.append(np.full(kinds, PULL), np.full(biased, BIAS_PULL))
    start = np.append(1.0, np.zeros(kinds - 1 + biased))

    def cost_of(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        terms = np.tensordot(parameters[:kinds], scaled, axes=1)
        if biased:
            terms += parameters[kinds:][classes]
        terms -= terms.max(axis=1, keepdims=True)
        norm = np.log(np.exp(terms).sum(axis=1))
        cost = float((norm - terms[np.arange(samples), target]).sum() + 0.5 * (pulls * parameters**2).sum())
        return cost, np.exp(terms - norm[:, None])

    def derivatives(
        parameters: NDArray[np.float64], chances: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        slope, curvature = _derivatives(scaled, classes, chances, chances - one_hot, biased)
        return slope + pulls * parameters, curvature + np.diag(pulls)

    found = minimum(start, cost_of, derivatives)
    return (found[:kinds] / size).tolist(), found[kinds:].tolist()


def _derivatives(
    scaled: NDArray[np.float64],
    classes: NDArray[np.int64],
    chances: NDArray[np.float64],
    surplus: NDArray[np.float64],
    biased: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The gradient (K + C,) and the matrix of second derivatives of minus the log-likelihood."""
    kinds, _, count = scaled.shape
    weighted = scaled * chances
    mean = weighted.sum(axis=2)
    slope = np.concatenate(
        ((scaled * surplus).sum(axis=(1, 2)), np.bincount(classes.ravel(), surplus.ravel(), biased)[:biased])
    )
    curvature = np.empty((kinds + biased, kinds + biased))
    curvature[:kinds, :kinds] = np.einsum("knm,lnm->kl", weighted, scaled) - mean @ mean.T
    if biased:
        spread = (weighted - chances * mean[:, :, None]).reshape(kinds, -1)
        curvature[:kinds, kinds:] = [np.bincount(classes.ravel(), row, biased) for row in spread]
        curvature[kinds:, :kinds] = curvature[:kinds, kinds:].T
        pairs: NDArray[np.float64]
        if count == biased:
            pairs = chances.T @ chances
        else:
            cells = classes[:, :, None] * biased + classes[:, None, :]
            products = chances[:, :, None] * chances[:, None, :]
            pairs = np.bincount(cells.ravel(), products.ravel(), biased**2).reshape(biased, biased).astype(np.float64)
        curvature[kinds:, kinds:] = np.diag(np.bincount(classes.ravel(), chances.ravel(), biased)) - pairs
    return slope, curvature


def _interpolated(steps: Tensor, values: Tensor) -> Tensor:
    """(last step, J): the values (S, J) at every step from 1 on, linear in log t."""
    every = torch.arange(1, int(steps[-1]) + 1, dtype=torch.float64)
    after = torch.searchsorted(steps, every).clamp(min=1, max=max(len(steps) - 1, 1))
    if len(steps) == 1:
        return values
    logs = logarithm(steps)
    share = (logarithm(every) - logs[after - 1]) / (logs[after] - logs[after - 1])
    found = values[after - 1] + share[:, None] * (values[after] - values[after - 1])
    found[steps.long() - 1] = values  # exact where they are known
    return found
