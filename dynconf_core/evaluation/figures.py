"""Figures: accuracy against latency (Fig. 1 of Li, Jones and Furber, ICCV 2023) and the exit histogram.

Drawn with matplotlib's objects alone, no pyplot and no global style, so that threads may draw at once;
colours are those of Okabe and Ito, told apart by colour-blind readers, and every mark differs in shape too.
Each legend entry carries its numbers, and the legend stands below the axes, where it can hide nothing. A
subtitle says what was run (the profile, what the data stand in for): a figure out of its place still tells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dynconf_core.exit.front import Front

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, VERMILLION, GREEN, PURPLE, ORANGE = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00"
INK, GREY, PALE = "#222222", "#6B6B6B", "#D9D9D9"
# How each upper bound is named and marked; one not named here gets the last style and its own name.
BOUND_STYLES = {
    "first_correct": ("first correct", "*", GREEN, 15.0),
    "stays_correct": ("stays correct", "D", PURPLE, 8.5),
    "aet": ("AET", "P", ORANGE, 10.0),
}
INCHES = (7.2, 5.2)
DPI = 200


def accuracy_against_latency(
    accuracy_at_t: Sequence[float],
    front: Front,
    bounds: Mapping[str, Mapping[str, float]],
    chosen: Mapping[str, float],
    title: str,
    subtitle: str = "",
    ann_accuracy: float | None = None,
) -> Figure:
    """Accuracy against mean latency: every fixed t, every threshold, the bounds and the chosen point.

    The accuracy axis starts a little below what is compared, and not at 0; its ticks say where.

    Args:
        accuracy_at_t: a_1 .. a_T on the test traces, fractions: the static curve.
        front: the operating points of the chosen score on the test traces (`front_of`): the dynamic curve. It
            shows what each threshold would have given; the chosen one was picked on the calibration traces.
        bounds: named {"accuracy", "mean_steps"}; bounds that coincide share one mark.
        chosen: {"accuracy", "mean_steps"} of the exit on the test traces.
        title: names the setting.
        subtitle: names the profile and what the data stand in for.
        ann_accuracy: drawn as a level where given.
    """
    figure, axes = _canvas(title, subtitle)
    static = np.asarray(accuracy_at_t, dtype=np.float64)
    time_steps = len(static)
    steps = np.arange(1, time_steps + 1)

    if ann_accuracy is not None:
        axes.axhline(
            ann_accuracy,
            color=GREY,
            linewidth=1.2,
            linestyle=(0, (5, 3)),
            label=f"ANN: {_percent(ann_accuracy)}",
            zorder=1,
        )
    axes.plot(
        steps,
        static,
        color=BLUE,
        linewidth=1.6,
        marker="o",
        markersize=4.0 if time_steps <= 40 else 2.5,
        label=f"SNN, fixed steps: {_percent(static[-1])} @ {time_steps}",
        zorder=2,
    )
    axes.plot(
        front.mean_steps,
        front.accuracy,
        color=VERMILLION,
        linewidth=2.2,
        marker="o" if len(front) == 1 else None,
        markersize=4.0,
        label="SNN, dynamic: every threshold",
        zorder=3,
    )
    for rank, (name, style, bound) in enumerate(_merged(bounds)):
        _, marker, colour, size = style
        axes.plot(
            bound["mean_steps"],
            bound["accuracy"],
            linestyle="none",
            marker=marker,
            markersize=size,
            color=colour,
            markeredgecolor="white",
            markeredgewidth=0.8,
            clip_on=False,
            label=f"Bound, {name}: {_point(bound)}",
            zorder=4 - 0.1 * rank,
        )
    saving = 1.0 - chosen["mean_steps"] / time_steps
    axes.plot(
        chosen["mean_steps"],
        chosen["accuracy"],
        linestyle="none",
        marker="o",
        markersize=10.5,
        markerfacecolor="none",
        markeredgecolor=INK,
        markeredgewidth=2.2,
        clip_on=False,
        label=f"Chosen: {_point(chosen)}, {saving * 100:.0f} % fewer steps",
        zorder=5,
    )

    compared = [static[-1], chosen["accuracy"], *(bound["accuracy"] for bound in bounds.values())]
    if ann_accuracy is not None:
        compared.append(ann_accuracy)
    lowest = min(float(static.min()), float(front.accuracy.min()), min(compared))
    highest = max(float(static.max()), float(front.accuracy.max()), max(compared))
    axes.set_ylim(*_accuracy_limits(lowest, min(compared), highest))
    _percent_axis(axes)
    axes.set_xlim(0, time_steps * 1.02)
    axes.set_xlabel("Mean latency (time steps)", color=INK, fontsize=10.5)
    axes.set_ylabel("Test accuracy", color=INK, fontsize=10.5)
    _legend_below(figure, axes)
    return figure


def exit_histogram(histogram: Sequence[int], mean_steps: float, title: str, subtitle: str = "", split: str = "test") -> Figure:
    """Which share of the samples exits at each step; those that were never sure enough leave at T, in grey.

    Args:
        histogram: n_1 .. n_T, the number of samples that exit at each step.
        mean_steps: their mean exit step.
        title: names the setting.
        subtitle: names the profile and what the data stand in for.
        split: names the samples on the axis.
    """
    figure, axes = _canvas(title, subtitle)
    counts = np.asarray(histogram, dtype=np.float64)
    time_steps = len(counts)
    shares = counts / max(counts.sum(), 1.0)
    steps = np.arange(1, time_steps + 1)
    axes.bar(steps[:-1], shares[:-1], width=0.84, color=BLUE, label="exit, confident", zorder=2)
    axes.bar(
        steps[-1:],
        shares[-1:],
        width=0.84,
        color="#A6A6A6",
        hatch="///",
        edgecolor="white",
        linewidth=0.0,
        label=f"at T = {time_steps}, not confident before: {_percent(shares[-1])}",
        zorder=2,
    )
    axes.axvline(
        mean_steps,
        color=VERMILLION,
        linewidth=2.0,
        linestyle=(0, (5, 2)),
        label=f"mean {mean_steps:.2f} steps, {(1 - mean_steps / time_steps) * 100:.0f} % fewer",
        zorder=3,
    )
    axes.set_xlim(0.4, time_steps + 0.6)
    axes.set_ylim(0, max(float(shares.max()), 0.01) * 1.08)
    _percent_axis(axes)
    axes.set_xlabel("Exit step", color=INK, fontsize=10.5)
    axes.set_ylabel(f"Share of the {split} samples", color=INK, fontsize=10.5)
    _legend_below(figure, axes)
    return figure


def _canvas(title: str, subtitle: str) -> tuple[Figure, Axes]:
    """A figure of its own with one plain pair of axes, the title and subtitle flush left."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=INCHES, dpi=DPI, facecolor="white", layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08))
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    # Text, never a formula: a name may hold a dollar sign, and the formula parser is not made for threads.
    axes.set_title(
        title,
        loc="left",
        pad=26 if subtitle else 10,
        color=INK,
        fontsize=13,
        fontweight="bold",
        parse_math=False,
    )
    if subtitle:
        axes.annotate(
            subtitle,
            (0, 1),
            xytext=(0, 10),
            xycoords="axes fraction",
            textcoords="offset points",
            color=GREY,
            fontsize=9.5,
            parse_math=False,
        )
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(GREY)
    axes.tick_params(colors=GREY, labelcolor=INK, labelsize=9.5)
    axes.grid(axis="y", color=PALE, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=9, integer=True, min_n_ticks=2))
    return figure, axes


def _percent_axis(axes: Axes) -> None:
    """Fractions as percentages; no tick above 100 %, where the axis leaves room for a mark only."""
    from matplotlib.ticker import FixedLocator, MaxNLocator, PercentFormatter

    low, high = axes.get_ylim()
    proposed = MaxNLocator(nbins=7, steps=[1, 2, 5, 10]).tick_values(low, high)
    ticks = [tick for tick in proposed if low <= tick <= min(high, 1.0 + 1e-9)]
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    gap = min(np.diff(ticks), default=1.0)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0 if gap > 0.0099 else 1, symbol=" %"))


def _accuracy_limits(lowest: float, compared_low: float, compared_high: float) -> tuple[float, float]:
    """Accuracy limits that give what is compared at least a third of the height."""
    span = max(compared_high - compared_low, 0.02)
    low = max(lowest - 0.05 * span, compared_low - 2.0 * span, -0.05 * span)
    return low, compared_high + 0.06 * (compared_high - low)


def _merged(
    bounds: Mapping[str, Mapping[str, float]],
) -> list[tuple[str, tuple[str, str, str, float], Mapping[str, float]]]:
    """Bounds as (name, style, point), those at one point under one joint name and the first one's style."""
    merged: dict[tuple[float, float], tuple[str, tuple[str, str, str, float], Mapping[str, float]]] = {}
    for key, bound in bounds.items():
        style = BOUND_STYLES.get(key, (key.replace("_", " "), "X", INK, 9.0))
        point = (round(bound["accuracy"], 9), round(bound["mean_steps"], 9))
        if point in merged:
            name, first_style, first = merged[point]
            merged[point] = (f"{name} = {style[0]}", first_style, first)
        else:
            merged[point] = (style[0], style, bound)
    return list(merged.values())


def _legend_below(figure: Figure, axes: Axes) -> None:
    from matplotlib.container import BarContainer

    handles, labels = axes.get_legend_handles_labels()
    # Bars come after lines by default; here they come first, as they are drawn.
    order = sorted(range(len(handles)), key=lambda index: not isinstance(handles[index], BarContainer))
    legend = figure.legend(
        [handles[index] for index in order],
        [labels[index] for index in order],
        loc="outside lower center",
        ncols=2,
        frameon=False,
        fontsize=9.5,
        labelcolor=INK,
        handlelength=2.2,
        columnspacing=2.0,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def _percent(fraction: Any) -> str:
    return f"{float(fraction) * 100:.1f} %"


def _point(point: Mapping[str, float]) -> str:
    return f"{_percent(point['accuracy'])} @ {point['mean_steps']:.2f}"
