"""Checks before an analysis."""

from dynconf_core.choosing.guarantee import checked_epsilon_and_delta
from dynconf_core.errors import InputError
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
