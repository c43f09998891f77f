"""Whether calibration and test samples may come from one source: a permutation test on the outputs of the network.

What is chosen or promised on calibration samples holds for samples drawn alike. If both sets are drawn alike, every division of
all samples into two sets of these sizes is equally likely, so that the largest standardised difference of means between the
sets exceeds those of random divisions only by chance: the test has exactly the level it states, for any network, also where
outputs repeat each other (ties are no obstacle). It assumes that samples are independent: several frames of one recording are
not.

Compared are, at a few steps, the gap of the two largest summed logits and the entropy of their softmax; the step from which the
prediction stays; and whether it is correct at T. Each as a rank, which shows shifts, and as the squared distance from the
middle rank, which shows spreads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from dynconf_core.confidence.entropy import Entropy
from dynconf_core.confidence.gap import Gap
from dynconf_core.confidence.patience import standing
from dynconf_core.traces.schema import Traces

MARKS = 4


@dataclass(frozen=True)
class OneSource:
    """The result of the test.

    Attributes:
        rejected: whether the samples do not come from one source, at the level of the test.
        feature: what differs most, in words.
        difference: of the means of its ranks, test less calibration, in standard deviations.
    """

    rejected: bool
    feature: str
    difference: float


def one_source(calibration: Traces, test: Traces, level: float, seed: int = 0) -> OneSource:
    """Test whether two sets of traces of one network may come from one source.

    Args:
        calibration, test: of the same T and C.
        level: the probability of a false alarm, within (0, 1).
        seed: of the random divisions.
    """
    names, ranks = _ranks(calibration, test)
    first = calibration.samples
    columns = np.concatenate([ranks, ranks[:, :-1] ** 2], axis=1)  # being correct is a yes or no, without a spread
    columns -= columns.mean(axis=0)
    deviation = columns.std(axis=0)
    columns /= np.where(deviation > 0, deviation, 1.0)  # a constant stays at 0
    found = np.abs(columns[:first].sum(axis=0)).max()
    # Of all divisions, the given one included, at most the share `level` may differ as much; two reach it at most.
    divisions = math.ceil(2.0 / level) - 1
    random, as_large = np.random.default_rng(seed), 1
    few = min(first, len(columns) - first)
    for _ in range(divisions):
        of_division = np.abs(columns[random.permutation(len(columns))[:few]].sum(axis=0)).max()
        as_large += bool(of_division >= found * (1.0 - 1e-12))
        if as_large > level * (divisions + 1):
            break
    differences = columns[first:].mean(axis=0) - columns[:first].mean(axis=0)
    most = int(np.abs(differences).argmax())
    named = names[most] if most < len(names) else f"the spread of {names[most - len(names)]}"
    return OneSource(as_large <= level * (divisions + 1), named, float(differences[most]))


def _ranks(calibration: Traces, test: Traces) -> tuple[list[str], NDArray[np.float64]]:
    """The names of the features, and their mean ranks (N + M, K) over all samples, from -1/2 to 1/2."""
    from scipy.stats import rankdata

    time_steps = calibration.time_steps
    marks = sorted({max(1, round(time_steps * share)) for share in np.geomspace(1 / time_steps, 1, MARKS)})
    names = [f"{what} at step {mark}" for mark in marks for what in ("the gap", "the entropy")]
    names += ["the step from which the prediction stays", "the share of correct predictions at T"]
    values = np.concatenate([_features(traces, marks) for traces in (calibration, test)])
    ranks: NDArray[np.float64] = (rankdata(values, axis=0) - 0.5) / len(values) - 0.5
    return names, ranks


def _features(traces: Traces, marks: list[int]) -> NDArray[np.float64]:
    columns = np.empty((traces.samples, 2 * len(marks) + 2))
    for rows, accumulated in traces.accumulated():
        for place, mark in enumerate(marks):
            at_mark = torch.from_numpy(np.ascontiguousarray(accumulated[:, mark - 1]))
            columns[rows, 2 * place] = Gap().of_smoothed(at_mark)
            columns[rows, 2 * place + 1] = -Entropy().of_smoothed(at_mark)
        predictions = accumulated.argmax(axis=2)
        columns[rows, -2] = traces.time_steps - standing(torch.from_numpy(predictions))[:, -1].numpy()
        columns[rows, -1] = predictions[:, -1] == traces.labels[rows]
    return columns
