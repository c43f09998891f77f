"""Panels of a setting's network: conversion, reliability over time, robustness, energy, and what each class loses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dynconf_core.evaluation.curves import Curves
from dynconf_core.evaluation.energy import Energy, FullAndExit, MultiplyAccumulates
from dynconf_core.evaluation.record import Bins
from dynconf_core.exit.by_class import ClassFigures
from dynconf_core.exit.robustness import SHARE_OF_SAVING, TOLERANCE, Robustness
from dynconf_core.report.content import Cell, Columns, Figure, Item, Missing, Text
from dynconf_core.report.panels import columns, rounded
from dynconf_core.report.wording import count, number, percent

IDEAL: Columns = {"confidence": [0, 100], "accuracy": [0, 100]}
OVERLAP = 0.1
"""Share by which a cell of a map reaches into the next, so that no gap is seen between the two."""


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
            note=f"On {report['images']} calibration images: the ANN's predictions that stay the same when its activations "
            "up to a layer are replaced by the SNN's mean outputs. Circle: the largest drop.",
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
                "ideal": IDEAL,
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
        "x1": (across[column + 1] + OVERLAP * (across[column + 1] - across[column])).round(4).ravel().tolist(),
        "y0": [float(f"{value:.5g}") for value in up[row].ravel()],
        "y1": [float(f"{value:.5g}") for value in (up[row + 1] * (up[row + 1] / up[row]) ** OVERLAP).ravel()],
        "threshold": np.array(grid.thresholds)[column].round(3).ravel().tolist(),
        "alpha": [float(f"{grid.alphas[place]:.4g}") for place in row.ravel()],
        "lost": (100 * (accuracy_at_full - accuracy)).round(2).ravel().tolist(),
        "steps": steps.round(2).ravel().tolist(),
    }
    useful = _useful(accuracy, steps, accuracy_at_full, curves.mean_length or curves.time_steps)
    data = {"cells": cells, "border": _border(useful, across, up)}
    wide = widths.useful.threshold.width
    told = (
        f"Within the red border, no more than {100 * widths.tolerance:.2g} points are lost and half of the best saving is "
        f"kept: thresholds over a width of {number(wide)}"
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


def _useful(accuracy: Any, steps: Any, full: float, time_steps: float) -> Any:
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
    bars: Columns = {
        "network": ["ANN", "SNN, all T steps", "SNN with early exit"],
        "energy": [float(f"{value / 1e6:.4g}") for value in (found.ann, found.full, found.exit)],
        "text": [f"{_microjoules(value)} µJ" for value in (found.ann, found.full, found.exit)],
    }
    less, saved = found.exit < found.ann, 1 - found.exit / found.full if found.full else 0.0
    place = "below" if less else "still above"
    told = f"The exit saves {percent(saved, 0)} % of the SNN's energy, which is then {place} the ANN's"
    spiking = f" {spikes.exit:,.0f} instead of {spikes.full:,.0f} spikes a sample." if spikes is not None else ""
    return [
        Figure("energy", told, {"bars": bars}),
        Text(
            (
                f"An estimate: {found.picojoules_per_mac:g} pJ a multiply-accumulate and {found.picojoules_per_ac:g} pJ an "
                f"accumulation ({found.source}); memory, the updates of neurons and idle hardware are left out.",
                f"Multiply-accumulates: {counts.ann:,.0f} in the ANN, {counts.once:,.0f} once in the SNN and "
                f"{counts.every_step:,.0f} at every step. Synaptic operations: {operations.full:,.0f} up to T, "
                f"{operations.exit:,.0f} up to the exit.{spiking}",
            )
        ),
        Text((f"energy = {found.formula}",), code=True),
    ]


def _microjoules(picojoules: float) -> str:
    value = picojoules / 1e6
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def by_class(found: Sequence[ClassFigures], names: Sequence[str]) -> list[Item]:
    """What each class loses."""
    if not found:
        return []
    worst = max(found, key=lambda one: one.loss)

    def named(label: int) -> str:
        return names[label] if label < len(names) else str(label)

    told = (
        f"Class {named(worst.label)} loses most: {percent(worst.loss)} points, {worst.lost} of its "
        f"{count(worst.samples, 'image')}"
        if worst.loss > 0
        else "No class loses accuracy by the exit"
    )
    rows: list[dict[str, Cell]] = [
        {
            "name": named(one.label),
            "samples": one.samples,
            "lost": rounded(one.loss),
            "steps": round(one.mean_steps, 2),
        }
        for one in found
    ]
    data: Columns = columns(rows, ("name", "samples", "lost", "steps"))
    return [Figure("classes", told, {"classes": data}, note="Below zero: the class gains accuracy.")]
