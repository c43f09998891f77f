"""Warnings: what contradicts the figures is said with both figures, and sound traces are left in peace."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from study_cases import made

from dynconf_core.choosing.cross_fitting import Choice, HowChosen, UnseenLoss
from dynconf_core.confidence.max_softmax import sigmoid
from dynconf_core.confidence.smoothing import PLAIN, Smoothing
from dynconf_core.evaluation.analysis import analyse
from dynconf_core.evaluation.rule_warnings import choice_warnings, class_warnings, sample_warnings
from dynconf_core.evaluation.trace_warnings import trace_warnings
from dynconf_core.exit.by_class import figures_by_class
from dynconf_core.exit.exact_tests import net_loss_probability, share_probability
from dynconf_core.exit.judgement import Loss
from dynconf_core.exit.rule import Rule
from dynconf_core.exit.shown import exit_text, points, points_in_words, threshold_text
from dynconf_core.traces.schema import Traces


def noisy(samples: int, seed: int, noise: float, classes: int = 10, time_steps: int = 12) -> Traces:
    """Class means with noise of each image, which stays, and noise of each step, which averages out over time."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, classes, samples)
    means = 1.5 * np.eye(classes)[labels]
    steps = means[:, None, :] + noise * draw.normal(size=(samples, time_steps, classes))
    return Traces((steps + 0.3 * draw.normal(size=(samples, 1, classes))).astype(np.float32), labels)


def losing(labels: Any, lost: Any, gained: Any, known: int = 5000) -> list[str]:
    """The warnings about an exit at step 1 of 2, chosen on `known` samples, at which these samples are lost and gained."""
    lost, gained = np.isin(np.arange(len(labels)), lost), np.isin(np.arange(len(labels)), gained)
    correct = np.stack([~lost, ~gained], axis=1)
    figures = figures_by_class(correct, np.ones(len(labels), np.int64), np.asarray(labels))
    return class_warnings(figures, chosen(0.0, known, 0.001).calibrated)


def chosen(loss: float, samples: int, max_drop: float, most: float = 0.0) -> Choice:
    """A choice that loses `loss` on its samples; `most`: the end of the interval of the cross-fitted loss."""
    how = HowChosen("cross-fitted", samples, 24, 5, 0, 0.9, max_drop, max(max_drop, 1 / (samples + 1)))
    return Choice(calibration=Loss(0.9 - loss, 4.0, loss), cross_fitted=UnseenLoss(0.0, (-0.1, most), 4.0), calibrated=how)


def test_test_samples_that_contradict_a_guarantee_are_said() -> None:
    """The exit is certified on calibration samples with noise 1; the test samples have noise 2."""
    analysis = analyse(noisy(3000, 1, 1.0), noisy(2000, 2, 2.0), epsilon=0.01, delta=0.1, measures=["max_softmax"])
    guarantee = analysis.record.guarantee
    assert guarantee is not None and guarantee.certified
    found = [text for text in analysis.record.warnings if "contradict" in text]
    assert (
        len(found) == 1
        and f"loses {100 * guarantee.test.loss:.4g} points" in found[0]
        and "a loss of at most 1 point was promised" in found[0]
    )
    assert f"{100 * guarantee.test.loss_interval[0]:.2f} to" in found[0] and guarantee.test.loss_interval[0] > 0.01
    assert analysis.warnings == analysis.record.warnings and f"warning: {found[0]}" in str(analysis).splitlines()
    alike = analyse(noisy(3000, 1, 1.0), noisy(2000, 2, 1.0), epsilon=0.01, delta=0.1, measures=["max_softmax"])
    assert alike.record.guarantee is not None and alike.record.guarantee.certified and alike.record.warnings == ()


def test_test_samples_that_contradict_the_loss_in_expectation_are_said() -> None:
    """With the same samples as before, without a guarantee."""
    record = analyse(noisy(3000, 1, 1.0), noisy(2000, 2, 2.0), measures=["max_softmax"]).record
    (text,) = [text for text in record.warnings if "in expectation" in text]
    assert record.exit.loss_interval[0] > 0.001
    assert f"{100 * record.exit.loss_interval[0]:.2f} to {100 * record.exit.loss_interval[1]:.2f}" in text
    assert "chosen on 3000 calibration samples to lose at most 0.1 points in expectation" in text


def test_a_loss_on_the_samples_that_chose_is_said() -> None:
    (text,) = choice_warnings(chosen(0.03, 500, 0.01))
    assert "3 points on the 500 calibration samples" in text and "the 1 point allowed" in text and "--epsilon" in text
    assert choice_warnings(chosen(0.01, 500, 0.01)) == choice_warnings(chosen(0.002, 500, 0.0)) == []
    assert choice_warnings(chosen(-0.01, 500, 0.0)) == []
    assert len(choice_warnings(chosen(0.004, 500, 0.0))) == 1  # two samples, and one may be by chance
    assert choice_warnings(chosen(0.004, 500, 0.0, most=0.004)) == [], "within what is uncertain anyway"


def test_fewer_samples_than_a_promise_takes_are_said() -> None:
    """Two samples choose a rule that loses all that there is to lose."""
    few, many = noisy(2, 1, 1.0), noisy(500, 2, 1.0)
    said = [text for text in analyse(few, many, measures=["max_softmax"]).warnings if "asked for" in text]
    assert said == [
        "a loss of at most 0.1 points was asked for (max_drop), but 2 calibration samples can promise no less than 33.33: give "
        "at least 999 of them, or allow more."
    ]
    (text,) = sample_warnings(chosen(0.0, 50, 0.0).calibrated)
    assert "at most 0 points" in text and "no less than 1.961: give more of them." in text
    assert sample_warnings(chosen(0.0, 300, 0.001).calibrated) == [], "less than a point"
    assert sample_warnings(chosen(0.0, 50, 0.015).calibrated) == [], "nearly what was asked for"


COMMON = np.arange(1900)
"""The samples of a common class; the 100 after them are rare."""


@pytest.mark.parametrize("rare", [1, 9])
def test_rare_classes_that_lose_what_the_mean_hides_are_said(rare: int) -> None:
    """Of 2 000 samples, 95 % are of one class; the rare ones lose 6 points and the mean nothing."""
    labels = np.concatenate([np.zeros(1900, int), 1 + np.arange(100) % rare])
    (text,) = losing(labels, COMMON[-1] + 1 + np.arange(6), COMMON[:6])
    assert "6 points" in text and "all test samples together: 0.00 points lost" in text
    assert ("class 1 (100 samples) loses" if rare == 1 else "the 9 rare classes together (100 samples) lose") in text


def test_the_remedy_for_classes_that_lose_is_one_that_works() -> None:
    labels = np.repeat([0, 1], [1900, 100])
    (text,) = losing(labels, COMMON[-1] + 1 + np.arange(6), COMMON[:2])
    assert text.startswith("the loss falls on few classes: class 1") and "Allow a smaller loss (max_drop), or calibrate" in text
    (text,) = losing(labels, COMMON[-1] + 1 + np.arange(6), COMMON[:2], known=300)  # which can promise 0.33 points at best
    assert "0.20 points lost. Calibrate with more samples of these classes;" in text and "max_drop" not in text
    (text,) = losing(labels, COMMON[-1] + 1 + np.arange(6), COMMON[:8])
    assert text.startswith("few classes lose what others gain: class 1 (100 samples) loses 6 points; all test samples together")
    assert "0.10 points gained. Calibrate with more" in text and "max_drop" not in text


def test_several_classes_that_lose_are_named() -> None:
    labels = np.arange(5000) % 10
    lost = np.concatenate([np.flatnonzero(labels == label)[:60] for label in (1, 2, 3, 4)])
    (text,) = losing(labels, lost, [])
    assert "class 1 (500 samples) loses 12 points, class 2 (500 samples) 12 points" in text and "and 1 more" in text


@pytest.mark.parametrize(("classes", "samples", "sets"), [(10, 1000, 300), (100, 5000, 60)])
def test_a_loss_that_falls_on_all_alike_is_not_said(classes: int, samples: int, sets: int) -> None:
    """At most 1 % of sets may be named by chance; 300 and 60 of them name at most 8 and 4 with a probability above 99.5 %."""
    draw, named = np.random.default_rng(0), 0
    for _ in range(sets):
        labels, changed = draw.integers(0, classes, samples), draw.permutation(samples)
        named += bool(losing(labels, changed[: samples // 50], changed[-(samples // 100) :]))
    assert named <= (8 if sets == 300 else 4)


def test_probabilities_of_the_exact_tests_by_drawing() -> None:
    draw = np.random.default_rng(0)
    values = np.concatenate([np.ones(12), -np.ones(7), np.zeros(181)])
    parts = np.array([values[draw.permutation(200)[:40]].sum() for _ in range(20_000)])
    for lost, gained in ((5, 1), (3, 3), (6, 0)):
        assert net_loss_probability((40, lost, gained), (200, 12, 7)) == pytest.approx(
            (parts >= lost - gained).mean(), abs=0.012
        )
    right = np.array([(draw.permutation(220)[:100] < 190).sum() for _ in range(20_000)])
    assert share_probability(90, 100, 190, 220) == pytest.approx((right >= 90).mean(), abs=0.012)
    assert share_probability(0, 10, 5, 20) == pytest.approx(1.0) and share_probability(10, 10, 5, 20) == 0.0


def right(samples: int, accuracy: float, seed: int) -> Traces:
    """Samples of four classes of which this share is right at T."""
    traces, count = made(samples, seed, 4, 4), round(accuracy * samples)
    labels = traces.predictions()[:, -1].copy()
    labels[count:] = (labels[count:] + 1) % 4
    return Traces(traces.logits, labels)


def test_calibration_images_seen_in_training_are_said() -> None:
    (text,) = trace_warnings(right(1000, 0.992, 1), right(1000, 0.92, 2))
    assert "99.2 % on the calibration samples, 92.0 % on the test samples" in text and "never saw" in text
    seen = replace(right(1000, 0.992, 1), meta={"trained_on_calibration": True})
    (text,) = trace_warnings(seen, right(1000, 0.92, 2))
    assert "was trained on the calibration images (99.2 %" in text
    (text,) = trace_warnings(replace(right(1000, 0.93, 1), meta=seen.meta), right(1000, 0.92, 2))
    assert "was trained on the calibration images: on unseen" in text
    assert trace_warnings(right(1000, 0.93, 1), right(1000, 0.92, 2)) == []
    (text,) = trace_warnings(right(1000, 0.92, 1), right(1000, 0.992, 2))  # not by training
    assert "do not come from one source" in text and "correct predictions at T is larger" in text and "trained" not in text
    assert trace_warnings(right(60, 0.95, 1), right(60, 0.85, 2)) == []  # too few to tell
    assert trace_warnings(right(20_000, 0.93, 1), right(20_000, 0.92, 2)) == []  # significant, and of no consequence


def test_probabilities_instead_of_logits_are_said() -> None:
    def softmax(traces: Traces) -> Traces:
        found = np.exp(traces.logits)
        return replace(traces, logits=found / found.sum(axis=2, keepdims=True))

    calibration, test = made(300, 1), made(200, 2)
    assert trace_warnings(calibration, test) == []
    (text,) = trace_warnings(softmax(calibration), softmax(test))
    assert "calibration and test traces are probabilities" in text and "before the softmax" in text
    (text,) = trace_warnings(calibration, softmax(test))
    assert "the logits of the test traces" in text
    spikes = replace(calibration, logits=np.eye(4)[calibration.logits.argmax(axis=2)])
    assert not any("probabilities" in text for text in trace_warnings(spikes, test))  # one spike at every step


@pytest.mark.parametrize(
    ("odds", "text"),
    [
        *((0.0, "0.5"), (2.0, "0.8808"), (10.0, "0.99995"), (12.4, "0.999996"), (15.0, "0.9999997"), (17.0, "1 - 4e-08")),
        *((20.0, "1 - 2e-09"), (36.0, "1 - 2e-16"), (40.0, "1 - 4e-18"), (800.0, "1 - 4e-348")),
    ],
)
def test_a_threshold_below_1_is_not_shown_as_1(odds: float, text: str) -> None:
    assert threshold_text(odds, sigmoid(odds)) == text
    if odds < 36:
        assert eval(text) == pytest.approx(sigmoid(odds), rel=1e-4) and eval(text) < 1


def test_other_thresholds_and_losses_as_text() -> None:
    assert [threshold_text(x, x) for x in (3.0, 17.2061, 3.3478e-05, 1.0)] == ["3", "17.21", "3.348e-05", "1"]
    assert (threshold_text(math.inf, 1.0), threshold_text(-math.inf, 0.0)) == ("never", "at once")
    assert exit_text("softmax", 12.4, sigmoid(12.4)) == "exits once the softmax passes 0.999996"
    assert (
        exit_text("gap", math.inf, math.inf) == "never exits before T" and exit_text("gap", -math.inf, 0.0) == "exits at once"
    )
    assert [points(loss) for loss in (0.0, -0.00001, 0.0012, -0.05)] == ["0.00", "0.00", "0.12 lost", "5.00 gained"]
    assert [points_in_words(loss) for loss in (0.0, 0.0012, -0.05)] == [
        "0.00 points lost",
        "0.12 points lost",
        "5.00 points gained",
    ]


def test_a_rule_in_words_names_what_its_threshold_is_compared_with() -> None:
    half = Smoothing("sum", 2.0)
    assert Rule("gap", half, 2.312).in_words() == "exits once the gap of z' = z / 2 passes 2.312"
    assert Rule("max_softmax", half, 0.0).in_words() == "exits once the softmax of z' = z / 2 passes 0.5"
    assert Rule("gap", PLAIN, 2.312).in_words() == "exits once the gap passes 2.312"
    assert Rule("patience", half, 3.0).in_words() == "exits once the number of steps unchanged passes 3"  # reads no z'
    assert Rule("max_softmax", half, math.inf).in_words() == "never exits before T"
    assert Rule("max_softmax", half, -math.inf).in_words() == "exits at once"
