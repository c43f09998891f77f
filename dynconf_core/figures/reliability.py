"""Reliability diagrams: accuracy against confidence, with the share of samples in each bin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dynconf_core.evaluation.record import Bins
from dynconf_core.exit.intervals import accuracy_interval
from dynconf_core.figures.canvas import BLUE, GREEN, GREY, INK, VERMILLION, blank, head, label, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INCHES = (6.0, 6.4)
STYLES: tuple[tuple[str, str], ...] = ((VERMILLION, "o"), (BLUE, "s"), (GREEN, "^"))


def reliability_figure(
    series: Mapping[str, tuple[Bins, float | None]], title: str, subtitle: str = "", confidence: str = "Confidence"
) -> Figure:
    """Accuracy against confidence by bin, with exact 95 % intervals, above the share of samples in each bin.

    Args:
        series: by name, such as "at T" and "at the exit", the bins and, if known, the expected calibration error (a
            fraction). At most three can be distinguished; empty bins are not drawn.
        title: the name of the setting.
        subtitle: the profile and what the data stand in for.
        confidence: the label of the confidence axis.
    """
    figure = blank(INCHES)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3.2, 1.0))
    head(above, title, subtitle)
    for axes in (above, below):
        plain(axes)
    above.plot([0, 1], [0, 1], color=GREY, linewidth=1.2, linestyle=(0, (5, 3)), label="perfectly calibrated", zorder=1)
    width = 0.9 / max(len(series), 1)
    for number, (name, (bins, ece)) in enumerate(series.items()):
        colour, marker = STYLES[number % len(STYLES)]
        samples = np.asarray(bins.counts, dtype=np.int64)
        filled = samples > 0
        means, accuracy = (np.asarray(column, dtype=np.float64)[filled] for column in (bins.confidence, bins.accuracy))
        ends = [accuracy_interval(round(a * n), int(n)) for a, n in zip(accuracy, samples[filled], strict=True)]
        error = "" if ece is None else f", expected calibration error {100 * ece:.1f} %"
        above.errorbar(
            means,
            accuracy,
            yerr=np.abs(np.array(ends).reshape(-1, 2).T - accuracy),
            color=colour,
            marker=marker,
            markersize=5.5,
            linewidth=1.8,
            elinewidth=1.0,
            capsize=2.5,
            label=f"{name}{error}",
            zorder=3,
        )
        edges: Sequence[float] = np.linspace(0.0, 1.0, len(samples) + 1).tolist()
        wide = edges[1] - edges[0]
        places = np.array(edges[:-1]) + wide * (0.05 + width * (number + 0.5))
        below.bar(places, samples / max(int(samples.sum()), 1), width=wide * width, color=colour, zorder=2)
    above.set_xlim(0.0, 1.0)
    above.set_ylim(-0.02, 1.02)
    label(above, left="Accuracy")
    label(below, confidence, "Share")
    for axes in (above, below):
        axes.xaxis.set_major_locator(_tenths())
    legend = figure.legend(
        *above.get_legend_handles_labels(), loc="outside lower center", ncols=1, frameon=False, fontsize=9.5, labelcolor=INK
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure


def _tenths() -> Any:
    from matplotlib.ticker import MultipleLocator

    return MultipleLocator(0.2)
