"""Reliability and the fitted temperature, by hand and against a second implementation."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import log_loss

from dynconf_core.confidence.calibration_error import (
    calibration_over_time,
    expected_calibration_error,
    negative_log_likelihood,
    reliability_diagram,
)
from dynconf_core.confidence.smoothing import Smoothing
from dynconf_core.confidence.temperature import fit_power
from dynconf_core.errors import InputError
from dynconf_core.traces.schema import Traces

LN3, LN4 = math.log(3), math.log(4)


def test_calibration_error_by_hand() -> None:
    # 15 bins of 1/15. 0.62 and 0.65 share (9/15, 10/15]: one right of two, mean 0.635, off by 0.135.
    # 0.99 is alone in the last and right, off by 0.01; 0.5 alone in (7/15, 8/15] and wrong, off by 0.5.
    confidence = np.array([0.62, 0.65, 0.99, 0.5])
    correct = np.array([True, False, True, False])
    expected = (2 * 0.135 + 0.01 + 0.5) / 4
    assert expected_calibration_error(confidence, correct) == pytest.approx(expected, rel=1e-12)


def test_bins_are_right_closed() -> None:
    # With two bins 0.5 belongs to the lower, (0, 0.5], as does 0: 0.5 + 0.3 + 0 for one right of three.
    confidence = np.array([0.5, 0.3, 0.0, 1.0])
    correct = np.array([True, False, False, True])
    assert expected_calibration_error(confidence, correct, bins=2) == pytest.approx(0.2 / 4, rel=1e-12)


@pytest.mark.parametrize(
    ("confidence", "correct"),
    [
        (np.zeros(0), np.zeros(0, bool)),
        (np.zeros(2), np.zeros(3, bool)),
        (np.array([1.5]), np.array([True])),
        (np.array([np.nan]), np.array([True])),
    ],
)
def test_calibration_error_refuses(confidence: np.ndarray, correct: np.ndarray) -> None:
    with pytest.raises(ValueError, match="confidence"):
        expected_calibration_error(confidence, correct)


def test_negative_log_likelihood_by_hand() -> None:
    # Softmax of (ln 3, 0) is (3/4, 1/4): labels 0 and 1 cost ln 4/3 and ln 4; a hopeless one its gap.
    smoothed = np.array([[LN3, 0.0], [LN3, 0.0], [5000.0, 0.0]])
    expected = (math.log(4 / 3) + LN4 + 5000.0) / 3
    assert negative_log_likelihood(smoothed, np.array([0, 1, 1])) == pytest.approx(expected, rel=1e-14)


def second_error(confidence: np.ndarray, correct: np.ndarray, bins: int) -> float:
    """Expected calibration error, sample by sample."""
    held: dict[int, list[tuple[float, bool]]] = {}
    for value, right in zip(confidence.tolist(), correct.tolist(), strict=True):
        held.setdefault(max(math.ceil(value * bins) - 1, 0), []).append((value, right))
    off = [abs(sum(right for _, right in inside) - sum(value for value, _ in inside)) for inside in held.values()]
    return sum(off) / len(confidence)


def test_the_diagram_against_scikit_learn_and_the_error_against_a_second_one() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.1, 1, 3000)
    correct = rng.random(3000) < confidence**2
    diagram = reliability_diagram(confidence, correct)
    filled = diagram.counts > 0
    accuracy, mean = calibration_curve(correct, confidence, n_bins=15)
    np.testing.assert_allclose(diagram.accuracy[filled], accuracy, rtol=1e-12)
    np.testing.assert_allclose(diagram.confidence[filled], mean, rtol=1e-12)
    error = expected_calibration_error(confidence, correct)
    assert error == pytest.approx(second_error(confidence, correct, 15), rel=1e-12) and error > 0.05
    weights = diagram.counts[filled] / 3000
    assert error == pytest.approx(float((weights * np.abs(accuracy - mean)).sum()), rel=1e-12)


def test_the_columns_of_a_diagram_as_json() -> None:
    diagram = reliability_diagram(np.array([0.2, 0.9, 1.0]), np.array([True, False, True]), bins=2)
    columns = json.loads(json.dumps(diagram.columns(), allow_nan=False))
    assert columns == [[1, 2], [0.2, 0.95], [1.0, 0.5]]
    columns = json.loads(json.dumps(reliability_diagram(np.array([1.0]), np.array([True]), bins=2).columns(), allow_nan=False))
    assert columns == [[0, 1], [None, 1.0], [None, 1.0]]


def made_traces(samples: int = 400, time_steps: int = 6, classes: int = 4, seed: int = 0) -> Traces:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, samples)
    logits = rng.normal(scale=2, size=(samples, time_steps, classes))
    logits[np.arange(samples), :, labels] += 1.0
    return Traces(logits.astype(np.float32), labels)


def test_over_time_against_scikit_learn() -> None:
    traces = made_traces()
    smoothing = Smoothing("mean", 0.7)
    exits = np.random.default_rng(1).integers(1, 7, 400)
    figures = calibration_over_time(traces, smoothing, exits, steps=(1, 6))
    z = traces.logits.astype(np.float64).cumsum(axis=1) / (0.7 * np.arange(1, 7))[:, None]
    softmax = np.exp(z) / np.exp(z).sum(axis=-1, keepdims=True)
    for step in range(6):
        top, right = softmax[:, step].max(axis=1), softmax[:, step].argmax(axis=1) == traces.labels
        assert figures.nll_at_t[step] == pytest.approx(log_loss(traces.labels, softmax[:, step]), rel=1e-12)
        assert figures.ece_at_t[step] == pytest.approx(second_error(top, right, 15), rel=1e-12)
    left = softmax[np.arange(400), exits - 1]
    assert figures.nll_at_exit == pytest.approx(log_loss(traces.labels, left), rel=1e-12)
    expected = second_error(left.max(axis=1), left.argmax(axis=1) == traces.labels, 15)
    assert figures.ece_at_exit == pytest.approx(expected, rel=1e-12)
    assert set(figures.diagrams) == {1, 6}
    assert json.loads(json.dumps(figures.diagrams[6].columns(), allow_nan=False)) == [*map(list, figures.diagrams[6].columns())]
    assert figures.diagram_at_exit.counts.sum() == 400


@pytest.mark.parametrize("step", [0, 7, -1])
def test_a_step_outside_is_named(step: int) -> None:
    with pytest.raises(InputError, match=f"step = {step} .* from 1 to 6"):
        calibration_over_time(made_traces(), Smoothing("sum", 1), np.ones(400, dtype=np.int64), steps=(step,))


def test_the_temperature_that_made_the_labels_is_found() -> None:
    # z_t is drawn, then labels of the softmax of z_t / (3 t^0.6) for a step of each sample's own.
    rng = np.random.default_rng(0)
    samples, time_steps, classes = 40_000, 8, 3
    z = rng.normal(scale=6, size=(samples, 1, classes)) * (np.arange(1, time_steps + 1) ** 0.6)[:, None]
    softmax = np.exp(z[:, 0] / 3) / np.exp(z[:, 0] / 3).sum(axis=1, keepdims=True)
    labels = (softmax.cumsum(axis=1) < rng.random((samples, 1))).sum(axis=1)
    found = fit_power(Traces(np.diff(z, axis=1, prepend=0), labels))
    assert found.form == "power"
    assert found.alpha == pytest.approx(3, rel=0.02) and found.exponent == pytest.approx(0.6, abs=1e-3)


@pytest.mark.parametrize("exponent", [None, 0.0, 1.0])
def test_no_temperature_near_the_fitted_one_is_likelier(exponent: float | None) -> None:
    traces = made_traces()
    found = fit_power(traces, exponent)
    assert found.exponent is not None and exponent in (None, found.exponent)

    def cost(alpha: float, exponent: float) -> float:  # all six steps are taken
        smoothed = Smoothing("power", alpha, exponent).apply(traces.logits.astype(np.float64).cumsum(axis=1))
        return float(np.mean([negative_log_likelihood(smoothed[:, t], traces.labels) for t in range(6)]))

    least = cost(found.alpha, found.exponent)
    for factor in (0.97, 1.03):
        assert cost(found.alpha * factor, found.exponent) > least
        assert exponent is not None or cost(found.alpha, found.exponent * factor) > least
    assert cost(found.alpha, found.exponent) < cost(30.0, 0.0)


def test_separable_labels_end_at_a_finite_temperature() -> None:
    labels = np.arange(20) % 2
    logits = np.where(np.arange(2) == labels[:, None, None], 1.0, 0.0) + np.zeros((20, 4, 2))
    found = fit_power(Traces(logits, labels))
    assert 0 < found.alpha < 1


def test_equal_logits_are_refused() -> None:
    with pytest.raises(InputError, match="all equal"):
        fit_power(Traces(np.ones((5, 3, 4)), np.zeros(5, int)))
    with pytest.raises(InputError, match="exponent = 9"):
        fit_power(made_traces(), 9)


def test_evenly_spaced_samples_are_used_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    traces = made_traces(samples=200)
    third = fit_power(Traces(traces.logits[::3], traces.labels[::3]))
    monkeypatch.setattr("dynconf_core.confidence.temperature.ELEMENTS", 70 * 6 * 4)
    monkeypatch.setattr("dynconf_core.traces.schema.PIECE_ELEMENTS", 17 * 6 * 4)  # pieces that no stride divides
    assert fit_power(traces) == third
