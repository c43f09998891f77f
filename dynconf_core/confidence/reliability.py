"""Reliability: whether a confidence of 0.9 is right nine times in ten.

Expected calibration error as in Guo et al., "On Calibration of Modern Neural Networks" (ICML 2017, eq. 3): 15
bins of equal width, each right-closed. The negative log likelihood is a proper score beside it, since the
former can be small for a useless confidence.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 15


def max_probability(smoothed: NDArray[np.float64]) -> NDArray[np.float64]:
    """The largest softmax (...) of z' (..., C), in [1/C, 1]."""
    behind = smoothed - smoothed.max(axis=-1, keepdims=True)
    return np.asarray(1.0 / np.exp(behind).sum(axis=-1), dtype=np.float64)


def expected_calibration_error(confidence: NDArray[np.floating[Any]], correct: NDArray[np.bool_], bins: int = BINS) -> float:
    """Mean over the samples of |accuracy - confidence| of their bin, a fraction in [0, 1].

    Args:
        confidence: (N,) probabilities in [0, 1].
        correct: (N,) whether the prediction was right.
        bins: how many bins of equal width; the bin k holds (k / bins, (k + 1) / bins], the first also 0.

    Raises:
        ValueError: for shapes that differ, no sample, or a confidence outside [0, 1].
    """
    if confidence.ndim != 1 or confidence.shape != correct.shape or not confidence.size:
        raise ValueError(f"confidence {confidence.shape} and correct {correct.shape} must both be (N,), N > 0")
    if not ((confidence >= 0) & (confidence <= 1)).all():
        raise ValueError("a confidence must lie in [0, 1]")
    edges = np.linspace(0.0, 1.0, bins + 1)
    # The number of inner edges strictly below the confidence: right-closed bins.
    bin_of = np.searchsorted(edges[1:-1], confidence, side="left")
    surplus = np.bincount(bin_of, weights=confidence - correct.astype(np.float64), minlength=bins)
    return float(np.abs(surplus).sum() / confidence.size)


def negative_log_likelihood(smoothed: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Mean over the samples of -log softmax(z')[label], in nats, from the log-softmax (never infinite).

    Args:
        smoothed: z' (N, C).
        labels: (N,) in [0, C).
    """
    behind = smoothed - smoothed.max(axis=1, keepdims=True)
    of_label = np.take_along_axis(behind, labels[:, None], axis=1)[:, 0]
    return float(np.mean(np.log(np.exp(behind).sum(axis=1)) - of_label))
