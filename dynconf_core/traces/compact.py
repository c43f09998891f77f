"""Traces rounded to the digits that matter for their predictions and exits, for publication beside a table."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dynconf_core.traces.schema import Traces

DIGITS = (11, 13, 15, 17, 19, 21, 24)
"""Numbers of binary digits tried for a logit, the fewest first; float16 has 11, float32 has 24."""


Kept = Callable[[Traces], NDArray[np.int64]]
"""Computes what must not change of each sample of traces, (N,) or (N, K), such as ``Rule.exit_steps``."""


def compact(traces: Traces, kept: Kept | None = None) -> Traces:
    """The traces with each sample's logits rounded to the fewest binary digits that change neither its prediction at any step
    nor what ``kept`` computes, such as its exit.

    Rounded logits compress well: they become float16 if that suffices for all samples, otherwise float32 whose last digits are
    0. The outputs of the trained networks become float16 if no prediction changes; counts get the smallest integer type.

    Args:
        traces: of any types.
        kept: computes what else must not change; None: only predictions are kept.
    """
    return replace(
        traces,
        logits=_fewest_digits(traces, kept),
        ann_logits=_outputs(traces.ann_logits),
        reference_logits=_outputs(traces.reference_logits),
        spikes=_counts(traces.spikes),
        synaptic_operations=_counts(traces.synaptic_operations),
    )


def _fewest_digits(traces: Traces, kept: Kept | None) -> NDArray[Any]:
    predictions, others = _read(traces, kept)
    found = np.empty(traces.logits.shape, np.float32)
    left = np.arange(traces.samples)
    for digits in DIGITS:
        logits = _rounded(traces.until_end(traces.logits, left), digits)
        if not np.isfinite(logits).all():  # float32 is too narrow
            return traces.logits
        lengths = None if traces.lengths is None else traces.lengths[left]
        now, rest = _read(Traces(logits, traces.labels[left], lengths=lengths), kept)
        same = (now == predictions[left]).all(axis=1) & (rest == others[left]).all(axis=1)
        found[left[same]] = logits[same]
        left = left[~same]
        if digits == DIGITS[0] and not len(left):
            half = _half(found)
            if half is not None and np.array_equal(half, found):
                return half
        if not len(left):
            return found
    return traces.logits


def _read(traces: Traces, kept: Kept | None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The predictions (n, T), and what else must not change (n, K), of traces."""
    others = np.zeros(traces.samples, np.int64) if kept is None else kept(traces)
    return traces.predictions(), others.reshape(traces.samples, -1)


def _rounded(logits: NDArray[Any], digits: int) -> NDArray[Any]:
    mantissa, exponent = np.frexp(logits.astype(np.float64, copy=False))
    with np.errstate(over="ignore"):
        return np.ldexp(np.round(mantissa * 2.0**digits) * 2.0**-digits, exponent).astype(np.float32)


def _half(values: NDArray[Any]) -> NDArray[Any] | None:
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    return half if np.isfinite(half).all() else None


def _outputs(logits: NDArray[Any] | None) -> NDArray[Any] | None:
    half = None if logits is None else _half(logits)
    if logits is None or half is None or not np.array_equal(half.argmax(axis=1), logits.argmax(axis=1)):
        return logits
    return half


def _counts(counts: NDArray[Any] | None) -> NDArray[Any] | None:
    if counts is None or not np.array_equal(counts, np.round(counts)):
        return counts
    return counts.astype(np.min_scalar_type(int(counts.max(initial=0))))
