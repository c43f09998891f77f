"""The panels of one rule on one set of test traces, the same for a setting of a reproduction and for an analysis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate

import numpy as np

from dynconf_core.choosing.entries import ComparisonRow, RuleEntry
from dynconf_core.evaluation.curves import Curves, SampleOverTime
from dynconf_core.evaluation.metrics import Baseline
from dynconf_core.exit.judgement import ExitFigures, OperatingPoint
from dynconf_core.exit.shown import exit_text, points_in_words, threshold_text
from dynconf_core.report.content import Cell, Columns, Figure, Item, Missing, Table
from dynconf_core.report.wording import between, number, percent
from dynconf_core.wording import counted

BASELINES = {
    "full": "T, all time steps",
    "iso_accuracy": "iso-accuracy: the first step as accurate on calibration as T",
    "peak": "peak: the first step with the highest test accuracy",
    "within_0.1_points": "the first step within 0.1 points of T on test",
    "paper": "T of the paper",
}
HOLLOW = "Hollow: loses more on test than it may, beyond its interval."
CHANCE = "Where an SNN is no better than chance at first, its curve begins below the frame."


def columns(rows: Sequence[Mapping[str, Cell]], names: Sequence[str]) -> Columns:
    """Rows by column."""
    return {name: [row.get(name) for row in rows] for name in names}


def rounded(share: float, places: int = 3) -> float:
    """A fraction in per cent, rounded to what can be seen."""
    return round(100 * share, places)


def latency(
    curves: Curves | None,
    accuracy: Sequence[float],
    exiting: OperatingPoint,
    equal: Baseline | None,
    heading: str = "",
    paper: OperatingPoint | None = None,
    steps_at_t: Sequence[float] | None = None,
) -> Figure:
    """Accuracy against latency; without ``curves``, of the rule alone and of fixed steps, each of which costs ``steps_at_t`` on
    average if samples end before T."""
    costs: Sequence[float] = range(1, len(accuracy) + 1) if steps_at_t is None else [round(step, 3) for step in steps_at_t]
    full = f"{costs[-1]:.2f}".removesuffix(".00")
    lines: list[dict[str, Cell]] = [
        {"series": "stopped at a fixed step", "step": step, "accuracy": rounded(share)}
        for step, share in zip(costs, accuracy, strict=True)
    ]
    if curves is not None:
        for name, line in (("with early exit", curves.front), ("oracle, any budget", curves.oracle)):
            lines += (
                {"series": name, "step": round(step, 3), "accuracy": rounded(share)}
                for step, share in zip(line.mean_steps, line.accuracy, strict=True)
            )
    points: list[dict[str, Cell]] = [
        {"series": "chosen rule", "step": round(exiting.mean_steps, 3), "accuracy": rounded(exiting.accuracy)}
    ]
    if equal is not None:
        cost = equal.time_steps if steps_at_t is None else costs[equal.time_steps - 1]
        points.append({"series": "first step as accurate as T", "step": cost, "accuracy": rounded(equal.accuracy)})
    if paper is not None:
        points.append({"series": "the paper", "step": paper.mean_steps, "accuracy": rounded(paper.accuracy)})
    low, high = limits([float(row["accuracy"] or 0) for row in points] + [rounded(accuracy[-1])], [rounded(max(accuracy))])
    names = ("series", "step", "accuracy")
    return Figure(
        "latency" if paper is None else "latency_and_paper",
        f"{percent(exiting.accuracy)} % after {number(exiting.mean_steps)} of {full} steps: "
        f"{points_in_words(accuracy[-1] - exiting.accuracy)}",
        {"lines": columns(lines, names), "points": columns(points, names)},
        {"time_steps": len(accuracy), "low": low, "high": high},
        heading=heading,
    )


def limits(compared: Sequence[float], others: Sequence[float]) -> tuple[float, float]:
    """The ends of an axis of accuracies in per cent, so that what is compared takes a good part of it."""
    span = max(max(compared) - min(compared), 2.0)
    high = min(max([*compared, *others]) + 0.35 * span, 100.5)
    return round(max(min(compared) - 3 * span, 0.0), 2), round(high, 2)


def histogram(exiting: ExitFigures, heading: str = "", what: str = "images") -> Figure:
    """How many images exit at each step."""
    samples = sum(exiting.histogram) or 1
    half = next((step for step, share in enumerate(accumulate(exiting.histogram), 1) if 2 * share >= samples), 1)
    so_far = list(accumulate(exiting.histogram))
    bars: list[dict[str, Cell]] = [
        {
            "step": step,
            "from": step - 0.42,
            "to": step + 0.42,
            "count": images,
            "share": rounded(images / samples, 2),
            "exited": rounded(so_far[step - 1] / samples, 2),
        }
        for step, images in enumerate(exiting.histogram, 1)
    ]
    last = exiting.histogram[-1] / samples
    rest = f"{percent(last, 1)} % take" if last else "none takes"
    return Figure(
        "histogram",
        f"Half of the {what} are done by step {half}; {rest} all {len(exiting.histogram)}",
        {
            "bars": columns(bars, ("step", "from", "to", "count", "share", "exited")),
            "mean": {"step": [round(exiting.mean_steps, 3)], "text": [f"mean {exiting.mean_steps:.2f}"]},
        },
        {"end": len(exiting.histogram) + 0.6},
        heading=heading,
    )


def rules(rows: Sequence[ComparisonRow], time_steps: int, heading: str = "") -> Item:
    """Mean steps of each of the project's measures at each allowed drop; the rows of rivals are in the files."""
    rows = [row for row in rows if not row.rival]
    if not rows:
        return Missing("The rules were not compared at equal accuracy.", heading)
    first = [row for row in rows if row.max_drop == rows[0].max_drop]
    allowed = "With no loss allowed" if not first[0].max_drop else f"With {_drop(first[0].max_drop)} allowed"
    best = min((row for row in first if not _over(row)), key=lambda row: row.test.mean_steps, default=None)
    if best is None:
        told = f"{allowed}, every rule loses more on the test images, beyond its interval"
    else:
        among = " of the rules that keep to it" if any(map(_over, first)) else ""
        steps = f"{number(best.test.mean_steps)}, with {points_in_words(best.test.loss)} on test"
        told = f"{allowed}, {best.measure} needs the fewest steps{among}: {steps}"
    return Figure(
        "rules_steps",
        told,
        {"rules": _compared(rows)},
        {"time_steps": time_steps},
        heading=heading,
        note=HOLLOW if any(map(_over, rows)) else "",
    )


def losses(rows: Sequence[ComparisonRow]) -> Item:
    """What each of the project's measures loses at each allowed drop."""
    rows = [row for row in rows if not row.rival]
    if not rows:
        return Missing("The rules were not compared at equal accuracy.")
    over = sum(map(_over, rows))
    told = (
        f"{over} of {len(rows)} rules lose more than they may, beyond their intervals"
        if over
        else ("No rule loses more on the test images than it may, beyond its interval")
    )
    return Figure(
        "rules_lost",
        told,
        {"rules": _compared(rows)},
        note="Black tick: what the rule was allowed to lose. Left of zero: accuracy gained." + (f" {HOLLOW}" if over else ""),
    )


def _over(row: ComparisonRow) -> bool:
    """Whether a rule loses more on the test samples than it may, beyond its interval."""
    return row.test.loss_interval[0] > row.max_drop


def _compared(rows: Sequence[ComparisonRow]) -> Columns:
    found: list[dict[str, Cell]] = [
        {
            "measure": row.measure,
            "drop": _drop(row.max_drop),
            "allowed": rounded(row.max_drop),
            "threshold": threshold_text(row.threshold, row.threshold_shown),
            "accuracy": rounded(row.test.accuracy),
            "steps": round(row.test.mean_steps, 3),
            "steps_low": round(row.test.mean_steps_interval[0], 3),
            "steps_high": round(row.test.mean_steps_interval[1], 3),
            "steps_range": between(row.test.mean_steps_interval),
            "lost": rounded(row.test.loss),
            "lost_low": rounded(row.test.loss_interval[0]),
            "lost_high": rounded(row.test.loss_interval[1]),
            "lost_range": between(row.test.loss_interval, 100),
            "kept": "no, beyond the interval" if _over(row) else "yes",
        }
        for row in rows
    ]
    return columns(found, tuple(found[0]))


def _drop(share: float) -> str:
    return counted(100 * share, "point", form=".4g")


def images(
    curves: Curves, pictures: Mapping[int, str], names: Sequence[str] = (), heading: str = "", what: str = "image"
) -> Figure:
    """The easiest and hardest images: their answers and confidence over time, and where they exit."""
    samples = [*curves.easiest, *curves.hardest]
    least = min(_finite(score, 0.0) for one in samples for score in one.scores)
    reach = _finite(curves.threshold, max(_finite(score, 0.0) for one in samples for score in one.scores)) - least or 1.0

    def named(label: int) -> str:
        return names[label] if label < len(names) else f"class {label}"

    def row(kind: str, one: SampleOverTime) -> str:
        return f"{kind} · {named(one.label)} · #{one.index}"

    cells: list[dict[str, Cell]] = []
    exits: list[dict[str, Cell]] = []
    shown: list[dict[str, Cell]] = []
    for kind, group in (("easy", curves.easiest), ("hard", curves.hardest)):
        for one in group:
            answer = one.predictions[one.exit_step - 1]
            said = names[answer] if answer < len(names) else f"class {answer}"
            text = f"step {one.exit_step}" if answer == one.label else f"{one.exit_step}: {said}"
            exits.append({"row": row(kind, one), "at": one.exit_step + 0.5, "text": text})
            if one.index in pictures:
                shown.append({"row": row(kind, one), "url": pictures[one.index]})
            for step in range(1, one.exit_step + 1):
                score = one.scores[step - 1]
                right = one.predictions[step - 1] == one.label
                cells.append(
                    {
                        "row": row(kind, one),
                        "step": step,
                        "from": step - 0.5,
                        "to": step + 0.5,
                        "answer": "right answer" if right else "wrong answer",
                        "strength": round(min(max((_finite(score, least) - least) / reach, 0.0), 1.0), 3),
                        "predicted": named(one.predictions[step - 1]),
                        "label": named(one.label),
                        "shown": f"{curves.label} {threshold_text(score, one.shown[step - 1])}",
                    }
                )
    first, last = curves.easiest[0].exit_step, curves.hardest[0].exit_step if curves.hardest else curves.easiest[-1].exit_step
    return Figure(
        "images",
        f"The easiest {what} is answered at step {first}, the hardest at step {last}",
        {
            "cells": columns(cells, tuple(cells[0])),
            "exits": columns(exits, ("row", "at", "text")),
            "pictures": columns(shown, ("row", "url")),
        },
        {"end": 0.5 + 1.36 * curves.time_steps, "time_steps": curves.time_steps},
        heading=heading,
        note="" if pictures else f"Where {what}s are not shown, they are not at hand; #: the place in the test split, from 0.",
    )


def _finite(value: float, otherwise: float) -> float:
    return value if np.isfinite(value) else otherwise


def rule_table(rule: RuleEntry, label: str, name: str = "The exit rule") -> Table:
    """A rule as it was chosen, and its figures."""
    rows = [
        ["rule", exit_text(label or rule.measure, rule.threshold, rule.threshold_shown)],
        ["smoothing of the summed logits z", str(rule.smoothing)],
        *([] if rule.readout is None else [["readout", "z is corrected at each time step before T"]]),
        [
            "on the calibration images",
            f"{percent(rule.calibration.accuracy)} % @ {number(rule.calibration.mean_steps)}, "
            f"{points_in_words(rule.calibration.loss)}",
        ],
    ]
    if rule.cross_fitted is not None:
        unseen = rule.cross_fitted
        rows.append(
            [
                "cross-fitted (each image judged by a rule that did not see it)",
                f"@ {number(unseen.mean_steps)}, {points_in_words(unseen.loss)}, 95 %: "
                f"{between(unseen.loss_interval, 100)} points",
            ]
        )
    if rule.calibrated is not None:
        rows.append(["chosen so that the expected loss is at most", f"{percent(rule.calibrated.expected_loss_at_most)} points"])
    test = rule.test
    rows += [
        ["on the test images", f"{percent(test.accuracy)} % @ {number(test.mean_steps)}, {points_in_words(test.loss)}"],
        [
            "95 % intervals",
            f"accuracy {between(test.accuracy_interval, 100)} %, steps {between(test.mean_steps_interval)}, loss "
            f"{between(test.loss_interval, 100)} points",
        ],
    ]
    return Table(("", ""), rows, title=name, numbers=False, wide=False)


def baselines(found: Sequence[Baseline], mean_steps: float) -> Table:
    """Savings against fixed numbers of steps."""
    rows = [
        [BASELINES.get(one.name, one.name), str(one.time_steps), percent(one.accuracy), percent(one.latency_saving, 1)]
        for one in found
    ]
    return Table(
        ("baseline", "steps", "accuracy (%)", "saved (%)"),
        rows,
        title=f"What {number(mean_steps)} mean steps save depends on the fixed step that they are compared with",
    )
