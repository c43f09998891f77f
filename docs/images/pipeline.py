"""Draws pipeline.svg: the stages of a setting, what each reads, and where the results go.

    python docs/images/pipeline.py

The stages and their inputs are those of ``dynconf_core.experiment.stages``, so that a new stage appears here too.
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

from dynconf_core.experiment.stages import STAGES

WIDE, HIGH = 2.0, 0.8
ACROSS, DOWN = 2.4, 1.25
STORED, GIVEN, SHOWN = "#dceaf7", "#f4f4f4", "#fdeeda"
SAYS = {
    "train": "a network of quantised\nactivations",
    "convert": "an SNN with fixed-point\nweights, and its report",
    "collect_calibration": "logits of every time step,\nheld-out training images",
    "collect_test": "logits of every time step,\ntest images",
    "search": "the exit rule: measure,\nsmoothing, threshold",
    "evaluate": "accuracy, mean steps,\nspikes, baselines, oracles",
}
"""What each stage makes."""


def columns() -> dict[str, int]:
    """The stages, each one column right of the last one that it reads."""
    found: dict[str, int] = {}
    for stage in STAGES:
        found[stage.name] = 1 + max((found[name] for name in stage.inputs.values()), default=0)
    return found


def box(axes: Axes, place: tuple[float, float], name: str, says: str, colour: str) -> None:
    """A box with a name and what it holds."""
    x, y = place
    axes.add_patch(
        FancyBboxPatch((x, y), WIDE, HIGH, boxstyle="round,pad=0.06,rounding_size=0.12", facecolor=colour, edgecolor="#44546a")
    )
    axes.text(x + WIDE / 2, y + HIGH - 0.14, name, ha="center", va="center", fontsize=9.5, fontweight="bold")
    axes.text(x + WIDE / 2, y + 0.26, says, ha="center", va="center", fontsize=7.3, color="#333333", linespacing=1.25)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    """An arrow from the right edge of a box to the left edge of the next or, below one that lies between, to a lower edge."""
    style = {"arrowstyle": "-|>", "color": "#44546a", "shrinkA": 0, "shrinkB": 0, "linewidth": 1.3}
    target = (end[0] - 0.09, end[1] + HIGH / 2)
    if end[0] - start[0] > ACROSS and end[1] > start[1]:
        target, style["connectionstyle"] = (end[0] + WIDE / 2, end[1] - 0.09), "angle,angleA=0,angleB=90,rad=4"
    axes.annotate("", xy=target, xytext=(start[0] + WIDE + 0.07, start[1] + HIGH / 2), arrowprops=style)


def main() -> None:
    """Draw the picture beside this script."""
    column = columns()
    places = {name: (ACROSS * at, -DOWN if name == "collect_test" else 0.0) for name, at in column.items()}
    last = max(column.values())
    given = (0.0, 0.0)
    shown = {
        "MLflow": ((ACROSS * (last + 1), 0.0), "a run for each setting:\nfigures, tables, model"),
        "report.html": ((ACROSS * (last + 1), -DOWN), "one page to send, beside\nresults.json"),
    }
    figure, axes = plt.subplots(figsize=(15.5, 2.9))
    box(axes, given, "setting x profile", "network, data, scheme;\nhow much of it is run", GIVEN)
    for stage in STAGES:
        box(axes, places[stage.name], stage.name.replace("_", " "), SAYS.get(stage.name, ""), STORED)
        for name in dict.fromkeys(stage.inputs.values()):
            if not any(name in other.inputs.values() and other.name in stage.inputs.values() for other in STAGES):
                arrow(axes, places[name], places[stage.name])  # what a stage reads through another needs no second arrow
        if not stage.inputs:
            arrow(axes, given, places[stage.name])
    for name, (place, says) in shown.items():
        box(axes, place, name, says, SHOWN)
        arrow(axes, places[STAGES[-1].name], place)
    axes.text(
        0,
        -DOWN + 0.3,
        "Blue: kept in the store by a key\nof configuration, inputs and code,\nand taken from there next time.",
        fontsize=8.5,
        color="#333333",
        va="center",
    )
    axes.set(xlim=(-0.15, ACROSS * (last + 1) + WIDE + 0.15), ylim=(-DOWN - 0.15, HIGH + 0.15), aspect="equal")
    axes.axis("off")
    plt.rcParams["svg.hashsalt"] = "pipeline"
    figure.savefig(Path(__file__).with_suffix(".svg"), bbox_inches="tight", metadata={"Date": None})


if __name__ == "__main__":
    main()
