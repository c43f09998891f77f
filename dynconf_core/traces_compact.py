"""Traces with no more digits than matter for what is read from them: to be published beside a table."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dynconf_core.exit.rules import Rule
from dynconf_core.traces import Traces

DIGITS = (11, 13, 15, 17, 19, 21)
"""Binary digits of a logit that are tried, the fewest first; 11 are float16's."""


def compact(traces: Traces, rule: Rule | None = None) -> Traces:
    """The traces with logits rounded to as few binary digits as change no prediction at any step, and no exit of ``rule``.

    Rounded logits compress well: float16 where its digits and range suffice, else float32 whose last digits are 0. The
    outputs of the trained networks become float16 where no prediction changes, counts the smallest whole type.

    Args:
        traces: of any types.
        rule: one whose exits are to stay.
    """
    smaller = replace(
        traces,
        ann_logits=_outputs(traces.ann_logits),
        reference_logits=_outputs(traces.reference_logits),
        spikes=_counts(traces.spikes),
        synaptic_operations=_counts(traces.synaptic_operations),
    )
    for digits in DIGITS:
        rounded = _rounded(traces.logits, digits)
        if rounded is not None and _same(traces, candidate := replace(smaller, logits=rounded), rule):
            return candidate
    return smaller


def _same(traces: Traces, other: Traces, rule: Rule | None) -> bool:
    if not np.array_equal(traces.predictions(), other.predictions()):
        return False
    return rule is None or np.array_equal(rule.exit_steps(traces), rule.exit_steps(other))


def _rounded(logits: NDArray[Any], digits: int) -> NDArray[Any] | None:
    """None where the type cannot hold them."""
    if digits == DIGITS[0]:
        return _half(logits)
    mantissa, exponent = np.frexp(logits)
    rounded = np.ldexp(np.round(mantissa * 2.0**digits) * 2.0**-digits, exponent)
    with np.errstate(over="ignore"):
        single = rounded.astype(np.float32)
    return single if np.isfinite(single).all() else None


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
