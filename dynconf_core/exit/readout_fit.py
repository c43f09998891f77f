"""Fitting a readout on calibration traces, by penalised maximum likelihood, and out of fold.

For each step, the softmax of the decoded sum should be the probability of the label. The steps are fitted from T backwards,
where the plain sum is kept: the negative log likelihood of step t is minimised together with a penalty times the squared
distance from the parameters of the step after it (with the inputs scaled to equal size). A large penalty keeps the plain sum at
all steps; a small one lets every step have its own parameters. The readout thus tends towards the plain sum as t approaches T,
and the number of effective parameters follows from the one penalty, which is chosen by cross-validation: the likelihood of
samples that did not take part in the fit.

What was fitted is divided by one number a step, so that z'_t is as large as z_t. A softmax of z'_t then needs a temperature, as
that of z_t does; but scores grow with t as they do without a readout, which makes early steps less confident. That exits better
than equal scores at equal probability, because the few confident errors are at the first steps.

Up to 16 steps, evenly spaced in log t, are fitted; the parameters in between are interpolated. The predictions of calibration
samples, on which thresholds are chosen, are those of readouts fitted on the other folds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from dynconf_core.arguments import instance, whole
from dynconf_core.confidence.folds import FOLDS
from dynconf_core.confidence.newton import minimum, one_thread
from dynconf_core.confidence.recent import recent_average
from dynconf_core.errors import InputError
from dynconf_core.exit.readout import DecodedTraces, Readout, ends_early
from dynconf_core.traces.schema import Traces

FROM_0 = "give a whole number from 0"
LEAST_SAMPLES = 50
STEPS = 16
PENALTIES = (1.0, 0.1, 0.01, 1e-3, 1e-4)
# Elements (samples times classes) in the fit of one step; beyond that, evenly spaced samples are used.
ELEMENTS = 2**20
EXACT = 1e-9
"""A fit ends with a step that lowers the loss by less than this."""


@dataclass(frozen=True, eq=False)
class FittedReadout:
    """A readout, and the ones that decode the samples it was fitted on.

    Attributes:
        readout: fitted on all samples.
        without: K readouts, each fitted without one fold.
        fold: (N,) the fold of each sample.
        penalty: the chosen penalty.
    """

    readout: Readout
    without: tuple[Readout, ...]
    fold: NDArray[np.int64]
    penalty: float

    def calibration(self, traces: Traces) -> DecodedTraces:
        """The traces that it was fitted on, each sample decoded by a readout fitted without it."""
        return DecodedTraces.of(traces, self.without, self.fold)


def large_enough_for_readout(traces: Traces) -> bool:
    """Whether a readout can be fitted: 50 samples and 2 steps or more, and no sample that ends before T."""
    early = ends_early(traces.lengths, traces.time_steps)
    return not early and traces.samples >= LEAST_SAMPLES and traces.time_steps >= 2


def fit_readout(traces: Traces, seed: int, folds: int = FOLDS) -> FittedReadout:
    """Fit a readout.

    Args:
        traces: the calibration split; the likelihood is that of its labels.
        seed: of the division into folds.
        folds: K, from 2 to N.

    Raises:
        InputError: for traces that are too small, or whose samples end before T.
    """
    instance("traces", traces, Traces, "give Traces, as Traces.load(PATH) or collect(...) returns them")
    if (found := whole("seed", seed, FROM_0)) < 0:
        raise InputError(f"seed={seed}: {FROM_0}.")
    folds = whole("folds", folds)
    if not large_enough_for_readout(traces):
        given = f"{traces.samples} samples of {traces.time_steps} steps{' with lengths' if traces.lengths is not None else ''}"
        raise InputError(
            f"a readout needs at least {LEAST_SAMPLES} calibration samples and 2 time steps, and none that ends before T; "
            f"there are {given}. Choose readout = plain."
        )
    if not 2 <= folds <= traces.samples:
        raise InputError(f"folds = {folds} of {traces.samples} calibration samples: give 2 folds to one per sample.")
    fold = np.random.Generator(np.random.PCG64(found)).permutation(traces.samples) % folds
    with one_thread():
        rows = _Rows.of(traces)
        of_row = fold[rows.sample]
        kept = [of_row != number for number in range(folds)]
        paths = [[_fitted(rows, part, penalty) for part in kept] for penalty in PENALTIES]
        losses = [
            sum(_loss(rows, ~part, path) * float((~part).sum()) for part, path in zip(kept, of_penalty, strict=True))
            for of_penalty in paths
        ]
        best = int(np.argmin(losses))
        of_all = _fitted(rows, np.ones(len(of_row), dtype=np.bool_), PENALTIES[best])
        without = tuple(rows.readout(path) for path in paths[best])
    return FittedReadout(rows.readout(of_all), without, fold, PENALTIES[best])


@dataclass(frozen=True, eq=False)
class _Rows:
    """R samples at K steps, the last of which is T.

    Attributes:
        sums, recent: z and r (K, R, C), divided by their size at each step.
        labels, sample: (R,) the classes, and which samples they are.
        steps: (K,), from 1, ascending.
        sizes: (K, 2): what sums and recent were divided by.
        time_steps: T.
    """

    sums: NDArray[np.float64]
    recent: NDArray[np.float64]
    labels: NDArray[np.int64]
    sample: NDArray[np.int64]
    steps: NDArray[np.int64]
    sizes: NDArray[np.float64]
    time_steps: int

    @classmethod
    def of(cls, traces: Traces) -> _Rows:
        steps = np.unique(np.geomspace(1, traces.time_steps, STEPS).round().astype(np.int64))
        stride = math.ceil(traces.samples * traces.classes / ELEMENTS)
        sample = np.arange(0, traces.samples, stride)
        both = [np.empty((len(steps), len(sample), traces.classes)) for _ in range(2)]
        piece = max(1, 2**22 // (traces.time_steps * traces.classes))
        for start in range(0, len(sample), piece):
            here = slice(start, start + piece)
            logits = traces.outputs(sample[here])
            recent = recent_average(torch.from_numpy(logits)).numpy()
            for found, values in zip(both, (np.cumsum(logits, axis=1), recent), strict=True):
                found[:, here] = values[:, steps - 1].transpose(1, 0, 2)
        for found in both:  # a constant added to all classes changes no probability
            found -= found.mean(axis=2, keepdims=True)
        sizes = np.stack([np.sqrt(np.square(found).mean(axis=(1, 2))) for found in both], axis=1)
        sizes[~(sizes > 0)] = 1.0
        for found, size in zip(both, sizes.T, strict=True):
            found /= size[:, None, None]
        return cls(both[0], both[1], traces.labels[sample], sample, steps, sizes, traces.time_steps)

    def readout(self, path: NDArray[np.float64]) -> Readout:
        """The readout of the parameters (K, 2 + C), with z' as large as z, interpolated between the fitted steps."""
        parameters = path * self.sizes[:, :1]
        parameters[:, :2] /= self.sizes
        for place, found in enumerate(path):
            logits = found[0] * self.sums[place] + found[1] * self.recent[place] + found[2:]
            size = float(np.sqrt(np.square(logits - logits.mean(axis=1, keepdims=True)).mean()))
            parameters[place] /= size if size > 0 else 1.0
        every = np.arange(1, self.time_steps)
        columns = np.stack([np.interp(every, self.steps, column) for column in parameters.T], axis=1)
        return Readout(columns[:, 0].tolist(), columns[:, 1].tolist(), columns[:, 2:].tolist())


def _fitted(rows: _Rows, part: NDArray[np.bool_], penalty: float) -> NDArray[np.float64]:
    """(K, 2 + C): the parameters alpha, beta and c of each step for the inputs of `rows`, fitted on some of the rows."""
    classes, labels = rows.sums.shape[2], rows.labels[part]
    path = np.zeros((len(rows.steps), 2 + classes))
    after = np.zeros(2 + classes)
    after[0] = 1.0
    for place in reversed(range(len(rows.steps))):
        at_full = place == len(rows.steps) - 1
        free = 1 if at_full else 2 + classes
        inputs = rows.sums[place, part], rows.recent[place, part]
        after = path[place] = _minimum(inputs, labels, after, 1e-6 if at_full else penalty, free)
    return path


def _minimum(
    inputs: tuple[NDArray[np.float64], NDArray[np.float64]],
    labels: NDArray[np.int64],
    centre: NDArray[np.float64],
    penalty: float,
    free: int,
) -> NDArray[np.float64]:
    """The parameters (2 + C,) with the smallest mean loss plus penalty times the squared distance from `centre`; the first
    `free` ones are fitted."""
    rows = np.arange(len(labels))

    def whole(fitted: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.append(fitted, centre[free:])

    def cost_of(fitted: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        value, chances = _value(inputs, labels, whole(fitted))
        return value + penalty * float(np.square(fitted - centre[:free]).sum()), chances

    def derivatives(
        fitted: NDArray[np.float64], chances: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        gradient, curvature = _derivatives(inputs, labels, chances, rows)
        return gradient[:free] + 2.0 * penalty * (fitted - centre[:free]), curvature[:free, :free] + 2.0 * penalty * np.eye(
            free
        )

    return whole(minimum(centre[:free], cost_of, derivatives, EXACT))


def _value(
    inputs: tuple[NDArray[np.float64], NDArray[np.float64]], labels: NDArray[np.int64], parameters: NDArray[np.float64]
) -> tuple[float, NDArray[np.float64]]:
    """The mean negative log likelihood, and the probabilities (R, C)."""
    logits = parameters[0] * inputs[0] + parameters[1] * inputs[1] + parameters[2:]
    logits -= logits.max(axis=1, keepdims=True)
    of_label = logits[np.arange(len(labels)), labels]
    chances = np.exp(logits)
    totals = chances.sum(axis=1)
    chances /= totals[:, None]
    return float((np.log(totals) - of_label).mean()), chances


def _derivatives(
    inputs: tuple[NDArray[np.float64], NDArray[np.float64]],
    labels: NDArray[np.int64],
    chances: NDArray[np.float64],
    rows: NDArray[np.int64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Gradient (2 + C,) and second derivatives (2 + C, 2 + C) of the mean negative log likelihood."""
    count, classes = chances.shape
    means = [(chances * values).sum(axis=1) for values in inputs]
    gradient, curvature = np.empty(2 + classes), np.empty((2 + classes, 2 + classes))
    for number, (values, mean) in enumerate(zip(inputs, means, strict=True)):
        gradient[number] = (mean - values[rows, labels]).mean()
        weighted = chances * (values - mean[:, None])
        for other, others in enumerate(inputs):
            curvature[number, other] = (weighted * others).sum() / count
        curvature[number, 2:] = curvature[2:, number] = weighted.mean(axis=0)
    gradient[2:] = chances.mean(axis=0) - np.bincount(labels, minlength=classes) / count
    curvature[2:, 2:] = np.diag(chances.mean(axis=0)) - chances.T @ chances / count
    return gradient, curvature


def _loss(rows: _Rows, part: NDArray[np.bool_], path: NDArray[np.float64]) -> float:
    """The mean negative log likelihood of some of the rows, over the steps before T."""
    return float(
        np.mean(
            [
                _value((rows.sums[place, part], rows.recent[place, part]), rows.labels[part], path[place])[0]
                for place in range(len(rows.steps) - 1)
            ]
        )
    )
