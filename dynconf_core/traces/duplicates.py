"""Samples that stand in the calibration traces and in the test traces: what was chosen on them was chosen on the test set."""

from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from dynconf_core.traces.checks import TracesError, pieces
from dynconf_core.traces.schema import Traces


def duplicated(calibration: Traces, test: Traces) -> int:
    """How many test samples have the label and, at every step, exactly the logits of some calibration sample.

    Where both have them, the spikes must be equal too: outputs that are few whole numbers, such as output spikes, can be equal
    by chance. An SNN without randomness gives equal images equal traces, but for the rounding of other batches; where most
    outputs are equal anyway (a constant classifier), the count says nothing about the images. Compared are 64-bit digests of
    the values, whatever the type they were saved in: among 2 million samples by 2 million, two unlike ones meet by chance with
    a probability of 2e-7.

    Raises:
        TracesError: where the numbers of time steps or classes differ.
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
    """(N,): 64 bits that name the label, the logits and, if wanted, the spikes of a sample."""
    arrays = [traces.labels, traces.logits, *([traces.spikes] if spikes else [])]
    digests = np.empty(traces.samples, dtype=np.uint64)
    for piece in pieces(traces.logits):
        parts = [np.asarray(array[piece], np.float64) for array in arrays if array is not None]
        rows = np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1) + 0.0  # -0 becomes 0
        found = (int.from_bytes(blake2b(row, digest_size=8).digest(), "little") for row in rows)
        digests[piece] = np.fromiter(found, np.uint64, len(rows))
    return digests
