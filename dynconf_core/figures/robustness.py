"""Figure of the robustness map: accuracy lost and mean steps over threshold and alpha (the paper's second claim)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dynconf_core.exit.robustness import RobustnessMap
from dynconf_core.figures.canvas import GREY, INK, LABEL_SIZE, VERMILLION, blank, head, label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INCHES = (9.6, 4.9)
MOST_LOST = 2.0
MARK: dict[str, Any] = {
    "linestyle": "none",
    "marker": "o",
    "markersize": 9,
    "markerfacecolor": "white",
    "markeredgecolor": INK,
    "markeredgewidth": 1.8,
}


def robustness_figure(
    found: RobustnessMap, title: str, subtitle: str = "", chosen: tuple[float, float] | None = None
) -> Figure:
    """Two maps side by side, accuracy lost (points) and mean steps, each with the border of the useful region.

    Args:
        found: the robustness map.
        title: the name of the setting.
        subtitle: the profile and what the data stand in for.
        chosen: threshold (on the softmax) and alpha of the chosen rule, marked if given.
    """
    from matplotlib.lines import Line2D
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    figure = blank(INCHES)
    left, right = figure.subplots(1, 2, sharey=True)
    head(left, title, subtitle)
    lost = 100.0 * (found.full_accuracy - found.accuracy)
    most = float(np.clip(lost.max(), 0.5, MOST_LOST))
    more = f", {most:g} and more" if lost.max() > most else ""
    panels = (
        (left, np.clip(lost, 0.0, most), "Blues", (0.0, most), f"Accuracy lost (points{more})"),
        (right, found.mean_steps, "viridis", (1.0, float(found.time_steps)), "Mean latency (time steps)"),
    )
    for axes, values, colours, limits, name in panels:
        image = axes.pcolormesh(
            _edges(found.thresholds),
            10.0 ** _edges(np.log10(found.alphas)),
            values,
            cmap=colours,
            vmin=limits[0],
            vmax=limits[1],
        )
        image.set_rasterized(True)
        bar = figure.colorbar(image, ax=axes, location="bottom", aspect=32, pad=0.03)
        bar.set_label(name, color=INK, fontsize=LABEL_SIZE)
        bar.ax.tick_params(colors=GREY, labelcolor=INK, labelsize=9)
        bar.locator = MaxNLocator(5)
        bar.outline.set_visible(False)
        _border(axes, found, found.useful, VERMILLION)
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda alpha, _: f"{alpha:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_ylim(*(10.0 ** _edges(np.log10(found.alphas)))[[0, -1]])
        axes.tick_params(colors=GREY, labelcolor=INK, labelsize=9.5)
        for spine in axes.spines.values():
            spine.set_visible(False)
        if chosen is not None:
            axes.plot(*chosen, clip_on=False, zorder=5, **MARK)
        label(axes, "Threshold on the softmax")
    label(left, left="Smoothing alpha")
    useful = found.widths().useful
    handles: list[Any] = [Line2D([], [], color=VERMILLION, linewidth=2.0)]
    texts = [
        f"within {100 * found.tolerance:.4g} points of T and half of the best saving: "
        f"threshold {useful.threshold.width:.2f} wide; "
        f"alpha {10**useful.alpha_with_its_threshold.decades:,.0f}-fold, threshold readjusted"
    ]
    if chosen is not None:
        handles.append(Line2D([], [], **MARK))
        texts.append("chosen")
    figure.legend(handles, texts, loc="outside lower center", ncols=2, frameon=False, fontsize=9.5, labelcolor=INK)
    return figure


def _border(axes: Axes, found: RobustnessMap, region: NDArray[np.bool_], colour: str) -> None:
    """Draw the border of a region of cells, along their edges."""
    across, up = _edges(found.thresholds), 10.0 ** _edges(np.log10(found.alphas))
    padded = np.pad(region, 1)
    # Between a cell and its neighbour, where one is inside and the other is not.
    for row, column in np.argwhere(padded[1:-1, 1:] != padded[1:-1, :-1]):
        axes.plot([across[column]] * 2, up[row : row + 2], color=colour, linewidth=2.0, solid_capstyle="projecting")
    for row, column in np.argwhere(padded[1:, 1:-1] != padded[:-1, 1:-1]):
        axes.plot(across[column : column + 2], [up[row]] * 2, color=colour, linewidth=2.0, solid_capstyle="projecting")


def _edges(centres: NDArray[np.float64]) -> NDArray[np.float64]:
    """The edges ``(n + 1,)`` of cells around ``centres (n,)``."""
    if len(centres) == 1:
        return np.array([centres[0] - 0.5, centres[0] + 0.5])
    middles = (centres[1:] + centres[:-1]) / 2.0
    first, last = centres[0] - (middles[0] - centres[0]), centres[-1] + (centres[-1] - middles[-1])
    edges: NDArray[np.float64] = np.concatenate(([first], middles, [last]))
    return edges
