"""Figure comparing rules: all operating points of each, and its chosen one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dynconf_core.exit.front import Front
from dynconf_core.exit.judgement import OperatingPoint
from dynconf_core.figures.canvas import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PURPLE,
    SKY,
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

# Colours, lines and markers all differ; a seventh rule reuses the first style.
STYLES: tuple[tuple[str, Any, str], ...] = (
    (VERMILLION, "-", "o"),
    (BLUE, (0, (6, 2)), "s"),
    (GREEN, (0, (4, 1.5, 1, 1.5)), "^"),
    (PURPLE, (0, (1.5, 1.5)), "D"),
    (ORANGE, (0, (8, 2, 1, 2, 1, 2)), "v"),
    (SKY, (0, (3, 3)), "P"),
)


def rules_figure(
    fronts: Mapping[str, Front],
    chosen: Mapping[str, OperatingPoint],
    accuracy_at_full: float,
    time_steps: int,
    title: str,
    subtitle: str = "",
    split: str = "test",
) -> Figure:
    """Accuracy against mean latency of several rules on the same samples.

    Args:
        fronts: by measure, all operating points on these samples.
        chosen: by measure, the operating point of the threshold chosen on other samples; may lack measures.
        accuracy_at_full: accuracy at T, a fraction, drawn as a horizontal line.
        time_steps: T.
        title: the name of the setting.
        subtitle: the profile and what the data stand in for.
        split: the name of the split, for the axis.
    """
    figure, axes = canvas(title, subtitle)
    axes.axhline(
        accuracy_at_full,
        color=GREY,
        linewidth=1.2,
        linestyle=(0, (5, 3)),
        label=f"all {time_steps} steps: {percent(accuracy_at_full)}",
        zorder=1,
    )
    for number, (name, front) in enumerate(fronts.items()):
        colour, line, marker = STYLES[number % len(STYLES)]
        steps, accuracy = thinned(front)
        point = chosen.get(name)
        text = name if point is None else f"{name}: {at_steps(point)}"
        axes.plot(steps, accuracy, color=colour, linestyle=line, linewidth=1.8, zorder=2)
        # The marker is shown in the legend, and drawn above all lines.
        axes.plot(
            [] if point is None else [point.mean_steps],
            [] if point is None else [point.accuracy],
            color=colour,
            linestyle=line,
            linewidth=1.8,
            marker=None if point is None else marker,
            markersize=8.0,
            markeredgecolor=INK,
            markeredgewidth=1.2,
            clip_on=False,
            label=text,
            zorder=4,
        )
    compared = [accuracy_at_full, *(point.accuracy for point in chosen.values())]
    lowest = min([accuracy_at_full, *(float(front.accuracy.min()) for front in fronts.values())])
    highest = max([*compared, *(float(front.accuracy.max()) for front in fronts.values())])
    axes.set_ylim(*accuracy_limits(lowest, min(compared), highest))
    percent_axis(axes)
    axes.set_xlim(0, time_steps * 1.02)
    label(axes, "Mean latency (time steps)", f"{split.capitalize()} accuracy")
    legend_below(figure, axes)
    return figure
