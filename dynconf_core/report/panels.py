"""The panels of one rule on one set of test traces, the same for a setting of a reproduction and for an analysis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from dynconf_core.choosing.entries import ComparisonRow, RuleEntry
from dynconf_core.evaluation.curves import Curves, SampleOverTime
from dynconf_core.evaluation.energy import Energy, FullAndExit, MultiplyAccumulates
from dynconf_core.evaluation.metrics import Baseline
from dynconf_core.evaluation.record import Bins
from dynconf_core.exit.judgement import ExitFigures, OperatingPoint
from dynconf_core.exit.robustness import SHARE_OF_SAVING, TOLERANCE, Robustness
from dynconf_core.report.content import Cell, Columns, Figure, Item, Missing, Table, Text
from dynconf_core.report.wording import (
    between,
    confidence,
    lost,
    number,
    percent,
    smoothing_text,
)

BASELINES = {
    "full": "T, all time steps",
    "iso_accuracy": "iso-accuracy: the first step as accurate on calibration as T",
    "peak": "peak: the first step with the highest test accuracy",
    "within_0.1_points": "the first step within 0.1 points of T on test",
    "paper": "T of the paper",
}
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
) -> Figure:
    """Accuracy against latency; without ``curves``, of the rule alone and of fixed steps."""
    lines: list[dict[str, Cell]] = [
        {"series": "stopped at a fixed step", "step": step, "accuracy": rounded(share)}
        for step, share in enumerate(accuracy, 1)
    ]
    if curves is not None:
        for name, line in (("with early exit", curves.front), ("oracle", curves.oracle)):
            lines += (
                {"series": name, "step": round(step, 3), "accuracy": rounded(share)}
                for step, share in zip(line.mean_steps, line.accuracy, strict=True)
            )
    points: list[dict[str, Cell]] = [
        {"series": "chosen rule", "step": round(exiting.mean_steps, 3), "accuracy": rounded(exiting.accuracy)}
    ]
    if equal is not None:
        points.append({"series": "first step as accurate as T", "step": equal.time_steps, "accuracy": rounded(equal.accuracy)})
    if paper is not None:
        points.append({"series": "the paper", "step": paper.mean_steps, "accuracy": rounded(paper.accuracy)})
    low, high = limits([float(row["accuracy"] or 0) for row in points] + [rounded(accuracy[-1])], [rounded(max(accuracy))])
    names = ("series", "step", "accuracy")
    return Figure(
        "latency" if paper is None else "latency_and_paper",
        f"{percent(exiting.accuracy)} % after {number(exiting.mean_steps)} of {len(accuracy)} steps: {lost(accuracy[-1] - exiting.accuracy)}",
        {"lines": columns(lines, names), "points": columns(points, names)},
        {"time_steps": len(accuracy), "low": low, "high": high},
        heading=heading,
    )


def limits(compared: Sequence[float], others: Sequence[float]) -> tuple[float, float]:
    """The ends of an axis of accuracies in per cent, so that what is compared takes a good part of it."""
    span = max(max(compared) - min(compared), 2.0)
    high = min(max([*compared, *others]) + 0.35 * span, 100.5)
    return round(max(min(compared) - 3 * span, 0.0), 2), round(high, 2)


def histogram(exiting: ExitFigures, heading: str = "") -> Figure:
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
        f"Half of the images are done by step {half}; {rest} all {len(exiting.histogram)}",
        {
            "bars": columns(bars, ("step", "from", "to", "count", "share", "exited")),
            "mean": {"step": [round(exiting.mean_steps, 3)], "text": [f"mean {exiting.mean_steps:.2f}"]},
        },
        {"end": len(exiting.histogram) + 0.6},
        heading=heading,
    )


def rules(rows: Sequence[ComparisonRow], time_steps: int, heading: str = "") -> Item:
    """Mean steps of each measure at each allowed drop."""
    if not rows:
        return Missing("The rules were not compared at equal accuracy.", heading)
    best = min((row for row in rows if row.max_drop == rows[0].max_drop), key=lambda row: row.test.mean_steps)
    return Figure(
        "rules_steps",
        f"{'With no loss allowed' if not best.max_drop else f'With {_drop(best.max_drop)} allowed'}, {best.measure} needs the fewest "
        f"steps: {number(best.test.mean_steps)}",
        {"rules": _compared(rows)},
        {"time_steps": time_steps},
        heading=heading,
    )


def losses(rows: Sequence[ComparisonRow]) -> Item:
    """What each measure loses at each allowed drop."""
    if not rows:
        return Missing("The rules were not compared at equal accuracy.")
    over = sum(row.test.loss_interval[0] > row.max_drop for row in rows)
    told = (
        f"{over} of {len(rows)} rules lose more than they may, beyond their intervals"
        if over
        else ("No rule loses more on the test images than it may, beyond its interval")
    )
    return Figure(
        "rules_lost",
        told,
        {"rules": _compared(rows)},
        note="Black tick: what the rule was allowed to lose. Left of zero: accuracy gained.",
    )


def _compared(rows: Sequence[ComparisonRow]) -> Columns:
    found: list[dict[str, Cell]] = [
        {
            "measure": row.measure,
            "drop": _drop(row.max_drop),
            "allowed": rounded(row.max_drop),
            "threshold": confidence(row.threshold_shown),
            "accuracy": rounded(row.test.accuracy),
            "steps": round(row.test.mean_steps, 3),
            "steps_low": round(row.test.mean_steps_interval[0], 3),
            "steps_high": round(row.test.mean_steps_interval[1], 3),
            "steps_range": between(row.test.mean_steps_interval),
            "lost": rounded(row.test.loss),
            "lost_low": rounded(row.test.loss_interval[0]),
            "lost_high": rounded(row.test.loss_interval[1]),
            "lost_range": between(row.test.loss_interval, 100),
        }
        for row in rows
    ]
    return columns(found, tuple(found[0]))


def _drop(share: float) -> str:
    points = f"{100 * share:.4g}"
    return f"{points} point{'s'[: points != '1']}"


def images(curves: Curves, pictures: Mapping[int, str], names: Sequence[str] = (), heading: str = "") -> Figure:
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
            text = f"step {one.exit_step}" + ("" if answer == one.label else f", says {named(answer)}")
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
                        "shown": f"{curves.label} {confidence(one.shown[step - 1])}",
                    }
                )
    first, last = curves.easiest[0].exit_step, curves.hardest[0].exit_step if curves.hardest else curves.easiest[-1].exit_step
    return Figure(
        "images",
        f"The easiest image is answered at step {first}, the hardest at step {last}",
        {
            "cells": columns(cells, tuple(cells[0])),
            "exits": columns(exits, ("row", "at", "text")),
            "pictures": columns(shown, ("row", "url")),
        },
        {"end": 0.5 + 1.36 * curves.time_steps, "time_steps": curves.time_steps},
        heading=heading,
        note="" if pictures else "The images themselves are not at hand; their places in the test split stand at the left.",
    )


def _finite(value: float, otherwise: float) -> float:
    return value if np.isfinite(value) else otherwise


def rule_table(rule: RuleEntry, label: str, certified: Mapping[str, str] | None = None) -> Table:
    """The chosen rule and its figures."""
    rows = [
        ["exits once", f"{label or rule.measure} is above {confidence(rule.threshold_shown)}"],
        ["smoothing of the summed logits z", smoothing_text(rule.smoothing)],
        [
            "on the calibration images",
            f"{percent(rule.calibration.accuracy)} % @ {number(rule.calibration.mean_steps)}, {lost(rule.calibration.loss)}",
        ],
    ]
    if rule.cross_fitted is not None:
        unseen = rule.cross_fitted
        rows.append(
            [
                "cross-fitted (each image judged by a rule that did not see it)",
                f"@ {number(unseen.mean_steps)}, {lost(unseen.loss)}, 95 %: {between(unseen.loss_interval, 100)} points",
            ]
        )
    if rule.calibrated is not None:
        rows.append(["chosen so that the expected loss is at most", f"{percent(rule.calibrated.expected_loss_at_most)} points"])
    test = rule.test
    rows += [
        ["on the test images", f"{percent(test.accuracy)} % @ {number(test.mean_steps)}, {lost(test.loss)}"],
        [
            "95 % intervals",
            f"accuracy {between(test.accuracy_interval, 100)} %, steps {between(test.mean_steps_interval)}, loss {between(test.loss_interval, 100)} points",
        ],
    ]
    rows += [[name, text] for name, text in (certified or {}).items()]
    return Table(("", ""), rows, title="The exit rule", numbers=False, wide=False)


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


def conversion(report: Mapping[str, Any] | None, where: str) -> list[Item]:
    """Conversion by layer."""
    if report is None:
        return [Missing(f"The conversion by layer cannot be shown: {where}.")]
    layers, marks = report["layers"], report["marks"]
    worst = next((place for place, layer in enumerate(layers) if layer["name"] == report["worst_layer"]), None)
    rows: list[dict[str, Cell]] = [
        {
            "depth": depth,
            "layer": str(layer["name"]),
            "agreement": rounded(layer["agreement"], 2),
            "rate": round(layer["rate"], 4),
        }
        for depth, layer in enumerate(layers, 1)
    ]
    errors: list[dict[str, Cell]] = [
        {"depth": depth, "layer": str(layer["name"]), "after": f"step {mark}", "error": rounded(error, 2)}
        for place, mark in enumerate(marks)
        for depth, layer in enumerate(layers, 1)
        for error in [layer["error"][place]]
    ]
    names = ("depth", "layer", "agreement", "rate")
    told = f"The conversion changes {percent(1 - report['agreement'], 1)} % of the answers at T" + (
        f"; most of them in {report['worst_layer']}" if worst is not None else ""
    )
    return [
        Figure(
            "layers_agreement",
            told,
            {"layers": columns(rows, names), "worst": columns(rows[worst : worst + 1] if worst is not None else [], names)},
            note=f"On {report['images']} calibration images: the ANN's predictions that stay the same when its activations up to a "
            "layer are replaced by the SNN's mean outputs. Circle: the largest drop.",
        ),
        Figure(
            "layers_error",
            f"The layers come closer to the ANN the longer the SNN runs: errors after {', '.join(map(str, marks))} steps",
            {"errors": columns(errors, ("depth", "layer", "after", "error"))},
        ),
    ]


def reliability(
    ece_at_t: Sequence[float], nll_at_t: Sequence[float], ece_at_exit: float, at_full: Bins, at_exit: Bins, time_steps: int
) -> list[Item]:
    """Calibration error over time, and the reliability diagram."""
    errors: list[dict[str, Cell]] = [
        {"step": step, "ece": rounded(ece), "nll": round(nll, 4)}
        for step, (ece, nll) in enumerate(zip(ece_at_t, nll_at_t, strict=True), 1)
    ]
    bins: list[dict[str, Cell]] = [
        {"at": name, "confidence": rounded(mean), "accuracy": rounded(right), "count": samples}
        for name, found in (("at T", at_full), ("at the exit", at_exit))
        for samples, mean, right in zip(found.counts, found.confidence, found.accuracy, strict=True)
        if mean is not None and right is not None
    ]
    return [
        Figure(
            "calibration_error",
            f"At the exit, confidence and accuracy differ by {percent(ece_at_exit, 1)} points on average",
            {
                "errors": columns(errors, ("step", "ece", "nll")),
                "exit": {"ece": [rounded(ece_at_exit)], "text": [f"at the exit: {percent(ece_at_exit, 1)} %"]},
            },
            {"time_steps": time_steps},
        ),
        Figure(
            "reliability",
            "Confidence beside the share of right answers: on the dashed line, both agree",
            {
                "bins": columns(bins, ("at", "confidence", "accuracy", "count")),
                "ideal": {"confidence": [0, 100], "accuracy": [0, 100]},
            },
            note="The larger the mark, the more images.",
        ),
    ]


def robustness(curves: Curves, widths: Robustness, accuracy_at_full: float) -> list[Item]:
    """The map of accuracy lost and mean steps over threshold and alpha."""
    grid = curves.robustness
    accuracy, steps = np.array(grid.accuracy), np.array(grid.mean_steps)
    across, up = _edges(np.array(grid.thresholds)), 10 ** _edges(np.log10(grid.alphas))
    row, column = np.indices(accuracy.shape)
    cells = {
        "x0": across[column].round(4).ravel().tolist(),
        "x1": across[column + 1].round(4).ravel().tolist(),
        "y0": [float(f"{value:.5g}") for value in up[row].ravel()],
        "y1": [float(f"{value:.5g}") for value in up[row + 1].ravel()],
        "threshold": np.array(grid.thresholds)[column].round(3).ravel().tolist(),
        "alpha": [float(f"{grid.alphas[place]:.4g}") for place in row.ravel()],
        "lost": (100 * (accuracy_at_full - accuracy)).round(2).ravel().tolist(),
        "steps": steps.round(2).ravel().tolist(),
    }
    useful = _useful(accuracy, steps, accuracy_at_full, curves.time_steps)
    data = {"cells": cells, "border": _border(useful, across, up)}
    wide = widths.useful.threshold.width
    told = (
        f"Within the red border, no more than {100 * widths.tolerance:.2g} points are lost and half of the best saving is kept: "
        f"thresholds over a width of {number(wide)}"
        if wide
        else "No threshold on this map both keeps the accuracy and half of the best saving"
    )
    return [
        Figure("robustness_lost", told, data, note="The rule max softmax on the test images, smoothing by the sum."),
        Figure(
            "robustness_steps",
            "The lower the threshold and the smaller alpha, the earlier the exit",
            data,
            {"time_steps": curves.time_steps},
        ),
    ]


def _useful(accuracy: Any, steps: Any, full: float, time_steps: int) -> Any:
    within = accuracy >= full - TOLERANCE - 1e-6
    saved = np.where(within, time_steps - steps, 0.0)
    return within & (saved >= SHARE_OF_SAVING * saved.max()) & (saved > 0)


def _border(region: Any, across: Any, up: Any) -> Columns:
    """The border of a region of cells, along their edges."""
    padded, found = np.pad(region, 1), []
    for row, column in np.argwhere(padded[1:-1, 1:] != padded[1:-1, :-1]):
        found.append((across[column], up[row], across[column], up[row + 1]))
    for row, column in np.argwhere(padded[1:, 1:-1] != padded[:-1, 1:-1]):
        found.append((across[column], up[row], across[column + 1], up[row]))
    ends = [[float(f"{value:.5g}") for value in one] for one in found]
    return {name: [one[place] for one in ends] for place, name in enumerate(("x0", "y0", "x1", "y1"))}


def _edges(centres: Any) -> Any:
    """The edges ``(n + 1,)`` of cells around ``centres (n,)``."""
    middles = (centres[1:] + centres[:-1]) / 2
    return np.concatenate(([2 * centres[0] - middles[0]], middles, [2 * centres[-1] - middles[-1]]))


def energy(
    found: Energy | None, counts: MultiplyAccumulates | None, operations: FullAndExit | None, spikes: FullAndExit | None
) -> list[Item]:
    """Estimated energy with its formula."""
    if found is None or counts is None or operations is None:
        return [
            Missing("The energy cannot be estimated: the traces count neither synaptic operations nor multiply-accumulates.")
        ]
    bars = {
        "network": ["ANN", "SNN, all T steps", "SNN with early exit"],
        "energy": [float(f"{value / 1e6:.4g}") for value in (found.ann, found.full, found.exit)],
        "text": [f"{value / 1e6:.3g} µJ" for value in (found.ann, found.full, found.exit)],
    }
    less, saved = found.exit < found.ann, 1 - found.exit / found.full if found.full else 0.0
    told = f"The exit saves {percent(saved, 0)} % of the SNN's energy, which is then {'below' if less else 'still above'} the ANN's"
    spiking = f" {spikes.exit:,.0f} instead of {spikes.full:,.0f} spikes a sample." if spikes is not None else ""
    return [
        Figure("energy", told, {"bars": bars}),
        Text(
            (
                f"An estimate: {found.picojoules_per_mac:g} pJ a multiply-accumulate and {found.picojoules_per_ac:g} pJ an accumulation "
                f"({found.source}); memory, the updates of neurons and idle hardware are left out.",
                f"Multiply-accumulates: {counts.ann:,.0f} in the ANN, {counts.once:,.0f} once in the SNN and {counts.every_step:,.0f} at every step. "
                f"Synaptic operations: {operations.full:,.0f} up to T, {operations.exit:,.0f} up to the exit.{spiking}",
            )
        ),
        Text((f"energy = {found.formula}",), code=True),
    ]
