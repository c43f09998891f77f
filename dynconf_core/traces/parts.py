"""Calibration and test traces: one set of traces split in two, and samples that are in both sets."""

from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dynconf_core.errors import InputError
from dynconf_core.traces.checks import TracesError, pieces
from dynconf_core.traces.schema import Traces

LEAST_FOR_HALVES = 4
"""The fewest samples that can be split: two to choose on, and two to judge or certify."""
Parts = tuple[NDArray[np.int64], NDArray[np.int64]]
"""The samples used for choosing and the other ones, counted from 0."""


@dataclass(frozen=True)
class Split:
    """Which samples of one set of traces are calibration and which are test, counted from 0, and the seed of the split."""

    seed: int
    calibration: tuple[int, ...]
    test: tuple[int, ...]


def split_in_two(traces: Traces, seed: int) -> tuple[Traces, Traces, Split]:
    """One set of traces split half and half into calibration and test, and which samples are in which.

    Raises:
        InputError: for fewer than 4 samples.
    """
    if traces.samples < LEAST_FOR_HALVES:
        raise InputError(
            f"samples = {traces.samples} cannot be split into calibration and test: give at least {LEAST_FOR_HALVES}, better "
            "1 000, or two files."
        )
    chooses, judges = halves(traces.samples, seed)
    split = Split(seed, tuple(chooses.tolist()), tuple(judges.tolist()))
    return taken(traces, chooses), taken(traces, judges), split


def halves(samples: int, seed: int, share: float = 0.5) -> Parts:
    """Two random parts of 0 .. N-1, each sorted: the samples to choose on, and the `share` of samples that are kept apart.

    Raises:
        InputError: for a share that leaves one of the parts empty.
    """
    kept = round(samples * share)
    if not 0 < kept < samples:
        raise InputError(
            f"a share of {share} of {samples} samples leaves none to choose on or none to certify; give one in between."
        )
    order = np.random.default_rng(seed).permutation(samples)
    return np.sort(order[kept:]), np.sort(order[:kept])


def taken(traces: Traces, rows: NDArray[np.int64]) -> Traces:
    """The samples at ``rows (n,)``, counted from 0, in that order; copied into memory."""

    def of(array: NDArray[Any] | None) -> NDArray[Any] | None:
        return None if array is None else array[rows]

    return Traces(
        traces.logits[rows],
        traces.labels[rows],
        of(traces.ann_logits),
        of(traces.spikes),
        of(traces.synaptic_operations),
        traces.meta,
        of(traces.reference_logits),
    )


def duplicated(calibration: Traces, test: Traces) -> int:
    """The number of test samples that have the label and, at every step, exactly the logits of some calibration sample.

    A rule chosen on such samples was chosen on the test set. If both sets hold spikes, these must be equal too, because outputs
    that are small whole numbers, such as output spikes, can be equal by chance. A deterministic SNN gives equal images equal
    traces, apart from rounding that depends on the batch; if most outputs are equal anyway (a constant classifier), the count
    says nothing about the images. The values are compared by 64-bit digests, whatever type they were saved in: among 2 million
    by 2 million samples, two different ones have the same digest with a probability of 2e-7.

    Raises:
        TracesError: if the numbers of time steps or classes differ.
    """
    ours, theirs = calibration.logits.shape[1:], test.logits.shape[1:]
    if ours != theirs:
        raise TracesError(
            f"logits of the calibration traces have (time steps, classes) = {ours}, those of the test traces {theirs}; "
            "both must come from one SNN, run for the same number of steps."
        )
    spikes = calibration.spikes is not None and test.spikes is not None
    return int(np.isin(_digests(test, spikes), _digests(calibration, spikes)).sum())


def _digests(traces: Traces, spikes: bool) -> NDArray[np.uint64]:
    """(N,): 64-bit digests of each sample's label, logits and, on request, spikes."""
    arrays = [traces.labels, traces.logits, *([traces.spikes] if spikes else [])]
    digests = np.empty(traces.samples, dtype=np.uint64)
    for piece in pieces(traces.logits):
        parts = [np.asarray(array[piece], np.float64) for array in arrays if array is not None]
        rows = np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1) + 0.0  # turns -0 into 0
        found = (int.from_bytes(blake2b(row, digest_size=8).digest(), "little") for row in rows)
        digests[piece] = np.fromiter(found, np.uint64, len(rows))
    return digests
