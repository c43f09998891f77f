"""Shared elements of all figures: colours, titles, percentage axes and legends.

Figures use matplotlib's objects without pyplot or a global style, so that threads can draw in parallel. The colours are those
of Okabe and Ito, which colour-blind readers can distinguish. Legends are placed below the axes, where they hide nothing.
Subtitles state what was run (the profile, what the data stand in for), so that a figure can be understood on its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dynconf_core.exit.front import Front
from dynconf_core.exit.front import thinned as evenly_thinned
from dynconf_core.exit.judgement import OperatingPoint

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, VERMILLION, GREEN, PURPLE, ORANGE = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00"
SKY = "#56B4E9"
INK, GREY, PALE = "#222222", "#6B6B6B", "#D9D9D9"
INCHES = (7.2, 5.2)
DPI = 200
LABEL_SIZE = 10.5
MOST_POINTS = 10_000
"""Of a front in a figure: more cannot be distinguished."""


def canvas(title: str, subtitle: str = "", inches: tuple[float, float] = INCHES) -> tuple[Figure, Axes]:
    """A figure with one pair of plain axes, and with title and subtitle flush left."""
    figure = blank(inches)
    axes = figure.add_subplot()
    head(axes, title, subtitle)
    plain(axes)
    return figure, axes


def blank(inches: tuple[float, float] = INCHES) -> Figure:
    """An empty white figure with automatic layout."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(figsize=inches, dpi=DPI, facecolor="white", layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08))
    FigureCanvasAgg(figure)
    return figure


def head(axes: Axes, title: str, subtitle: str = "") -> None:
    """Set title and subtitle above the axes, flush left."""
    # Never parsed as a formula: a name may contain a dollar sign, and the parser is not thread-safe.
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
        note = axes.annotate(
            subtitle,
            (0, 1),
            xytext=(0, 10),
            xycoords="axes fraction",
            textcoords="offset points",
            color=GREY,
            fontsize=9.5,
            parse_math=False,
        )
        note.set_in_layout(False)  # it may extend above the next axes


def plain(axes: Axes) -> None:
    """Style the axes: two spines, pale horizontal lines, whole numbers on the x axis."""
    from matplotlib.ticker import MaxNLocator

    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(GREY)
    axes.tick_params(colors=GREY, labelcolor=INK, labelsize=9.5)
    axes.grid(axis="y", color=PALE, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=9, integer=True, min_n_ticks=2))


def label(axes: Axes, below: str = "", left: str = "") -> None:
    """Label the axes."""
    for setter, text in ((axes.set_xlabel, below), (axes.set_ylabel, left)):
        if text:
            setter(text, color=INK, fontsize=LABEL_SIZE)


def percent_axis(axes: Axes) -> None:
    """Show fractions as percentages, without ticks above 100 %."""
    from matplotlib.ticker import FixedLocator, MaxNLocator, PercentFormatter

    low, high = axes.get_ylim()
    proposed = MaxNLocator(nbins=7, steps=[1, 2, 5, 10]).tick_values(low, high)
    ticks = [tick for tick in proposed if low <= tick <= min(high, 1.0 + 1e-9)]
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    gap = min(np.diff(ticks), default=1.0)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0 if gap > 0.0099 else 1, symbol=" %"))


def accuracy_limits(lowest: float, compared_low: float, compared_high: float) -> tuple[float, float]:
    """Limits of an accuracy axis that give the points compared at least a third of the height."""
    span = max(compared_high - compared_low, 0.02)
    low = max(lowest - 0.05 * span, compared_low - 2.0 * span, -0.05 * span)
    return low, compared_high + 0.06 * (compared_high - low)


def legend_below(figure: Figure, axes: Axes) -> None:
    """Add the legend of the axes below the figure, in two columns, bars first."""
    from matplotlib.container import BarContainer

    handles, labels = axes.get_legend_handles_labels()
    # By default bars come after lines; here they come first, as they are drawn first.
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


def thinned(front: Front) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(mean steps, accuracy) of a front, thinned to at most ``MOST_POINTS`` points."""
    return evenly_thinned(front, MOST_POINTS)


def percent(fraction: Any) -> str:
    """A fraction as a percentage, such as 94.3 %."""
    return f"{float(fraction) * 100:.1f} %"


def at_steps(point: OperatingPoint) -> str:
    """An operating point as text, such as 94.3 % @ 11.51."""
    return f"{percent(point.accuracy)} @ {point.mean_steps:.2f}"
