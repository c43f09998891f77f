"""The figures draw what they are given, name it, and overlap nowhere."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from dynconf_core.evaluation.figures import accuracy_against_latency, exit_histogram
from dynconf_core.exit.bounds import upper_bounds
from dynconf_core.exit.front import exact_front

SUBTITLE = "smoke profile: digits stand in for CIFAR-10"


def case(time_steps: int = 32, samples: int = 200, seed: int = 0) -> dict[str, Any]:
    """Arguments of `accuracy_against_latency` from plausible random scores."""
    rng = np.random.default_rng(seed)
    scores = rng.gamma(2.0, 1.0, (samples, 1)) * np.arange(1, time_steps + 1)
    correct = rng.random((samples, time_steps)) < 1 - 0.8 * np.exp(-scores / 3)
    front = exact_front(scores, correct)
    middle = len(front) // 2
    return {
        "accuracy_at_t": correct.mean(axis=0).tolist(),
        "front": front,
        "bounds": upper_bounds(correct),
        "chosen": {
            "accuracy": float(front.accuracy[middle]),
            "mean_steps": float(front.mean_steps[middle]),
        },
        "title": "cifar10-resnet18-qcfs",
        "subtitle": SUBTITLE,
        "ann_accuracy": 0.99,
    }


def png(figure: Figure) -> bytes:
    stream = BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()


def legend_of(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def texts_overlap(figure: Figure) -> list[tuple[str, str]]:
    """Pairs of drawn texts whose boxes meet."""
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    axes = figure.axes[0]
    texts = [axes.title, axes._left_title, axes.xaxis.label, axes.yaxis.label, *axes.texts]  # type: ignore[attr-defined]
    texts += [*axes.get_xticklabels(), *axes.get_yticklabels(), *figure.legends[0].get_texts()]
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in texts if text.get_text()]
    return [
        (name, other) for index, (name, box) in enumerate(boxes) for other, second in boxes[index + 1 :] if box.overlaps(second)
    ]


def test_the_dynamic_curve_is_the_front_and_the_static_one_the_accuracies() -> None:
    given = case()
    axes = accuracy_against_latency(**given).axes[0]
    curves = {str(line.get_label()).split(":")[0]: line for line in axes.lines}
    dynamic = curves["SNN, dynamic"]
    assert (np.asarray(dynamic.get_xdata()) == given["front"].mean_steps).all()
    assert (np.asarray(dynamic.get_ydata()) == given["front"].accuracy).all()
    static = curves["SNN, fixed steps"]
    assert np.asarray(static.get_xdata()).tolist() == list(range(1, 33))
    assert np.asarray(static.get_ydata()).tolist() == given["accuracy_at_t"]
    assert axes.get_title(loc="left") == given["title"]
    assert [text.get_text() for text in axes.texts] == [SUBTITLE]


def test_the_legend_carries_the_numbers() -> None:
    front = exact_front(np.array([[0.0, 1.0], [2.0, 2.0]]), np.array([[False, True], [True, True]]))
    bounds = {
        "first_correct": {"accuracy": 1.0, "mean_steps": 1.5},
        "stays_correct": {"accuracy": 0.955, "mean_steps": 1.75},
        "aet": {"accuracy": 1.0, "mean_steps": 1.5},
        "another_one": {"accuracy": 0.5, "mean_steps": 1.25},
    }
    figure = accuracy_against_latency(
        [0.5, 1.0], front, bounds, {"accuracy": 1.0, "mean_steps": 1.5}, "title", ann_accuracy=0.987
    )
    assert legend_of(figure) == [
        "ANN: 98.7 %",
        "SNN, fixed steps: 100.0 % @ 2",
        "SNN, dynamic: every threshold",
        "Bound, first correct = AET: 100.0 % @ 1.50",
        "Bound, stays correct: 95.5 % @ 1.75",
        "Bound, another one: 50.0 % @ 1.25",
        "Chosen: 100.0 % @ 1.50, 25 % fewer steps",
    ]


@pytest.mark.parametrize("time_steps", [1, 2, 4, 8, 27, 32, 64])
def test_every_mark_is_inside_and_no_text_overlaps(time_steps: int) -> None:
    given = case(time_steps)
    figure = accuracy_against_latency(**given)
    assert texts_overlap(figure) == []
    axes = figure.axes[0]
    low, high = axes.get_ylim()
    marks = [given["chosen"], *given["bounds"].values(), {"accuracy": 0.99, "mean_steps": 1.0}]
    marks.append({"accuracy": given["accuracy_at_t"][-1], "mean_steps": float(time_steps)})
    for mark in marks:
        assert low <= mark["accuracy"] <= high
        assert axes.get_xlim()[0] < mark["mean_steps"] <= axes.get_xlim()[1]
    ticks = axes.get_yticks()
    assert len(ticks) >= 3 and max(ticks) <= 1.0 + 1e-9
    labels = [text.get_text() for text in axes.get_yticklabels()]
    assert all(label.endswith(" %") for label in labels) and len(set(labels)) == len(labels)


@pytest.mark.parametrize("accuracy", [0.0, 1.0])
def test_extreme_accuracies(accuracy: float) -> None:
    correct = np.full((20, 6), bool(accuracy))
    front = exact_front(np.random.default_rng(0).normal(size=(20, 6)), correct)
    chosen = {"accuracy": accuracy, "mean_steps": 3.0}
    figure = accuracy_against_latency([accuracy] * 6, front, upper_bounds(correct), chosen, "title", SUBTITLE)
    assert texts_overlap(figure) == []
    low, high = figure.axes[0].get_ylim()
    assert low < accuracy < high


def test_the_histogram_shows_shares() -> None:
    figure = exit_histogram([10, 60, 20, 10], 2.4, "cifar10-resnet18-qcfs", SUBTITLE)
    axes = figure.axes[0]
    assert [bar.get_height() for bar in axes.patches] == [0.1, 0.6, 0.2, 0.1]
    assert legend_of(figure) == [
        "exit, confident",
        "at T = 4, not confident before: 10.0 %",
        "mean 2.40 steps, 40 % fewer",
    ]
    assert axes.get_ylabel() == "Share of the test samples"
    assert texts_overlap(figure) == []


@pytest.mark.parametrize("histogram", [[5], [0, 0, 7], [1] * 64])
def test_odd_histograms(histogram: list[int]) -> None:
    assert texts_overlap(exit_histogram(histogram, 1.0, "title")) == []


def test_threads_draw_the_same_picture() -> None:
    cases = [case(seed=seed) for seed in range(4)]
    alone = [png(accuracy_against_latency(**given)) for given in cases]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda given: png(accuracy_against_latency(**given)), cases))
    assert together == alone
    assert alone[0].startswith(b"\x89PNG") and alone[0] != alone[1]


def test_no_global_state_of_pyplot_is_loaded() -> None:
    code = """
import subprocess
import sys
from dynconf_core.evaluation.figures import exit_histogram
assert "matplotlib" not in sys.modules
exit_histogram([3, 2], 1.4, "title")
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_names_with_dollar_signs_are_text() -> None:
    assert png(exit_histogram([3, 2], 1.4, "$broken", "costs $1 {"))
