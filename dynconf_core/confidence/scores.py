"""Scores: how sure an SNN is of its prediction at every step; larger is surer, always float64.

`max_softmax` is the confidence of Li, Jones and Furber (ICCV 2023), c_t = max softmax(z'_t), compared as its
log-odds log(c / (1 - c)). The two order alike, but the softmax itself reaches exactly 1 for right and wrong
answers alike as soon as the gap passes some 37 (float64; 17 in float32), and a threshold can then no longer
tell them apart.

A further score is one function and one entry of `SCORES` and `SHOWN`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from dynconf_core.confidence.smoothing import Smoothing
from dynconf_core.errors import InputError
from dynconf_core.traces import Traces


def log_odds(smoothed: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log-odds of the largest softmax: -logsumexp over the classes but the first largest of (z'_j - z'_max).

    Args:
        smoothed: z' (..., C), C >= 2.

    Returns:
        (...) float64 in nats; 0 is a softmax of one half, and nothing saturates: it grows as the gap does.
    """
    behind = smoothed - smoothed.max(axis=-1, keepdims=True)
    first_largest = behind.argmax(axis=-1, keepdims=True)
    np.put_along_axis(behind, first_largest, -np.inf, axis=-1)
    # The runner-up's distance is taken out of the sum, so that exp never underflows to a sum of 0. It is -inf
    # only where a tiny alpha overflows z' itself.
    runner_up = np.maximum(behind.max(axis=-1, keepdims=True), -np.finfo(np.float64).max)
    np.subtract(behind, runner_up, out=behind)
    np.exp(behind, out=behind)
    with np.errstate(divide="ignore"):
        odds: NDArray[np.float64] = -(runner_up[..., 0] + np.log(behind.sum(axis=-1)))
    return odds


def sigmoid(x: float) -> float:
    """1 / (1 + exp(-x)) without overflow: the softmax that log-odds of x stand for."""
    if x >= 0:
        return 1.0 / (1.0 + math.exp(-x))
    return math.exp(x) / (1.0 + math.exp(x))


# From z' (n, T, C) to scores (n, T), and from a score to what a person reads.
SCORES: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {"max_softmax": log_odds}
SHOWN: dict[str, Callable[[float], float]] = {"max_softmax": sigmoid}


def checked_measure(measure: str) -> str:
    """`measure` itself where it names a score; else an InputError that lists the names."""
    if not isinstance(measure, str) or measure not in SCORES:
        raise InputError(f"rule {measure!r} is not known; give one of {', '.join(SCORES)}.")
    return measure


def score(traces: Traces, measure: str, smoothing: Smoothing) -> NDArray[np.float64]:
    """Scores (N, T) of all samples at all steps, computed in pieces of samples so that memory stays bounded.

    Raises:
        InputError: for an unknown measure.
    """
    measured = SCORES[checked_measure(measure)]
    scores = np.empty((traces.samples, traces.time_steps), dtype=np.float64)
    for piece, accumulated in traces.accumulated():
        scores[piece] = measured(smoothing.apply(accumulated))
    return scores


def shown(measure: str, value: float) -> float:
    """What a person reads for a score or threshold: for `max_softmax` the softmax in [0, 1].

    Raises:
        InputError: for an unknown measure.
    """
    return SHOWN[checked_measure(measure)](value)
