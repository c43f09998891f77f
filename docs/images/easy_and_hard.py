"""Draws easy_and_hard.png: two test images of CIFAR-10, the SNN's confidence at every time step, and where each exits.

    dynconf data fetch cifar10
    python docs/images/easy_and_hard.py .dynconf/data

The traces and the exit rule are the published ones of ResNet-18 (QCFS); of CIFAR-10 only two images are read.
"""

import sys
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from dynconf_core import Rule, Traces

HERE = Path(__file__).resolve().parent
PUBLISHED = HERE.parent.parent / "results" / "2026-11-26-h100" / "cifar10-resnet18-qcfs"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
EASY, HARD = 13, 5310
LAST = 24
SHOWN = (0.5, 0.99, 0.9999, 0.999999, 0.99999999)


def image(data: Path, index: int) -> np.ndarray:
    """A test image (32, 32, 3), uint8, from the official binary file: a byte of label, then three planes of pixels."""
    rows = np.fromfile(data / "cifar-10-batches-bin" / "test_batch.bin", dtype=np.uint8).reshape(-1, 3073)
    return rows[index, 1:].reshape(3, 32, 32).transpose(1, 2, 0)


def main() -> None:
    """Draw the picture beside this script."""
    data = Path(sys.argv[1])
    traces, rule = Traces.load(f"{PUBLISHED}-test.npz"), Rule.load(f"{PUBLISHED}-rule.json")
    scores, exits, predictions = rule.scores(traces), rule.exit_steps(traces), traces.predictions()
    figure = plt.figure(figsize=(9.6, 3.6), dpi=150)
    axes = figure.add_axes((0.42, 0.15, 0.57, 0.76))
    steps = np.arange(1, LAST + 1)
    for place, (index, colour, name) in enumerate(((EASY, "tab:blue", "easy"), (HARD, "tab:orange", "hard"))):
        step, label = int(exits[index]), int(traces.labels[index])
        frame = figure.add_axes((0.01, 0.55 - 0.47 * place, 0.15, 0.4))
        frame.imshow(image(data, index), interpolation="nearest")
        frame.set(xticks=[], yticks=[])
        frame.spines[:].set(color=colour, linewidth=3)
        text = f"{name} image,\nexits at step {step}:\n“{CLASSES[predictions[index, step - 1]]}”"
        figure.text(0.17, 0.75 - 0.47 * place, text, color=colour, va="center", fontsize=10.5)
        shown = scores[index, :LAST]
        axes.plot(steps[:step], shown[:step], color=colour, linewidth=2)
        axes.plot(steps[step - 1 :], shown[step - 1 :], color=colour, linewidth=1, linestyle=":", alpha=0.7)
        right = predictions[index, :step] == label
        axes.plot(steps[:step][right], shown[:step][right], "o", color=colour, markersize=5)
        axes.plot(steps[:step][~right], shown[:step][~right], "o", color=colour, markersize=5, markerfacecolor="white")
        axes.plot(step, shown[step - 1], "*", color=colour, markersize=17, markeredgecolor="black", zorder=4)
        if not right.all():
            last = np.flatnonzero(~right)[-1]
            wrong = f"“{CLASSES[predictions[index, last]]}” until step {steps[last]}"
            axes.text(steps[last] - 0.4, shown[last] - 0.3, wrong, color=colour, fontsize=9.5, ha="right", va="top")
    axes.axhline(rule.threshold, color="black", linewidth=1, linestyle="--")
    axes.text(LAST + 0.2, rule.threshold - 0.4, "threshold", ha="right", va="top", fontsize=9.5)
    axes.set_yticks([np.log(p / (1 - p)) for p in SHOWN], [f"{100 * p:.10g} %" for p in SHOWN])
    axes.set(xlim=(0.5, LAST + 0.5), ylim=(-2.5, 24), xlabel="time step", title="the network's confidence in its answer")
    axes.title.set_size(10.5)
    axes.set_xticks([1, *range(4, LAST + 1, 4)])
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(HERE / "easy_and_hard.png", facecolor="white")


if __name__ == "__main__":
    main()
