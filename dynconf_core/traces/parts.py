"""Parts of one set of traces: halves that choose and judge where only one file is given."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dynconf_core.choosing.guarantee import halves
from dynconf_core.errors import InputError
from dynconf_core.traces.schema import Traces

LEAST_FOR_HALVES = 4
"""Samples of which two can choose and two judge or certify."""
Parts = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Which samples choose and which do not, counted from 0."""


def split_in_two(traces: Traces, seed: int) -> tuple[Traces, Traces, dict[str, Any]]:
    """One set of traces as calibration and test, half and half, and which samples are which.

    Returns:
        The two, and ``{"seed", "calibration", "test"}``: the samples' places in ``traces``, counted from 0.

    Raises:
        InputError: for fewer than 4 samples, of which not two can choose and two judge.
    """
    if traces.samples < LEAST_FOR_HALVES:
        raise InputError(
            f"samples = {traces.samples} cannot be split into calibration and test: give at least {LEAST_FOR_HALVES}, better "
            "1 000, or two files."
        )
    chooses, judges = halves(traces.samples, seed)
    indices = {"seed": seed, "calibration": chooses.tolist(), "test": judges.tolist()}
    return taken(traces, chooses), taken(traces, judges), indices


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
