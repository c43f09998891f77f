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

from dynconf_core.choosing.guarantee import certify
from dynconf_core.evaluation.record import Bins
from dynconf_core.exit.front import exact_front
from dynconf_core.exit.intervals import accuracy_interval
from dynconf_core.exit.judgement import OperatingPoint
from dynconf_core.exit.oracles import oracle_curve, oracles
from dynconf_core.exit.robustness import RobustnessMap
from dynconf_core.figures.accuracy import accuracy_against_latency, exit_histogram
from dynconf_core.figures.canvas import MOST_POINTS, thinned
from dynconf_core.figures.guarantee import guarantee_figure
from dynconf_core.figures.reliability import reliability_figure
from dynconf_core.figures.robustness import robustness_figure
from dynconf_core.figures.rules import rules_figure

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
        "oracles": oracles(correct).points(),
        "chosen": OperatingPoint(float(front.accuracy[middle]), float(front.mean_steps[middle])),
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
    """Pairs of drawn texts whose boxes meet; a text that leaves the picture meets its edge."""
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    texts = [*figure.legends[0].get_texts()]
    for axes in figure.axes:
        texts += [axes.title, axes._left_title, axes.xaxis.label, axes.yaxis.label, *axes.texts]  # type: ignore[attr-defined]
        for axis in (axes.xaxis, axes.yaxis):
            texts += [tick.label1 for tick in axis._update_ticks() if tick.label1.get_visible()]  # type: ignore[attr-defined]
    drawn = [text for text in texts if text.get_text() and text.get_visible()]
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in drawn]
    width, height = figure.canvas.get_width_height()
    outside = [(name, "edge") for name, box in boxes if box.x0 < 0 or box.y0 < 0 or box.x1 > width or box.y1 > height]
    return outside + [
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
    known = {
        "first_correct": OperatingPoint(1.0, 1.5),
        "stays_correct": OperatingPoint(0.955, 1.75),
        "aet": OperatingPoint(1.0, 1.5),
        "another_one": OperatingPoint(0.5, 1.25),
    }
    figure = accuracy_against_latency([0.5, 1.0], front, known, OperatingPoint(1.0, 1.5), "title", ann_accuracy=0.987)
    assert legend_of(figure) == [
        "ANN: 98.7 %",
        "SNN, fixed steps: 100.0 % @ 2",
        "SNN, dynamic: every threshold",
        "Oracle, first correct = AET: 100.0 % @ 1.50",
        "Oracle, stays correct: 95.5 % @ 1.75",
        "Oracle, another one: 50.0 % @ 1.25",
        "Chosen: 100.0 % @ 1.50, 25 % fewer steps",
    ]


@pytest.mark.parametrize("time_steps", [1, 2, 4, 8, 27, 32, 64])
def test_every_mark_is_inside_and_no_text_overlaps(time_steps: int) -> None:
    given = case(time_steps)
    figure = accuracy_against_latency(**given)
    assert texts_overlap(figure) == []
    axes = figure.axes[0]
    low, high = axes.get_ylim()
    marks = [given["chosen"], *given["oracles"].values(), OperatingPoint(0.99, 1.0)]
    marks.append(OperatingPoint(given["accuracy_at_t"][-1], float(time_steps)))
    for mark in marks:
        assert low <= mark.accuracy <= high
        assert axes.get_xlim()[0] < mark.mean_steps <= axes.get_xlim()[1]
    ticks = axes.get_yticks()
    assert len(ticks) >= 3 and max(ticks) <= 1.0 + 1e-9
    labels = [text.get_text() for text in axes.get_yticklabels()]
    assert all(label.endswith(" %") for label in labels) and len(set(labels)) == len(labels)


@pytest.mark.parametrize("accuracy", [0.0, 1.0])
def test_extreme_accuracies(accuracy: float) -> None:
    correct = np.full((20, 6), bool(accuracy))
    front = exact_front(np.random.default_rng(0).normal(size=(20, 6)), correct)
    chosen = OperatingPoint(accuracy, 3.0)
    figure = accuracy_against_latency([accuracy] * 6, front, oracles(correct).points(), chosen, "title", SUBTITLE)
    assert texts_overlap(figure) == []
    low, high = figure.axes[0].get_ylim()
    assert low < accuracy < high


def test_the_histogram_shows_shares() -> None:
    figure = exit_histogram([10, 60, 20, 10], 2.4, "cifar10-resnet18-qcfs", SUBTITLE)
    axes = figure.axes[0]
    assert [bar.get_height() for bar in axes.patches] == [0.1, 0.6, 0.2, 0.1]
    assert legend_of(figure) == [
        "confident",
        "at T = 4, never confident before: 10.0 %",
        "mean: 2.40 steps, 40 % fewer",
    ]
    assert axes.get_ylabel() == "Share of the test samples"
    assert texts_overlap(figure) == []


@pytest.mark.parametrize("histogram", [[5], [0, 0, 7], [1] * 64])
def test_odd_histograms(histogram: list[int]) -> None:
    assert texts_overlap(exit_histogram(histogram, 1.0, "title")) == []


def test_the_oracle_curve_is_drawn_where_given() -> None:
    given = case()
    correct = np.random.default_rng(0).random((50, 32)) < 0.8
    figure = accuracy_against_latency(**given, best=oracle_curve(correct))
    line = next(line for line in figure.axes[0].lines if "any budget" in str(line.get_label()))
    assert np.asarray(line.get_ydata()).tolist() == oracle_curve(correct)[1].tolist()
    assert texts_overlap(figure) == []


def test_a_front_of_many_points_is_thinned_and_keeps_its_shape() -> None:
    rng = np.random.default_rng(0)
    front = exact_front(rng.random((3000, 16)).cumsum(axis=1), rng.random((3000, 16)) < 0.8)
    steps, accuracy = thinned(front)
    assert MOST_POINTS / 2 < len(steps) <= MOST_POINTS < len(front)
    assert (steps[0], steps[-1], accuracy[-1]) == (front.mean_steps[0], front.mean_steps[-1], front.accuracy[-1])
    assert np.abs(np.interp(front.mean_steps, steps, accuracy) - front.accuracy).max() < 0.005


def guaranteed(epsilon: float, samples: int = 2000, time_steps: int = 32) -> Figure:
    rng = np.random.default_rng(0)
    lead = (rng.gamma(1.0, 1.0, (samples, 1)) + rng.normal(size=(samples, time_steps))).cumsum(axis=1)
    found = certify(np.abs(lead), lead > 0, np.linspace(0.5, 40.0, 80), epsilon, 0.05)
    return guarantee_figure(found, time_steps, "cifar10-resnet18-qcfs", SUBTITLE)


def test_the_guarantee_shows_what_was_lost_and_what_certifies() -> None:
    figure = guaranteed(0.02)
    assert texts_overlap(figure) == []
    words = legend_of(figure)
    assert words[0] == "guaranteed: at most 2 points" and "measured on 2000 samples" in words
    assert any(word.startswith("certified: ") and word.endswith(" mean steps") for word in words)
    lines = {str(line.get_label()): line for line in figure.axes[0].lines}
    lost = np.asarray(lines["measured on 2000 samples"].get_ydata())
    allowed = np.asarray(
        next(line for name, line in lines.items() if name.startswith("largest measured loss that is certified")).get_ydata()
    )
    mark = next(line for name, line in lines.items() if name.startswith("certified"))
    at = np.flatnonzero(lost[1:] > allowed)[0]
    assert np.asarray(mark.get_ydata())[0] == lost[at], "the last before the first that lost too much"


@pytest.mark.parametrize(("epsilon", "samples"), [(0.001, 200), (0.3, 200), (0.5, 2), (0.01, 5000)])
def test_guarantees_of_all_kinds_can_be_drawn(epsilon: float, samples: int) -> None:
    figure = guaranteed(epsilon, samples)
    assert texts_overlap(figure) == []
    nothing = "nothing certified: never exit" in legend_of(figure)
    assert nothing == (samples * epsilon < 3)
    low, high = figure.axes[0].get_ylim()
    assert low < 0 < 100 * epsilon < high


def mapped(alphas: int = 21, thresholds: int = 99) -> RobustnessMap:
    alpha, threshold = np.geomspace(20, 2000, alphas), np.linspace(0.01, 0.99, thresholds)
    late = 1 / (1 + np.exp(-(np.log(alpha)[:, None] - 5 + 4 * threshold)))
    return RobustnessMap("sum", alpha, threshold, 0.9 - 0.2 * (1 - late) ** 8, 1 + 31 * late, 0.9, 32)


@pytest.mark.parametrize(("alphas", "thresholds"), [(21, 99), (2, 2), (1, 1), (5, 40)])
def test_the_robustness_map_shows_both_and_the_border(alphas: int, thresholds: int) -> None:
    found = mapped(alphas, thresholds)
    figure = robustness_figure(found, "cifar10-resnet18-qcfs", SUBTITLE, (0.6, 100.0))
    assert texts_overlap(figure) == []
    lost, steps = (axes.collections[0].get_array() for axes in figure.axes[:2])
    assert np.asarray(steps).reshape(alphas, thresholds) == pytest.approx(found.mean_steps)
    assert np.asarray(lost).reshape(alphas, thresholds) == pytest.approx(np.clip(100 * (0.9 - found.accuracy), 0, 2))
    # Every inner edge between useful and not useful, and the outer ones: as long as the region is round.
    padded = np.pad(found.useful, 1)
    edges = (padded[1:] != padded[:-1]).sum() + (padded[:, 1:] != padded[:, :-1]).sum()
    assert len(figure.axes[0].lines) == edges + 1
    assert legend_of(figure)[1] == "chosen"


def test_rules_are_compared_by_their_fronts_and_chosen_points() -> None:
    rng = np.random.default_rng(1)
    lead = (rng.gamma(1.0, 1.0, (300, 1)) + rng.normal(size=(300, 16))).cumsum(axis=1)
    names = ["max_softmax", "entropy", "gap", "patience", "learned", "a seventh $ rule", "more"]
    fronts = {name: exact_front(np.abs(lead) / np.arange(1, 17) ** (0.1 * n), lead > 0) for n, name in enumerate(names)}
    chosen = {name: OperatingPoint(float(front.accuracy[-5]), 7.0) for name, front in fronts.items() if name != "gap"}
    figure = rules_figure(fronts, chosen, 0.93, 16, "cifar10-resnet18-qcfs", SUBTITLE, split="calibration")
    assert texts_overlap(figure) == []
    words = legend_of(figure)
    assert words[0] == "all 16 steps: 93.0 %" and words[3] == "gap" and words[1].startswith("max_softmax: 9")
    curves = [line for line in figure.axes[0].lines if len(np.asarray(line.get_xdata())) > 2]
    assert [len(np.asarray(line.get_xdata())) for line in curves] == [len(front) for front in fronts.values()]
    assert figure.axes[0].get_ylabel() == "Calibration accuracy"


def test_the_reliability_of_two_ends() -> None:
    bins = Bins((3, 10, 0, 40), (0.1, 0.5, None, 0.9), (0.0, 0.6, None, 1.0))
    figure = reliability_figure({"at T": (bins, 0.0567), "at the exit": (bins, None)}, "cifar10-resnet18-qcfs", SUBTITLE)
    assert texts_overlap(figure) == []
    assert legend_of(figure) == ["perfectly calibrated", "at T, expected calibration error 5.7 %", "at the exit"]
    above, below = figure.axes
    line = above.containers[0][0]
    assert np.asarray(line.get_xdata()).tolist() == [0.1, 0.5, 0.9] and np.asarray(line.get_ydata()).tolist() == [0.0, 0.6, 1.0]
    segments = above.containers[0][2][0].get_segments()
    assert [segment[:, 1].tolist() for segment in segments] == [
        pytest.approx(accuracy_interval(right, n)) for right, n in ((0, 3), (6, 10), (40, 40))
    ]
    assert [bar.get_height() for bar in below.containers[0]] == pytest.approx([3 / 53, 10 / 53, 0, 40 / 53])


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
from dynconf_core.figures.accuracy import exit_histogram
assert "matplotlib" not in sys.modules
exit_histogram([3, 2], 1.4, "title")
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_names_with_dollar_signs_are_text() -> None:
    assert png(exit_histogram([3, 2], 1.4, "$broken", "costs $1 {"))
