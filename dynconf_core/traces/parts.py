"""Calibration and test traces: one set of traces split in two."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dynconf_core.errors import InputError
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

    changed: dict[str, Any] = {name: of(getattr(traces, name)) for name in traces.by_sample}
    return replace(traces, **changed)
