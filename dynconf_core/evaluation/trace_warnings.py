"""Warnings about traces whose figures may mislead: one sentence each, with the figures and a remedy."""

from __future__ import annotations

import numpy as np

from dynconf_core.evaluation.one_source import one_source
from dynconf_core.exit.exact_tests import share_probability
from dynconf_core.traces.checks import pieces
from dynconf_core.traces.duplicates import Duplicates, duplicates
from dynconf_core.traces.schema import Traces

LEVEL = 0.001
LEAST_DIFFERENCE = 0.02
"""Accuracies of both splits that differ by chance with a probability below ``LEVEL``, and by at least this much, are named."""
LEAST_DEVIATIONS = 0.1
"""The least difference of two sources that is named, in standard deviations: among enough samples any becomes significant."""
SUM_WITHIN = 1e-3


def trace_warnings(calibration: Traces, test: Traces) -> list[str]:
    """Warnings about the traces of both splits."""
    found = []
    both = (("calibration", calibration), ("test", test))
    probable = [name for name, traces in both if holds_probabilities(traces)]
    if probable:
        found.append(
            f"the logits of the {' and '.join(probable)} traces are probabilities (from 0 to 1, with the sum 1 at every step): "
            "save the outputs before the softmax, whose sum over time is what exit rules read."
        )
    counts = [name for name, traces in both if holds_running_counts(traces)]
    if counts:
        found.append(
            f"the logits of the {' and '.join(counts)} traces are whole numbers that never fall over time, as running counts "
            "of spikes are: traces hold the output of each step alone; save the differences, or read them "
            "with --accumulated (accumulated=True)."
        )
    found += _duplicates(duplicates(calibration, test), test)
    for name, traces in both:
        found += _of_one_split(name, traces)
    seen = _seen_in_training(calibration, test)
    if seen is not None:
        return [*found, seen]  # which explains why the splits differ
    return found or _of_two_sources(calibration, test)  # what else was found explains a difference too


def holds_probabilities(traces: Traces) -> bool:
    """Whether every row of the logits (N, T, C) lies within [0, 1] and has the sum 1; rows of zeros and a one are spikes."""
    between = False
    for piece in pieces(traces.logits):
        rows = np.asarray(traces.logits[piece], np.float64)
        if traces.lengths is not None:
            rows = rows[np.arange(traces.time_steps) < traces.lengths[piece, None]][:, None]
        if rows.min() < 0 or rows.max() > 1 or (np.abs(rows.sum(axis=2) - 1.0) > SUM_WITHIN).any():
            return False
        between = between or bool(((rows > 0) & (rows < 1)).any())
    return between


def holds_running_counts(traces: Traces) -> bool:
    """Whether all logits (N, T, C) are whole numbers from 0 that never fall over the steps of a sample, and some rise."""
    rising = False
    for piece in pieces(traces.logits):
        rows = np.asarray(traces.logits[piece], np.float64)
        steps = np.diff(rows, axis=1)
        if traces.lengths is not None:
            steps = steps[np.arange(1, traces.time_steps) < traces.lengths[piece, None]]
        if rows.min() < 0 or (rows != np.round(rows)).any() or steps.min(initial=0) < 0:
            return False
        rising = rising or steps.max(initial=0) > 0
    return rising


def _duplicates(found: Duplicates, test: Traces) -> list[str]:
    if not found.more_than_expected:
        return []
    spoilt = "the rule was chosen on samples that judge it, so its figures are too good"
    if found.compared == "input_hash":
        return [f"{found.shared} of the {test.samples} test samples equal a calibration sample (`input_hash`): {spoilt}."]
    compared = "label, logits and spikes" if found.compared == "spikes" else "label and logits"
    settle = "`input_hash` in both traces" if found.compared == "spikes" else "`spikes` or `input_hash` in both traces"
    return [
        f"{found.shared} of the {test.samples} test samples equal a calibration sample by their {compared}, where "
        f"{found.expected:.3g} would be expected ({found.repeated} of the {found.samples} calibration samples repeat "
        f"another): {spoilt}. {settle} would settle it."
    ]


def _of_one_split(name: str, traces: Traces) -> list[str]:
    found = []
    predictions = traces.predictions()
    correct = predictions == traces.labels[:, None]
    if traces.samples > 1 and bool((predictions == predictions[0, 0]).all()):
        found.append(f"the network predicts class {predictions[0, 0]} for every {name} sample at every step.")
    if not correct.any():
        found.append(f"no prediction of the {name} traces is correct at any step: are labels and logits in the same order?")
    elif correct[:, 0].all():
        found.append(f"every {name} sample is classified correctly at step 1: waiting cannot improve anything.")
    classes = np.unique(traces.labels)
    if len(classes) == 1 and traces.samples > 1:
        found.append(f"all {name} samples are of class {classes[0]}: the figures hold for that class alone.")
    return found


def _of_two_sources(calibration: Traces, test: Traces) -> list[str]:
    if (calibration.time_steps, calibration.classes) != (test.time_steps, test.classes):
        return []
    found = one_source(calibration, test, LEVEL)
    if not found.rejected or abs(found.difference) < LEAST_DEVIATIONS:
        return []
    which = "larger" if found.difference > 0 else "smaller"
    return [
        f"calibration and test samples do not come from one source (permutation test, {100 * LEVEL:g} %): {found.feature} is "
        f"{which} for the test samples, by {abs(found.difference):.2f} standard deviations of its rank. What was chosen on the "
        "calibration samples need not hold: calibrate on samples like those that the rule will meet."
    ]


def _seen_in_training(calibration: Traces, test: Traces) -> str | None:
    """A warning if the network knows the calibration images, as the traces say or as its accuracies do."""
    known, unseen = (traces.correct()[:, -1] for traces in (calibration, test))
    figures = f"{100 * known.mean():.1f} % on the calibration samples, {100 * unseen.mean():.1f} % on the test samples"
    chance = share_probability(int(known.sum()), known.size, int(known.sum() + unseen.sum()), known.size + unseen.size)
    far = known.mean() - unseen.mean() >= LEAST_DIFFERENCE and chance < LEVEL
    consequence = "on unseen images more accuracy may be lost than allowed or guaranteed; calibrate on images it never saw."
    if calibration.trained_on_calibration:
        return f"the network was trained on the calibration images{f' ({figures})' if far else ''}: {consequence}"
    if not far:
        return None
    return (
        f"the accuracy at T is {figures}: either the network was trained on the calibration images, or the splits are not "
        f"drawn alike; {consequence}"
    )
