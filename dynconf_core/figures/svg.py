"""Writing figures as SVG, with the same bytes every time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SALT = "dynconf"
"""From which matplotlib makes the names of a file's parts, instead of from a random number."""


def save_svg(figure: Figure, path: Path) -> None:
    """Write a figure as SVG, without the date."""
    import matplotlib

    matplotlib.rcParams["svg.hashsalt"] = SALT  # for the process: the same value for all threads
    figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
