"""Reliability of the softmax over time: whether a confidence of 0.9 is right nine times out of ten, at every step and at the
exit.

Expected calibration error as in Guo et al., "On Calibration of Modern Neural Networks" (ICML 2017, eq. 3), with 15 bins of
equal width, each closed on the right; the bins themselves are the reliability diagram. The negative log likelihood, a proper
score, complements it, because the calibration error can be small for a useless confidence. A smoothing can be well calibrated
at T and badly at the earlier steps at which samples exit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dynconf_core.confidence.smoothing import Smoothing
from dynconf_core.errors import InputError
from dynconf_core.traces.schema import Traces

BINS = 15


def max_probability(smoothed: NDArray[np.float64]) -> NDArray[np.float64]:
    """The largest softmax probability (...) of z' (..., C), in [1/C, 1]."""
    behind = smoothed - smoothed.max(axis=-1, keepdims=True)
    return np.asarray(1.0 / np.exp(behind).sum(axis=-1), dtype=np.float64)


@dataclass(frozen=True, eq=False)
class ReliabilityDiagram:
    """K bins of equal width over [0, 1]: bin k covers (k / K, (k + 1) / K], the first one also 0.

    Attributes:
        counts: (K,) int64, samples in each bin.
        confidence: (K,) their mean confidence; nan in an empty bin.
        accuracy: (K,) the fraction of correct predictions; nan in an empty bin.
    """

    counts: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]

    def expected_calibration_error(self) -> float:
        """The mean over the samples of |accuracy - confidence| in their bin, a fraction in [0, 1]."""
        filled = self.counts > 0
        off = np.abs(self.accuracy[filled] - self.confidence[filled])
        return float((off * self.counts[filled]).sum() / self.counts.sum())

    def columns(self) -> tuple[tuple[int, ...], tuple[float | None, ...], tuple[float | None, ...]]:
        """Counts, confidence and accuracy (K,) as plain numbers; None stands for the mean of an empty bin."""
        confidence, accuracy = (
            tuple(None if np.isnan(value) else value for value in column.tolist())
            for column in (self.confidence, self.accuracy)
        )
        return tuple(self.counts.tolist()), confidence, accuracy


def reliability_diagram(
    confidence: NDArray[np.floating[Any]], correct: NDArray[np.bool_], bins: int = BINS
) -> ReliabilityDiagram:
    """The bins of a reliability diagram.

    Args:
        confidence: (N,) probabilities in [0, 1].
        correct: (N,) whether the prediction was correct (or final, for the learned score).
        bins: K, the number of bins.

    Raises:
        ValueError: for shapes that differ, no samples, or a confidence outside [0, 1].
    """
    if confidence.ndim != 1 or confidence.shape != correct.shape or not confidence.size:
        raise ValueError(f"confidence {confidence.shape} and correct {correct.shape} must both be (N,), N > 0")
    if not ((confidence >= 0) & (confidence <= 1)).all():
        raise ValueError("a confidence must lie in [0, 1]")
    edges = np.linspace(0.0, 1.0, bins + 1)
    # The number of inner edges strictly below the confidence: right-closed bins.
    bin_of = np.searchsorted(edges[1:-1], confidence, side="left")
    counts = np.bincount(bin_of, minlength=bins)
    with np.errstate(invalid="ignore"):
        means = [np.bincount(bin_of, weights=values, minlength=bins) / counts for values in (confidence, correct)]
    return ReliabilityDiagram(counts, *means)


def expected_calibration_error(confidence: NDArray[np.floating[Any]], correct: NDArray[np.bool_], bins: int = BINS) -> float:
    """The expected calibration error, a fraction in [0, 1]; arguments and errors as for `reliability_diagram`."""
    return reliability_diagram(confidence, correct, bins).expected_calibration_error()


def negative_log_likelihood(smoothed: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """The mean over the samples of -log softmax(z')[label], in nats, computed from the log-softmax (never infinite).

    Args:
        smoothed: z' (N, C).
        labels: (N,) in [0, C).
    """
    return float(np.mean(label_costs(smoothed, labels)))


def label_costs(smoothed: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """-log softmax(z')[label] (...) in nats of z' (..., C); labels broadcast to (...)."""
    behind = smoothed - smoothed.max(axis=-1, keepdims=True)
    wanted = np.broadcast_to(labels, behind.shape[:-1])[..., None]
    costs: NDArray[np.float64] = np.log(np.exp(behind).sum(axis=-1)) - np.take_along_axis(behind, wanted, axis=-1)[..., 0]
    return costs


@dataclass(frozen=True, eq=False)
class CalibrationOverTime:
    """How well softmax(z'_t) is calibrated at every step and at the exit; after a sample's end it stays what it is there.

    Attributes:
        ece_at_t: (T,) expected calibration error at step t, a fraction in [0, 1].
        nll_at_t: (T,) negative log likelihood at step t, in nats.
        ece_at_exit, nll_at_exit: the same, each sample at its own exit step.
        diagrams: the reliability diagrams of the requested steps, by step (counted from 1).
        diagram_at_exit: the reliability diagram at the exit steps.
    """

    ece_at_t: tuple[float, ...]
    nll_at_t: tuple[float, ...]
    ece_at_exit: float
    nll_at_exit: float
    diagrams: dict[int, ReliabilityDiagram]
    diagram_at_exit: ReliabilityDiagram


def calibration_over_time(
    traces: Traces, smoothing: Smoothing, exit_steps: NDArray[np.int64], steps: Sequence[int] = (), bins: int = BINS
) -> CalibrationOverTime:
    """Expected calibration error, negative log likelihood and reliability diagrams of softmax(z'_t), t = 1 .. T.

    Args:
        traces: N samples of T time steps.
        smoothing: how z becomes z'.
        exit_steps: (N,) the step at which each sample exits, counted from 1.
        steps: the steps whose reliability diagrams are returned, counted from 1.
        bins: number of bins in the diagrams and in the calibration error.

    Raises:
        InputError: for a step outside 1 to T.
    """
    for step in steps:
        if not 1 <= step <= traces.time_steps:
            raise InputError(f"step = {step} is not in the traces; give steps from 1 to {traces.time_steps}.")
    correct = traces.correct()
    confidence = np.empty(correct.shape)
    costs = np.empty(correct.shape)
    for piece, accumulated in traces.accumulated():
        smoothed = smoothing.apply(accumulated, None if traces.lengths is None else traces.lengths[piece])
        confidence[piece] = max_probability(smoothed)
        costs[piece] = label_costs(smoothed, traces.labels[piece, None])

    diagrams = [reliability_diagram(confidence[:, t], correct[:, t], bins) for t in range(traces.time_steps)]
    exits = (np.arange(traces.samples), exit_steps - 1)
    at_exit = reliability_diagram(confidence[exits], correct[exits], bins)
    return CalibrationOverTime(
        ece_at_t=tuple(diagram.expected_calibration_error() for diagram in diagrams),
        nll_at_t=tuple(costs.mean(axis=0).tolist()),
        ece_at_exit=at_exit.expected_calibration_error(),
        nll_at_exit=float(costs[exits].mean()),
        diagrams={step: diagrams[step - 1] for step in steps},
        diagram_at_exit=at_exit,
    )
