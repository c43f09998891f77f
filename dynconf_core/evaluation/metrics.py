"""The figures of one setting, all on test traces; the calibration traces choose `iso_accuracy` and no more.

The latency saving of an exit with mean steps s against a fixed t is 1 - s/t. Against the full T it flatters,
since most SNNs reach their accuracy earlier; so it is given against several fixed t, by name.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dynconf_core.confidence.calibration_error import (
    expected_calibration_error,
    max_probability,
    negative_log_likelihood,
)
from dynconf_core.confidence.smoothing import Smoothing
from dynconf_core.confidence.temperature import fit_power
from dynconf_core.errors import InputError
from dynconf_core.evaluation.energy import energy_estimate
from dynconf_core.exit.front import ROUNDING
from dynconf_core.exit.intervals import exit_intervals
from dynconf_core.exit.oracles import oracle_gap, oracles
from dynconf_core.exit.rule import Rule, at_exit
from dynconf_core.traces.schema import Traces


def evaluate(test: Traces, calibration: Traces, rule: Rule, paper_time_steps: int | None = None) -> dict[str, Any]:
    """Every figure of a setting that traces and a rule determine, under the names of `results.json`.

    Args:
        test: the test traces, T time steps.
        calibration: those on which the rule was chosen, of the same T and C.
        rule: the exit rule.
        paper_time_steps: the paper's own T for this setting, for the baseline `paper`; None, or above T: left
            out.

    Returns:
        A dict that JSON can hold. Accuracies are fractions, steps count from 1:
        - accuracy_at_t: [a_1 .. a_T]; snn_accuracy: a_T; ann_accuracy (as trained) where the traces hold ann_logits,
          reference_accuracy (the quantised network that the SNN equals) where they hold reference_logits.
        - exit: accuracy, mean_steps, median_steps, p90_steps (linear between samples, as numpy's),
          latency_saving, speedup (T / mean steps), histogram [n_1 .. n_T], rule (with its figures on both
          splits).
        - baselines: see `baselines`. bounds: see `dynconf_core.exit.oracles`.
        - spikes_per_inference, spikes_per_neuron: {"full", "exit"}, mean over the samples of the spikes up to
          T and up to the exit; None where the traces lack spikes, or meta the number of neurons. With
          synaptic_operations in the traces also synaptic_operations_per_inference, and with multiply_accumulates in
          meta these and an estimate of the energy (see `dynconf_core.evaluation.energy`).
        - ece, nll: {"full", "exit"}: expected calibration error (15 bins) and negative log likelihood (nats)
          of softmax(z') under the rule's smoothing, at T and at each sample's exit step.

    Raises:
        InputError: where the two traces differ in time steps or classes.
    """
    if (test.time_steps, test.classes) != (calibration.time_steps, calibration.classes):
        raise InputError(
            f"the test traces have {test.time_steps} time steps and {test.classes} classes, the calibration "
            f"traces {calibration.time_steps} and {calibration.classes}; both must be of one SNN and one T."
        )
    correct = test.correct()
    calibration_correct = calibration.correct()
    accuracy = correct.mean(axis=0)
    steps = rule.exit_steps(test)
    exiting = at_exit(correct, steps)
    on_calibration = at_exit(calibration_correct, rule.exit_steps(calibration))

    figures: dict[str, Any] = {
        "accuracy_at_t": accuracy.tolist(),
        "snn_accuracy": float(accuracy[-1]),
        "exit": {
            **exiting,
            "median_steps": float(np.median(steps)),
            "p90_steps": float(np.percentile(steps, 90)),
            "latency_saving": 1.0 - exiting["mean_steps"] / test.time_steps,
            **exit_intervals(correct, steps),
            "speedup": test.time_steps / exiting["mean_steps"],
            "histogram": np.bincount(steps, minlength=test.time_steps + 1)[1:].tolist(),
            "rule": {**rule.to_json(), "calibration": on_calibration, "test": dict(exiting)},
        },
        "baselines": baselines(accuracy, calibration_correct.mean(axis=0), exiting["mean_steps"], paper_time_steps),
        "oracles": oracles(correct),
        "oracle_gap": oracle_gap(correct, exiting),
        **_spike_figures(test, steps),
        **_reliability(test, _read_smoothing(rule, calibration), correct, steps),
    }
    for name, logits in (("ann_accuracy", test.ann_logits), ("reference_accuracy", test.reference_logits)):
        if logits is not None:
            figures[name] = float(np.mean(logits.argmax(axis=1) == test.labels))
    return figures


def baselines(
    accuracy: NDArray[np.float64],
    calibration_accuracy: NDArray[np.float64],
    mean_steps: float,
    paper_time_steps: int | None = None,
) -> list[dict[str, Any]]:
    """The exit's latency saving against fixed t: {"name", "time_steps", "accuracy", "latency_saving"}.

    - full: T.
    - iso_accuracy: the first step whose calibration accuracy is at least that at T; what an honest user would
      fix.
    - peak: the step of the best test accuracy, the first among equals; flatters the fixed t, being chosen on
      test.
    - within_0.1_points: the first step whose test accuracy is within 0.1 points of that at T.
    - paper: the paper's T, where it is known and not above T.

    Args:
        accuracy: (T,) on the test traces; each baseline's `accuracy` is taken from it.
        calibration_accuracy: (T,) on the calibration traces.
        mean_steps: s, the mean exit step on the test traces.
        paper_time_steps: the paper's T, or None.
    """
    time_steps = len(accuracy)
    found = {
        "full": time_steps,
        "iso_accuracy": _first(calibration_accuracy >= calibration_accuracy[-1] - ROUNDING),
        "peak": int(np.argmax(accuracy)) + 1,
        "within_0.1_points": _first(accuracy >= accuracy[-1] - 0.001 - ROUNDING),
    }
    if paper_time_steps is not None and 1 <= paper_time_steps <= time_steps:
        found["paper"] = paper_time_steps
    return [
        {
            "name": name,
            "time_steps": step,
            "accuracy": float(accuracy[step - 1]),
            "latency_saving": 1.0 - mean_steps / step,
        }
        for name, step in found.items()
    ]


def _first(holds: NDArray[np.bool_]) -> int:
    """The first step, from 1, for which `holds` (T,) is true."""
    return int(np.argmax(holds)) + 1


def _up_to(counts: NDArray[Any], steps: NDArray[np.int64]) -> dict[str, float]:
    """Mean over the samples of counts (N, T) summed up to T and up to each sample's exit step."""
    running = np.cumsum(counts, axis=1, dtype=np.float64)
    return {
        "full": float(running[:, -1].mean()),
        "exit": float(running[np.arange(len(steps)), steps - 1].mean()),
    }


def _spike_figures(test: Traces, steps: NDArray[np.int64]) -> dict[str, Any]:
    per_inference = None if test.spikes is None else _up_to(test.spikes, steps)
    neurons = test.meta.get("neurons")
    per_neuron = None
    if per_inference is not None and isinstance(neurons, (int, float)) and neurons > 0:
        per_neuron = {name: spikes / neurons for name, spikes in per_inference.items()}
    figures: dict[str, Any] = {"spikes_per_inference": per_inference, "spikes_per_neuron": per_neuron}
    if test.synaptic_operations is not None:
        operations = figures["synaptic_operations_per_inference"] = _up_to(test.synaptic_operations, steps)
        multiplied = test.meta.get("multiply_accumulates")
        if isinstance(multiplied, dict):
            figures["multiply_accumulates"] = multiplied
            mean_steps = {"full": float(test.time_steps), "exit": float(steps.mean())}
            figures["energy"] = energy_estimate(multiplied, operations, mean_steps)
    return figures


def _read_smoothing(rule: Rule, calibration: Traces) -> Smoothing:
    """What the softmax is read under: the rule's own smoothing, or one fitted on calibration where its score is no softmax."""
    if not rule.measure.of_softmax:
        with suppress(InputError):  # constant logits: nothing to fit
            return fit_power(calibration)
    return rule.smoothing


def _reliability(
    test: Traces, smoothing: Smoothing, correct: NDArray[np.bool_], steps: NDArray[np.int64]
) -> dict[str, dict[str, float]]:
    """`ece` and `nll` at T and at the exit step, of softmax(z')."""
    ends = {"full": np.full(test.samples, test.time_steps), "exit": steps}
    smoothed = {name: np.empty((test.samples, test.classes)) for name in ends}
    for piece, accumulated in test.accumulated():
        everywhere = smoothing.apply(accumulated)
        for name, end in ends.items():
            smoothed[name][piece] = everywhere[np.arange(len(everywhere)), end[piece] - 1]
    right = {name: correct[np.arange(test.samples), end - 1] for name, end in ends.items()}
    return {
        "ece": {name: expected_calibration_error(max_probability(smoothed[name]), right[name]) for name in ends},
        "nll": {name: negative_log_likelihood(smoothed[name], test.labels) for name in ends},
    }
