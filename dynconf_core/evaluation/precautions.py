"""Checks before an analysis, and warnings about traces whose figures may mislead."""

import numpy as np

from dynconf_core.choosing.guarantee import checked_epsilon_and_delta
from dynconf_core.errors import InputError
from dynconf_core.traces.parts import duplicated
from dynconf_core.traces.schema import Traces


def check_options(epsilon: float | None, delta: float | None, max_drop: float) -> None:
    """Raise ``InputError`` if only one of epsilon and delta is given, or if a value is out of range."""
    if (epsilon is None) != (delta is None):
        raise InputError(f"epsilon = {epsilon} with delta = {delta}: a guarantee needs both, such as 0.005 and 0.05.")
    if epsilon is not None and delta is not None:
        checked_epsilon_and_delta(epsilon, delta)
    if not 0 <= max_drop <= 1:
        raise InputError(f"max_drop = {max_drop}: give the accuracy that may be lost as a fraction from 0 to 1.")


def check_pair(calibration: Traces, test: Traces) -> None:
    """Raise ``InputError`` if the traces differ in T or C, or the calibration traces hold a single sample."""
    if (calibration.time_steps, calibration.classes) != (test.time_steps, test.classes):
        raise InputError(
            f"the calibration traces have {calibration.time_steps} time steps and {calibration.classes} classes, the test "
            f"traces {test.time_steps} and {test.classes}: both must be of one SNN and one T."
        )
    if calibration.samples < 2:
        raise InputError(
            "the calibration traces hold 1 sample, on which nothing can be chosen: give at least 2, preferably 1 000."
        )


def warnings_about(calibration: Traces, test: Traces) -> list[str]:
    """Warnings for readers of the figures, one sentence each."""
    found = []
    same = duplicated(calibration, test)
    if same and not _all_alike(test):
        found.append(
            f"{same} of the {test.samples} test samples are also calibration samples: the rule was chosen on samples that "
            "judge it, so its figures are too good."
        )
    for name, traces in (("calibration", calibration), ("test", test)):
        predictions = traces.predictions()
        correct = predictions == traces.labels[:, None]
        constant = traces.samples > 1 and bool((predictions == predictions[0, 0]).all())
        if constant:
            found.append(f"the network predicts class {predictions[0, 0]} for every {name} sample at every step.")
        if not correct.any():
            found.append(f"no prediction of the {name} traces is correct at any step: are labels and logits in the same order?")
        elif correct[:, 0].all():
            found.append(f"every {name} sample is classified correctly at step 1: waiting cannot improve anything.")
        classes = np.unique(traces.labels)
        if len(classes) == 1 and traces.samples > 1:
            found.append(f"all {name} samples are of class {classes[0]}: the figures hold for that class alone.")
    if calibration.trained_on_calibration:
        found.append(
            "the network was trained on the calibration images: on unseen images more accuracy may be lost than allowed."
        )
    return found


def _all_alike(traces: Traces) -> bool:
    """Whether all samples have the same outputs, so that equal outputs do not indicate equal images."""
    return bool((traces.logits[0] == traces.logits[-1]).all()) and bool((traces.logits == traces.logits[0]).all())
