"""The map over threshold and alpha, and the oracle curve: point by point, by hand, and against all possible exits."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from dynconf_core.confidence.temperature import fitting_alphas
from dynconf_core.errors import InputError
from dynconf_core.exit.front import exact_front
from dynconf_core.exit.judgement import OperatingPoint
from dynconf_core.exit.oracles import first_correct, oracle_curve, oracle_gap
from dynconf_core.exit.robustness import RobustnessMap, ThresholdRange, robustness_map
from dynconf_core.traces.schema import Traces


def made(samples: int = 60, time_steps: int = 7, classes: int = 4) -> Traces:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, samples)
    logits = rng.normal(size=(samples, time_steps, classes))
    logits[np.arange(samples), :, labels] += 0.9
    return Traces(logits, labels)


def test_every_point_of_the_map_is_the_rule_applied() -> None:
    traces = made()
    alphas, thresholds = [0.4, 2.0, 9.0], [0.3, 0.55, 0.9, 0.99]
    for form in ("sum", "mean"):
        found = robustness_map(traces, alphas, thresholds, form)  # type: ignore[arg-type]
        total = traces.logits.cumsum(axis=1)
        for (row, alpha), (column, threshold) in itertools.product(enumerate(alphas), enumerate(thresholds)):
            right, steps = 0, 0
            for sample in range(traces.samples):
                for step in range(7):
                    z = total[sample, step] / (alpha * (step + 1 if form == "mean" else 1))
                    softmax = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
                    if softmax.max() > threshold or step == 6:
                        right += int(z.argmax() == traces.labels[sample])
                        steps += step + 1
                        break
            assert found.accuracy[row, column] == pytest.approx(right / traces.samples)
            assert found.mean_steps[row, column] == pytest.approx(steps / traces.samples)
        assert found.full_accuracy == pytest.approx(traces.correct()[:, -1].mean())


def by_hand() -> RobustnessMap:
    accuracy = np.array(
        [
            [0.80, 0.85, 0.899, 0.90, 0.90],
            [0.85, 0.90, 0.900, 0.90, 0.90],
            [0.90, 0.80, 0.901, 0.90, 0.90],
        ]
    )
    steps = np.array(
        [
            [1.0, 2.0, 4.0, 7.0, 10.0],
            [2.0, 4.0, 5.0, 8.0, 10.0],
            [3.0, 5.0, 6.0, 9.0, 10.0],
        ]
    )
    return RobustnessMap("sum", np.array([1.0, 10.0, 1000.0]), np.array([0.1, 0.3, 0.4, 0.8, 0.9]), accuracy, steps, 0.9, 10)


def test_regions_and_widths_by_hand() -> None:
    found = by_hand()
    assert found.within.tolist() == [
        [False, False, True, True, True],
        [False, True, True, True, True],
        [True, False, True, True, True],
    ]
    # The largest saving within is 7 steps (at 3.0): half of it is had at 6.5 steps or fewer.
    assert found.useful.tolist() == [
        [False, False, True, False, False],
        [False, True, True, False, False],
        [True, False, True, False, False],
    ]
    widths = found.widths()
    assert vars(widths.within.threshold) == {"width": pytest.approx(0.6), "lowest": 0.3, "highest": 0.9, "alpha": 10.0}
    assert vars(widths.within.alpha) == {"decades": pytest.approx(3.0), "lowest": 1.0, "highest": 1000.0, "threshold": 0.4}
    assert vars(widths.useful.threshold) == {"width": pytest.approx(0.1), "lowest": 0.3, "highest": 0.4, "alpha": 10.0}
    anew = widths.useful.alpha_with_its_threshold
    assert (anew.decades, anew.lowest, anew.highest, anew.threshold) == (pytest.approx(3.0), 1.0, 1000.0, None)
    assert widths.useful.share == pytest.approx(5 / 15) and widths.tolerance == found.tolerance


def test_where_nothing_is_kept_or_saved() -> None:
    given = by_hand()
    bad = RobustnessMap("sum", given.alphas, given.thresholds, given.accuracy - 0.5, given.mean_steps, 0.9, 10)
    for region in (bad.widths().within, bad.widths().useful):
        assert region.threshold == ThresholdRange(0.0, None, None, None)
        assert region.alpha.decades == region.alpha_with_its_threshold.decades == region.share == 0.0
    never = RobustnessMap("sum", given.alphas, given.thresholds, np.full((3, 5), 0.9), np.full((3, 5), 10.0), 0.9, 10)
    assert never.within.all() and not never.useful.any()


def test_the_usual_alphas_fit_the_logits() -> None:
    traces = made()
    alphas = fitting_alphas(traces)
    louder = Traces(traces.logits * 1000.0, traces.labels)
    assert fitting_alphas(louder) == pytest.approx([1000 * alpha for alpha in alphas])
    assert alphas[-1] / alphas[0] == pytest.approx(100.0)
    assert robustness_map(louder).accuracy == pytest.approx(robustness_map(traces).accuracy)
    still = Traces(np.zeros((3, 2, 2)), np.zeros(3, int))
    assert robustness_map(still).within.all()


def test_bad_alphas_and_thresholds_are_refused() -> None:
    traces = made(5)
    for alphas, thresholds in (([], [0.5]), ([2.0, 1.0], [0.5]), ([1.0], [0.5, 0.5]), ([1.0], [0.0, 0.5]), ([1.0], [0.5, 1.0])):
        with pytest.raises(InputError, match=r"alphas|thresholds"):
            robustness_map(traces, alphas, thresholds)
    with pytest.raises(InputError, match="alpha"):
        robustness_map(traces, [0.0, 1.0], [0.5])


@pytest.mark.parametrize("seed", range(8))
def test_no_choice_of_exits_beats_the_oracle(seed: int) -> None:
    """All possible exits of 5 samples within 4 steps."""
    correct = np.random.default_rng(seed).random((5, 4)) < 0.4
    steps, accuracy = oracle_curve(correct)
    best: dict[float, float] = {}
    for exits in itertools.product(range(4), repeat=5):
        mean = (sum(exits) + 5) / 5
        right = float(np.mean([correct[sample, step] for sample, step in enumerate(exits)]))
        best[mean] = max(best.get(mean, 0.0), right)
    for mean, right in best.items():
        assert right <= np.interp(mean, steps, accuracy) + 1e-12
    # And each of its points can be had, if no more steps need be spent.
    for mean, reached in zip(steps, accuracy, strict=True):
        assert max(right for at, right in best.items() if at <= mean + 1e-12) == pytest.approx(reached)


CORRECT = np.array([[1, 1, 1, 1], [0, 1, 0, 1], [0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 1]], dtype=bool)


def test_the_oracle_curve_by_hand() -> None:
    steps, accuracy = oracle_curve(CORRECT)
    # First right at 1, 2, 2, never, 4: right at once 1/5; two wait 1 step more; one waits 3 more.
    assert steps == pytest.approx([1, 1 + 2 / 5, 1 + 2 / 5, 1 + 5 / 5])
    assert accuracy == pytest.approx([1 / 5, 3 / 5, 3 / 5, 4 / 5])
    assert first_correct(CORRECT) == OperatingPoint(0.8, 13 / 5)
    gap = oracle_gap(CORRECT, OperatingPoint(0.6, 3.0))
    assert vars(gap) == {
        "accuracy_gap": pytest.approx(0.2),
        "step_gap": pytest.approx(0.4),
        "share_of_saving": pytest.approx(1 / 1.4),
        "accuracy_gap_at_equal_steps": pytest.approx(0.2),
        "step_gap_at_equal_accuracy": pytest.approx(3.0 - 1.4),
    }
    at = oracle_gap(CORRECT, OperatingPoint(0.5, 1.2))
    assert at.accuracy_gap_at_equal_steps == pytest.approx(0.4 - 0.5), "a point beyond the oracle cannot be, but is not hidden"


def test_the_oracle_curve_at_extremes_and_above_all_fronts() -> None:
    never, always = np.zeros((3, 4), bool), np.ones((3, 4), bool)
    assert [curve.tolist() for curve in oracle_curve(never)] == [[1.0] * 4, [0.0] * 4]
    assert [curve.tolist() for curve in oracle_curve(always)] == [[1.0] * 4, [1.0] * 4]
    assert oracle_gap(never, OperatingPoint(0.0, 4.0)).share_of_saving == 1.0
    rng = np.random.default_rng(3)
    scores, correct = rng.normal(size=(40, 6)), rng.random((40, 6)) < 0.5
    front = exact_front(scores, correct)
    steps, accuracy = oracle_curve(correct)
    assert (front.accuracy <= np.interp(front.mean_steps, steps, accuracy) + 1e-12).all()
    assert math.isclose(accuracy[-1], first_correct(correct).accuracy)
    assert steps[-1] <= first_correct(correct).mean_steps
