"""The figure of a sweep: its points and their Pareto front, one panel for each setting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dynconf_core.figures.canvas import BLUE, GREY, LABEL_SIZE, blank, head, label, legend_below, percent_axis, plain
from dynconf_core.results.markdown import short
from dynconf_core.results.types import SweepPoint

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 7.2, 4.2
"""Of a panel, in inches."""
MOST_LABELS = 12
"""Points of a front that are labelled with their values; more would cover each other."""


def pareto_fronts(points: Sequence[SweepPoint], title: str, subtitle: str = "") -> Figure:
    """Accuracy with exit against mean steps on the test split; fronts were chosen on the calibration split."""
    settings = list(dict.fromkeys(point.setting for point in points))
    figure = blank((WIDTH, HEIGHT * len(settings)))
    panels: list[Axes] = list(figure.subplots(len(settings), squeeze=False)[:, 0])
    for axes, setting in zip(panels, settings, strict=True):
        plain(axes)
        _draw(axes, [point for point in points if point.setting == setting])
        several = len(settings) > 1
        head(axes, f"{title}: {setting}" if several else title, "; ".join(filter(None, (subtitle, "" if several else setting))))
    legend_below(figure, panels[0])
    return figure


def _draw(axes: Axes, points: Sequence[SweepPoint]) -> None:
    front = sorted((point for point in points if point.on_front), key=lambda point: point.calibration_mean_steps)
    others = [point for point in points if not point.on_front]
    axes.plot(
        [point.mean_steps for point in front],
        [point.accuracy for point in front],
        color=BLUE,
        marker="o",
        linewidth=1.4,
        label="Pareto front, chosen on the calibration split",
    )
    if others:
        axes.scatter(
            [point.mean_steps for point in others],
            [point.accuracy for point in others],
            color=GREY,
            marker="x",
            label="other points",
        )
    for point in front[:MOST_LABELS]:
        axes.annotate(
            ", ".join(f"{name}={short(value)}" for name, value in point.values.items()),
            (point.mean_steps, point.accuracy),
            xytext=(6, -12),
            textcoords="offset points",
            fontsize=LABEL_SIZE - 2.5,
            color=GREY,
            parse_math=False,
        )
    axes.margins(x=0.15, y=0.15)
    percent_axis(axes)
    label(axes, "Mean time steps with exit, test split", "Accuracy with exit, test split")
