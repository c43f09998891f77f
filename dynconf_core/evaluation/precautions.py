"""Checks before an analysis."""

from dynconf_core.arguments import instance, number
from dynconf_core.choosing.guarantee import checked_epsilon_and_delta
from dynconf_core.errors import InputError
from dynconf_core.traces.schema import Traces
from dynconf_core.wording import counted


def check_options(epsilon: float | None, delta: float | None, max_drop: float) -> None:
    """Raise ``InputError`` if only one of epsilon and delta is given, or if a value is out of range."""
    if (epsilon is None) != (delta is None):
        raise InputError(f"epsilon = {epsilon} with delta = {delta}: a guarantee needs both, such as 0.005 and 0.05.")
    if epsilon is not None and delta is not None:
        number("epsilon", epsilon, "give a fraction, such as 0.005", finite=False)
        number("delta", delta, "give a fraction, such as 0.05", finite=False)
        checked_epsilon_and_delta(epsilon, delta)
    if not 0 <= number("max_drop", max_drop, "give a fraction, such as 0.005", finite=False) <= 1:
        raise InputError(f"max_drop = {max_drop}: give the accuracy that may be lost as a fraction from 0 to 1.")


def check_pair(calibration: Traces, test: Traces) -> None:
    """Raise ``InputError`` if the traces differ in T or C, or the calibration traces hold a single sample."""
    for name, given in (("calibration", calibration), ("test", test)):
        instance(name, given, Traces, "give Traces, as Traces.load(PATH) or collect(...) returns them")
    if (calibration.time_steps, calibration.classes) != (test.time_steps, test.classes):
        one, other = (
            f"{counted(traces.time_steps, 'time step')} and {traces.classes} classes" for traces in (calibration, test)
        )
        raise InputError(f"the calibration traces have {one}, the test traces {other}: both must be of one SNN and one T.")
    if calibration.samples < 2:
        raise InputError(
            "the calibration traces hold 1 sample, on which nothing can be chosen: give at least 2, preferably 1 000."
        )
