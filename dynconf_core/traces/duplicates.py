"""Test samples that are also calibration samples, and how many would seem to be by chance.

A deterministic SNN gives equal images equal traces, apart from rounding that depends on the batch. The reverse does not hold:
an SNN with few output patterns repeats itself on different images. How often it does, the calibration samples tell themselves.
By Good (1953, after Turing), the probability that a new sample of the same source equals one of n samples is about the share of
those n that equal another; a larger number of test samples than that share of them, by more than three standard errors (Esty,
1983, for the share, and binomial for the number), stands in both sets. Where inputs are hashed, equal hashes are equal inputs,
and one is enough.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dynconf_core.traces.checks import TracesError, pieces
from dynconf_core.traces.schema import Traces

STANDARD_ERRORS = 3.0
Compared = Literal["input_hash", "spikes", "logits"]
"""What was compared: the inputs; or labels and logits, also with the spikes of all layers."""


@dataclass(frozen=True)
class Duplicates:
    """Samples that are equal.

    Attributes:
        compared: what tells samples apart.
        shared: the number of test samples that equal a calibration sample.
        repeated: the number of calibration samples that equal another one.
        samples: the number of calibration samples.
        expected: how many test samples would equal a calibration sample if none stood in both sets.
        error: the standard error of ``expected``.
    """

    compared: Compared
    shared: int
    repeated: int
    samples: int
    expected: float
    error: float

    @property
    def more_than_expected(self) -> bool:
        """Whether test samples stand in the calibration traces."""
        return self.shared > self.expected + STANDARD_ERRORS * self.error


def duplicates(calibration: Traces, test: Traces) -> Duplicates:
    """Count the test samples that equal a calibration sample.

    Hashes of the inputs are compared if both traces have them; otherwise labels, the logits of every step and, if both have
    them, spikes: outputs that are small whole numbers can be equal by chance. The values are compared by 64-bit digests,
    whatever type they were saved in: among 2 million by 2 million samples, two different ones have the same digest with a
    probability of 2e-7.

    Raises:
        TracesError: if the numbers of time steps or classes differ.
    """
    ours, theirs = calibration.logits.shape[1:], test.logits.shape[1:]
    if ours != theirs:
        raise TracesError(
            f"logits of the calibration traces have (time steps, classes) = {ours}, those of the test traces {theirs}; "
            "both must come from one SNN, run for the same number of steps."
        )
    compared = _compared(calibration, test)
    with_lengths = calibration.lengths is not None or test.lengths is not None
    known, unseen = (_digests(traces, compared, with_lengths) for traces in (calibration, test))
    _, counts = np.unique(known, return_counts=True)
    once, twice, samples = int((counts == 1).sum()), int((counts == 2).sum()), calibration.samples
    share = 0.0 if compared == "input_hash" else 1.0 - once / samples
    of_share = 0.0 if share == 0.0 else (once + 2 * twice - once * once / samples) / samples**2
    return Duplicates(
        compared,
        int(np.isin(unseen, known).sum()),
        samples - once,
        samples,
        test.samples * share,
        math.sqrt(test.samples * share * (1.0 - share) + test.samples**2 * of_share),
    )


def _compared(calibration: Traces, test: Traces) -> Compared:
    if calibration.input_hash is not None and test.input_hash is not None:
        return "input_hash"
    return "spikes" if calibration.spikes is not None and test.spikes is not None else "logits"


def _digests(traces: Traces, compared: Compared, with_lengths: bool) -> NDArray[np.uint64]:
    """(N,): 64-bit digests of what is compared of each sample up to its end, and, ``with_lengths``, of where that is."""
    if compared == "input_hash" and traces.input_hash is not None:
        return traces.input_hash.astype(np.uint64)
    arrays = [traces.logits, *([traces.spikes] if compared == "spikes" and traces.spikes is not None else [])]
    whole = [traces.labels, *([traces.ends] if with_lengths else [])]
    digests = np.empty(traces.samples, dtype=np.uint64)
    for piece in pieces(traces.logits):
        parts = [*(array[piece].astype(np.float64) for array in whole), *(traces.until_end(array, piece) for array in arrays)]
        rows = np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1) + 0.0  # turns -0 into 0
        found = (int.from_bytes(blake2b(row, digest_size=8).digest(), "little") for row in rows)
        digests[piece] = np.fromiter(found, np.uint64, len(rows))
    return digests
