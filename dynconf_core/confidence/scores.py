"""Scores: how sure an SNN is of its prediction at every step; larger is surer, always float64.

- `max_softmax`: the confidence of Li, Jones and Furber (ICCV 2023), c_t = max softmax(z'_t), as its log-odds
  log(c / (1 - c)). The two order alike, but the softmax itself reaches exactly 1 for right and wrong answers alike as soon
  as the gap passes some 37 (float64; 17 in float32), and a threshold can then no longer tell them apart.
- `entropy`: minus the entropy of softmax(z'_t) over log C, in [-1, 0] (SEENN; DT-SNN).
- `gap`: the largest z'_t minus the second largest (the top-k gap of SNNCutoff).
- `patience`: for how many steps, this one included, the prediction has stood unchanged.
- `learned`: the log-odds that the prediction is the final one (`dynconf_core.confidence.learned`).

Thresholds are scores, and "greater than" decides by the last bit: `score` on traces and `dynconf_core.exit.agent` on a running
network therefore call the same functions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dynconf_core.confidence.learned import LearnedScore, recent_average
from dynconf_core.confidence.measures import gap, log_odds, negative_entropy, standing
from dynconf_core.confidence.smoothing import Smoothing
from dynconf_core.errors import InputError
from dynconf_core.traces.schema import Traces

# Elements of z' worked on at once: 256 KiB of float64 stay in the cache.
CHUNK_ELEMENTS = 2**15


def sigmoid(x: float) -> float:
    """1 / (1 + exp(-x)) without overflow: the probability that log-odds of x stand for."""
    if x >= 0:
        return 1.0 / (1.0 + math.exp(-x))
    return math.exp(x) / (1.0 + math.exp(x))


# From z' (..., C) to scores (...), and from a score to what a person reads.
SCORES: dict[str, Callable[[Tensor], Tensor]] = {"max_softmax": log_odds, "entropy": negative_entropy, "gap": gap}
SHOWN: dict[str, Callable[[float], float]] = {
    "max_softmax": sigmoid,
    "entropy": lambda score: 0.0 - score,
    "gap": float,
    "patience": float,
    "learned": sigmoid,
}
MEASURES = tuple(SHOWN)


def checked_measure(measure: str) -> str:
    """`measure` itself where it names a score; else an InputError that lists the names."""
    if not isinstance(measure, str) or measure not in MEASURES:
        raise InputError(f"rule {measure!r} is not known; give one of {', '.join(MEASURES)}.")
    return measure


def check_parameters(measure: str, learned: LearnedScore | None) -> None:
    """Raise InputError for an unknown measure, and unless `learned` and no other measure has fitted parameters."""
    if (checked_measure(measure) == "learned") != (learned is not None):
        what = "needs its fitted parameters" if learned is None else "has no fitted parameters"
        raise InputError(f"rule {measure!r} {what}: give the field learned with the rule learned, and with no other.")


def score(traces: Traces, measure: str, smoothing: Smoothing, learned: LearnedScore | None = None) -> NDArray[np.float64]:
    """Scores (N, T) of all samples at all steps, computed in pieces of samples so that memory stays bounded.

    Args:
        traces: of N samples and T time steps.
        measure: one of `MEASURES`.
        smoothing: from z to z'; `patience` and `learned` do not look at it.
        learned: the fitted parameters, for the measure `learned`.

    Raises:
        InputError: for an unknown measure, or parameters that are missing or too many.
    """
    check_parameters(measure, learned)
    steps = torch.arange(1, traces.time_steps + 1)
    scores = np.empty((traces.samples, traces.time_steps), dtype=np.float64)
    for rows, accumulated in chunks(traces):
        if learned is not None:
            found = learned.score(accumulated, recent_average(logits_of(traces, rows)), steps)
        elif measure == "patience":
            found = standing(accumulated.argmax(dim=-1))
        else:
            found = SCORES[measure](smoothing.smoothed(accumulated, steps))
        scores[rows] = found.numpy()
    return scores


def chunks(traces: Traces) -> Iterator[tuple[slice, Tensor]]:
    """z_t of all samples in pieces that fit into the cache: (samples, z (n, T, C) float64)."""
    size = max(1, CHUNK_ELEMENTS // (traces.time_steps * traces.classes))
    for piece, accumulated in traces.accumulated():
        start = piece.start
        for chunk in torch.from_numpy(accumulated).split(size):
            yield slice(start, start + len(chunk)), chunk
            start += len(chunk)


def logits_of(traces: Traces, rows: slice) -> Tensor:
    """The logits (n, T, C) of each step of some samples, float64."""
    return torch.from_numpy(traces.logits[rows].astype(np.float64))


def shown(measure: str, value: float) -> float:
    """What a person reads for a score or threshold: the softmax or probability in [0, 1], the entropy over log C, the gap,
    the steps.

    Raises:
        InputError: for an unknown measure.
    """
    return SHOWN[checked_measure(measure)](value)
