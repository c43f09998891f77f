"""Draws logits_over_time.png: the accumulated logits of one test image of CIFAR-10, and its confidence crossing the threshold.

    python docs/images/logits_over_time.py

The traces and the exit rule are the published ones of ResNet-18 (QCFS).
"""

from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from dynconf_core import Rule, Traces
from dynconf_core.data.fetch_cifar10 import CLASSES
from dynconf_core.figures.canvas import BLUE, GREY, INK, PALE, VERMILLION

HERE = Path(__file__).resolve().parent
PUBLISHED = HERE.parent.parent / "results" / "2026-11-26-h100" / "cifar10-resnet18-qcfs"
IMAGE = 5310
LAST = 24
SHOWN = (0.5, 0.99, 0.9999, 0.999999)
APART = 13
"""Least distance of two names beside the lines, in units of the logits."""


def main() -> None:
    """Draw the picture beside this script."""
    traces, rule = Traces.load(f"{PUBLISHED}-test.npz"), Rule.load(f"{PUBLISHED}-rule.json")
    summed = np.cumsum(traces.logits[IMAGE, :LAST], axis=0, dtype=np.float64)
    scores, step = rule.scores(traces)[IMAGE, :LAST], int(rule.exit_steps(traces)[IMAGE])
    label, steps = int(traces.labels[IMAGE]), np.arange(1, LAST + 1)
    rival = next(int(one) for one in summed.argmax(axis=1) if one != label)
    figure, (above, below) = plt.subplots(2, 1, figsize=(9.6, 6.0), dpi=150, sharex=True, height_ratios=(1.35, 1))
    colours = {label: BLUE, rival: VERMILLION}
    for one in np.argsort([place in colours for place in range(summed.shape[1])]):
        above.plot(steps, summed[:, one], color=colours.get(int(one), PALE), linewidth=2.4 if one in colours else 1.3)
    last = np.inf
    for one in np.argsort(-summed[-1]):
        last = min(last - APART, summed[-1, one])
        style = {"color": colours.get(int(one), GREY), "fontweight": "bold" if one in colours else "normal"}
        above.text(LAST + 0.3, last, CLASSES[one], fontsize=9.5, va="center", **style)
    wrong = int(np.flatnonzero(summed.argmax(axis=1) != label)[-1]) + 1
    above.annotate(
        f"until step {wrong} the answer is “{CLASSES[rival]}”",
        (wrong, summed[wrong - 1, rival]),
        (2.2, summed.max() * 0.93),
        color=VERMILLION,
        fontsize=10,
        arrowprops={"arrowstyle": "-", "color": VERMILLION},
    )
    above.set(ylabel="sum of the logits up to the step", title="What each class has gathered")
    right = summed.argmax(axis=1) == label
    below.plot(steps[:step], scores[:step], color=INK, linewidth=1.6, zorder=2)
    below.plot(steps[step - 1 :], scores[step - 1 :], color=INK, linewidth=1, linestyle=":", alpha=0.6)
    for chosen, colour in ((right[:step], BLUE), (~right[:step], VERMILLION)):
        below.plot(steps[:step][chosen], scores[:step][chosen], "o", color=colour, markersize=5.5, zorder=3)
    below.plot(step, scores[step - 1], "*", color=BLUE, markersize=18, markeredgecolor=INK, zorder=4)
    below.axhline(rule.threshold, color=GREY, linewidth=1.2, linestyle="--")
    below.text(1, rule.threshold + 0.5, "threshold", color=GREY, fontsize=9.5, va="bottom")
    below.text(
        step - 0.4, scores[step - 1] + 0.5, f"exit at step {step}: “{CLASSES[label]}”", color=BLUE, ha="right", fontsize=10.5
    )
    below.set_yticks([np.log(p / (1 - p)) for p in SHOWN], [f"{100 * p:.10g} %" for p in SHOWN])
    below.set(xlim=(0.5, LAST + 0.5), xlabel="time step", ylabel="softmax of the smoothed sum", title="How sure that makes it")
    below.set_ylim(scores.min() - 1, max(scores.max(), rule.threshold) + 3)
    below.set_xticks([1, *range(4, LAST + 1, 4)])
    for axes in (above, below):
        axes.axvline(step, color=BLUE, linewidth=1, alpha=0.45, zorder=0)
        axes.title.set(size=11, ha="left", x=0.0)
        axes.spines[["top", "right"]].set_visible(False)
    figure.align_ylabels()
    figure.subplots_adjust(left=0.115, right=0.89, top=0.945, bottom=0.09, hspace=0.24)
    figure.savefig(HERE / "logits_over_time.png", facecolor="white")


if __name__ == "__main__":
    main()
