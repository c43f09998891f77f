"""Figures: accuracy against latency (Fig. 1 of Li, Jones and Furber, ICCV 2023) and the exit histogram.

Each legend entry carries its numbers, and every mark differs in shape as well as in colour.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dynconf_core.exit.front import Front
from dynconf_core.exit.judgement import OperatingPoint
from dynconf_core.figures.canvas import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PURPLE,
    VERMILLION,
    accuracy_limits,
    at_steps,
    canvas,
    label,
    legend_below,
    percent,
    percent_axis,
    thinned,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Label, marker, colour and size of each oracle; another one gets a default style and its own name.
ORACLE_STYLES = {
    "first_correct": ("first correct", "*", GREEN, 15.0),
    "stays_correct": ("stays correct", "D", PURPLE, 8.5),
    "aet": ("AET", "P", ORANGE, 10.0),
}


def accuracy_against_latency(
    accuracy_at_t: Sequence[float],
    front: Front,
    oracles: Mapping[str, OperatingPoint],
    chosen: OperatingPoint,
    title: str,
    subtitle: str = "",
    ann_accuracy: float | None = None,
    best: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None,
    steps_at_t: Sequence[float] | None = None,
) -> Figure:
    """Accuracy against mean latency: every fixed t, every threshold, the oracles and the chosen point.

    The accuracy axis starts slightly below the points compared, not at 0.

    Args:
        accuracy_at_t: accuracies a_1 .. a_T on the test traces, fractions: the static curve.
        front: the operating points of the chosen score on the test traces: the dynamic curve. It shows the result of every
            threshold; the chosen one was selected on the calibration traces.
        oracles: operating points by name; oracles that coincide share one mark.
        chosen: the operating point of the chosen rule on the test traces.
        title: the name of the setting.
        subtitle: the profile and what the data stand in for.
        ann_accuracy: drawn as a horizontal line if given.
        best: (mean steps, accuracy) that no exit rule can exceed, see ``oracle_curve``; drawn if given.
        steps_at_t: the mean steps that a fixed t costs, if samples end before T; None: t.
    """
    figure, axes = canvas(title, subtitle)
    static = np.asarray(accuracy_at_t, dtype=np.float64)
    steps = np.arange(1, len(static) + 1) if steps_at_t is None else np.asarray(steps_at_t)
    time_steps, full = len(static), steps[-1]

    if ann_accuracy is not None:
        axes.axhline(
            ann_accuracy,
            color=GREY,
            linewidth=1.2,
            linestyle=(0, (5, 3)),
            label=f"ANN: {percent(ann_accuracy)}",
            zorder=1,
        )
    axes.plot(
        steps,
        static,
        color=BLUE,
        linewidth=1.6,
        marker="o",
        markersize=4.0 if time_steps <= 40 else 2.5,
        label=f"SNN, fixed steps: {percent(static[-1])} @ {time_steps if steps_at_t is None else f'{full:.2f}'}",
        zorder=2,
    )
    axes.plot(
        *thinned(front),
        color=VERMILLION,
        linewidth=2.2,
        marker="o" if len(front) == 1 else None,
        markersize=4.0,
        label="SNN, dynamic: every threshold",
        zorder=3,
    )
    if best is not None:
        axes.plot(*best, color=GREEN, linewidth=1.4, linestyle=(0, (1.5, 1.5)), label="Oracle, any budget", zorder=1)
    for rank, (name, style, oracle) in enumerate(_merged(oracles)):
        _, marker, colour, size = style
        axes.plot(
            oracle.mean_steps,
            oracle.accuracy,
            linestyle="none",
            marker=marker,
            markersize=size,
            color=colour,
            markeredgecolor="white",
            markeredgewidth=0.8,
            clip_on=False,
            label=f"Oracle, {name}: {at_steps(oracle)}",
            zorder=4 - 0.1 * rank,
        )
    saving = 1.0 - chosen.mean_steps / full
    axes.plot(
        chosen.mean_steps,
        chosen.accuracy,
        linestyle="none",
        marker="o",
        markersize=10.5,
        markerfacecolor="none",
        markeredgecolor=INK,
        markeredgewidth=2.2,
        clip_on=False,
        label=f"Chosen: {at_steps(chosen)}, {saving * 100:.0f} % fewer steps",
        zorder=5,
    )

    compared = [static[-1], chosen.accuracy, *(oracle.accuracy for oracle in oracles.values())]
    if ann_accuracy is not None:
        compared.append(ann_accuracy)
    lowest = min(float(static.min()), float(front.accuracy.min()), min(compared))
    highest = max(float(static.max()), float(front.accuracy.max()), max(compared))
    axes.set_ylim(*accuracy_limits(lowest, min(compared), highest))
    percent_axis(axes)
    axes.set_xlim(0, full * 1.02)
    label(axes, "Mean latency (time steps)", "Test accuracy")
    legend_below(figure, axes)
    return figure


def exit_histogram(
    histogram: Sequence[int],
    mean_steps: float,
    title: str,
    subtitle: str = "",
    split: str = "test",
    mean_length: float | None = None,
) -> Figure:
    """The share of samples that exit at each step; samples that were never confident enough exit at T, in grey.

    Args:
        histogram: n_1 .. n_T, the number of samples that exit at each step.
        mean_steps: the mean exit step.
        title: the name of the setting.
        subtitle: the profile and what the data stand in for.
        split: the name of the split, for the axis.
        mean_length: the mean number of steps without exit, if samples end before T.
    """
    figure, axes = canvas(title, subtitle)
    counts = np.asarray(histogram, dtype=np.float64)
    time_steps = len(counts)
    shares = counts / max(counts.sum(), 1.0)
    steps = np.arange(1, time_steps + 1)
    axes.bar(steps[:-1], shares[:-1], width=0.84, color=BLUE, label="confident", zorder=2)
    axes.bar(
        steps[-1:],
        shares[-1:],
        width=0.84,
        color="#A6A6A6",
        hatch="///",
        edgecolor="white",
        linewidth=0.0,
        label=f"at T = {time_steps}, never confident before: {percent(shares[-1])}",
        zorder=2,
    )
    axes.axvline(
        mean_steps,
        color=VERMILLION,
        linewidth=2.0,
        linestyle=(0, (5, 2)),
        label=f"mean: {mean_steps:.2f} steps, {(1 - mean_steps / (mean_length or time_steps)) * 100:.0f} % fewer",
        zorder=3,
    )
    axes.set_xlim(0.4, time_steps + 0.6)
    axes.set_ylim(0, max(float(shares.max()), 0.01) * 1.08)
    percent_axis(axes)
    label(axes, "Exit step", f"Share of the {split} samples")
    legend_below(figure, axes)
    return figure


def _merged(
    oracles: Mapping[str, OperatingPoint],
) -> list[tuple[str, tuple[str, str, str, float], OperatingPoint]]:
    """Oracles as (name, style, point); oracles at the same point are merged under a joint name and the first one's style."""
    merged: dict[tuple[float, float], tuple[str, tuple[str, str, str, float], OperatingPoint]] = {}
    for key, oracle in oracles.items():
        style = ORACLE_STYLES.get(key, (key.replace("_", " "), "X", INK, 9.0))
        point = (round(oracle.accuracy, 9), round(oracle.mean_steps, 9))
        if point in merged:
            name, first_style, first = merged[point]
            merged[point] = (f"{name} = {style[0]}", first_style, first)
        else:
            merged[point] = (style[0], style, oracle)
    return list(merged.values())
