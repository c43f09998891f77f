"""Calibration over time: whether the softmax of step t means what it says, at every step and where the samples leave.

A smoothing may be well calibrated at T and far off at the steps where an exit reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dynconf_core.confidence.reliability import BINS, label_costs, max_probability, reliability_diagram
from dynconf_core.confidence.smoothing import Smoothing
from dynconf_core.errors import InputError
from dynconf_core.traces.schema import Traces


def calibration_over_time(
    traces: Traces,
    smoothing: Smoothing,
    steps: Sequence[int] = (),
    exit_steps: NDArray[np.int64] | None = None,
    bins: int = BINS,
) -> dict[str, Any]:
    """Expected calibration error and negative log likelihood of softmax(z'_t), t = 1 .. T, and reliability diagrams.

    Args:
        traces: of N samples and T time steps.
        smoothing: from z to z'.
        steps: those whose reliability diagrams are wanted, from 1.
        exit_steps: (N,) where each sample leaves, from 1; or None.
        bins: of the diagrams and of the error.

    Returns:
        A dict that JSON can hold: ece_at_t [T] and nll_at_t [T] (nats); diagrams {step as text: the columns counts,
        confidence, accuracy}; with `exit_steps` also ece_at_exit, nll_at_exit and the diagram "exit".

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
        smoothed = smoothing.apply(accumulated)
        confidence[piece] = max_probability(smoothed)
        costs[piece] = label_costs(smoothed, traces.labels[piece, None])

    diagrams = [reliability_diagram(confidence[:, t], correct[:, t], bins) for t in range(traces.time_steps)]
    figures: dict[str, Any] = {
        "ece_at_t": [diagram.expected_calibration_error() for diagram in diagrams],
        "nll_at_t": costs.mean(axis=0).tolist(),
        "diagrams": {str(step): diagrams[step - 1].to_dict() for step in steps},
    }
    if exit_steps is not None:
        left = (np.arange(traces.samples), exit_steps - 1)
        diagram = reliability_diagram(confidence[left], correct[left], bins)
        figures |= {"ece_at_exit": diagram.expected_calibration_error(), "nll_at_exit": float(costs[left].mean())}
        figures["diagrams"]["exit"] = diagram.to_dict()
    return figures
