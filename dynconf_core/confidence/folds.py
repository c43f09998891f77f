"""Cross-fitting: a fitted measure, and scores of the samples it was fitted on as if it had not seen them.

A threshold that is searched on scores fitted to the same samples exits too early on new ones. The samples are therefore divided
into folds, and those of each fold are scored by a measure fitted on the other folds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from dynconf_core.confidence.measure import ConfidenceMeasure
from dynconf_core.traces.parts import taken
from dynconf_core.traces.schema import Traces

FOLDS = 5
M = TypeVar("M", bound=ConfidenceMeasure)


def fitted_in_folds(traces: Traces, seed: int, fit: Callable[[Traces], M]) -> tuple[M, NDArray[np.float64]]:
    """The measure fitted on all samples, and the out-of-fold scores (N, T) float64.

    Args:
        traces: the calibration split, at least `FOLDS` samples.
        seed: of the division into folds.
        fit: fits a measure that reads no smoothing.
    """
    fold = np.random.Generator(np.random.PCG64(seed)).permutation(traces.samples) % FOLDS
    scores = np.empty((traces.samples, traces.time_steps), dtype=np.float64)
    for k in range(FOLDS):
        held_out = np.flatnonzero(fold == k)
        scores[held_out] = fit(taken(traces, np.flatnonzero(fold != k))).scores(taken(traces, held_out))
    return fit(traces), scores
