"""Exit rules at equal accuracy: every measure with its threshold chosen on calibration for the same allowed drop."""

from collections.abc import Sequence
from typing import Any

from dynconf_core.choosing.candidates import Candidate, calibration_scores
from dynconf_core.choosing.contest import Contest, figures_of_exit
from dynconf_core.choosing.cross_fitting import FOLDS, CrossFitted, cross_fitted_choice
from dynconf_core.exit.rule import Rule
from dynconf_core.traces.schema import Traces

DROPS = (0.0, 0.001, 0.005, 0.01)


def choose(found: Sequence[Candidate], calibration: Traces, max_drop: float, seed: int) -> tuple[Rule, CrossFitted]:
    """The rule among ``found`` with the fewest mean steps at an expected loss of at most ``max_drop``, and its record."""
    folds = min(FOLDS, calibration.samples)
    choice = cross_fitted_choice(calibration_scores(found, calibration), calibration.correct(), max_drop, folds, seed)
    return found[choice.index].rule(choice.threshold), choice


def judged(rule: Rule, traces: Traces, seed: int = 0) -> dict[str, Any]:
    """A rule on traces that did not choose it: ``accuracy``, ``mean_steps``, ``loss`` against T, with 95 % intervals."""
    return figures_of_exit(traces.correct(), rule.exit_steps(traces), seed)


def compare(
    found: Sequence[Candidate], calibration: Traces, test: Traces, seed: int = 0, drops: Sequence[float] = DROPS
) -> list[dict[str, Any]]:
    """Every measure at every allowed drop.

    Args:
        found: the candidates for the calibration traces.
        calibration: chooses smoothing and threshold, cross-fitted.
        test: judges.
        seed: of folds and bootstrap.
        drops: allowed, as fractions.

    Returns:
        a list of ``{"name", "max_drop", "measure", "smoothing", "threshold", "threshold_shown", "calibration", "test"}``, by
        drop and measure; JSON holds it.
    """
    return compared(Contest(found, calibration, test, seed), drops)


def compared(contest: Contest, drops: Sequence[float] = DROPS) -> list[dict[str, Any]]:
    """The same of a contest that may have chosen already."""
    rows = []
    for drop in drops:
        for measure in contest.measures:
            chosen = contest.choose(drop, measure)
            entry = {key: value for key, value in chosen.rule.to_json().items() if key != "parameters"}
            record = {**chosen.choice.calibration, "cross_fitted": chosen.choice.cross_fitted}
            judgement = contest.judged(chosen.index, chosen.rule.threshold)
            name = f"{measure}_drop_{100 * drop:g}"
            rows.append({"name": name, "max_drop": drop, **entry, "calibration": record, "test": judgement})
    return rows


def comparison_lines(rows: Sequence[dict[str, Any]], time_steps: int) -> list[str]:
    """The comparison as lines of text: a line a measure, a column an allowed drop; mean steps, and points lost, on test."""
    if not rows:
        return []
    drops = list(dict.fromkeys(row["max_drop"] for row in rows))
    lines = ["rule".ljust(12) + "".join(_allowed(drop).rjust(16) for drop in drops)]
    for measure in dict.fromkeys(row["measure"] for row in rows):
        cells = []
        for drop in drops:
            test = next(row["test"] for row in rows if row["measure"] == measure and row["max_drop"] == drop)
            cells.append(f"{test['mean_steps']:.2f} ({points(test['loss'])})".rjust(16))
        lines.append(measure.ljust(12) + "".join(cells))
    return [*lines, f"Mean steps of {time_steps} on the test traces (points of accuracy lost against all steps)."]


def interval_lines(rows: Sequence[dict[str, Any]], time_steps: int) -> list[str]:
    """The comparison at length: a line a measure and allowed drop; test accuracy and mean steps, each with its interval."""
    lines = []
    for drop in dict.fromkeys(row["max_drop"] for row in rows):
        heading = f"{'accuracy, 95 %':>26}{f'mean steps of {time_steps}, 95 %':>28}{'lost':>8}"
        lines.append(_allowed(drop).ljust(16) + heading)
        for row in rows:
            if row["max_drop"] != drop:
                continue
            test = row["test"]
            accuracy = ranged(100 * test["accuracy"], [100 * end for end in test["accuracy_interval"]])
            steps = ranged(test["mean_steps"], test["mean_steps_interval"])
            lines.append(f"  {row['measure']:<14}{accuracy:>26}{steps:>28}{points(test['loss']):>8}")
    return [*lines, "On the test traces; lost: points of accuracy against all steps. Calibration chose every threshold."]


def ranged(value: float, interval: Sequence[float]) -> str:
    """A figure with its interval: 86.65 (85.97 to 87.31)."""
    return f"{value:.2f} ({interval[0]:.2f} to {interval[1]:.2f})"


def points(loss: float) -> str:
    """A loss of accuracy in points, signed; nothing lost has no sign."""
    shown = f"{100 * loss:+.2f}"
    return "0.00" if float(shown) == 0 else shown


def _allowed(drop: float) -> str:
    return f"drop {100 * drop:g} point{'' if drop == 0.01 else 's'}"
