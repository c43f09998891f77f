"""Smoothing, scores and reliability, by values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dynconf_core import traces as traces_module
from dynconf_core.confidence.reliability import (
    expected_calibration_error,
    max_probability,
    negative_log_likelihood,
)
from dynconf_core.confidence.scores import SCORES, SHOWN, log_odds, score, shown, sigmoid
from dynconf_core.confidence.smoothing import Smoothing
from dynconf_core.errors import InputError
from dynconf_core.traces import Traces

LN2, LN3, LN4 = math.log(2), math.log(3), math.log(4)


def test_smoothing_by_hand() -> None:
    z = np.array([[[2.0, 4.0], [6.0, 8.0]]])
    assert Smoothing("sum", 2).apply(z).tolist() == [[[1, 2], [3, 4]]]
    assert Smoothing("mean", 2).apply(z).tolist() == [[[1, 2], [1.5, 2]]]
    assert z.tolist() == [[[2, 4], [6, 8]]], "the input stays as it was"


def test_smoothing_as_a_dict() -> None:
    smoothing = Smoothing("mean", 30)
    assert smoothing.to_dict() == {"form": "mean", "alpha": 30.0}
    assert Smoothing.from_dict(smoothing.to_dict()) == smoothing


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"form": "power", "alpha": 1}, "power"),
        ({"form": ["sum"], "alpha": 1}, "sum"),
        ({"form": "sum", "alpha": 0}, "alpha = 0"),
        ({"form": "sum", "alpha": -2.5}, "alpha = -2.5"),
        ({"form": "sum", "alpha": float("nan")}, "alpha = nan"),
        ({"form": "sum", "alpha": float("inf")}, "alpha = inf"),
        ({"form": "sum", "alpha": "30"}, "alpha = '30'"),
        ({"form": "sum", "alpha": True}, "alpha = True"),
        ({"form": "sum"}, "lacks"),
        ("sum", "lacks"),
    ],
)
def test_bad_smoothing_is_named(entry: object, words: str) -> None:
    with pytest.raises(InputError, match=words):
        Smoothing.from_dict(entry)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("smoothed", "expected"),
    [
        ([3.0, 1.0], 2.0),  # two classes: the gap itself
        ([1.0, 3.0], 2.0),
        ([0.0, 0.0], 0.0),
        ([0.0, 0.0, 0.0], -LN2),  # softmax 1/3, odds 1 to 2
        ([LN4, 0.0, 0.0], LN2),  # softmax 4/6, odds 2 to 1
        ([0.0, LN3, LN3], -math.log(4 / 3)),  # softmax 3/7, odds 3 to 4: a tie at the top
        ([1000.0, 0.0, 0.0], 1000.0 - LN2),  # where the softmax is long 1
        ([1e6, 0.0, -1e6], 1e6),
        ([1e300, -1e300], 2e300),
    ],
)
def test_log_odds_by_hand(smoothed: list[float], expected: float) -> None:
    assert log_odds(np.array([smoothed]))[0] == pytest.approx(expected, rel=1e-15, abs=1e-15)


def test_log_odds_are_those_of_the_softmax() -> None:
    smoothed = np.random.default_rng(0).normal(scale=3, size=(50, 4, 7))
    exponentials = np.exp(smoothed)
    softmax = (exponentials / exponentials.sum(axis=-1, keepdims=True)).max(axis=-1)
    np.testing.assert_allclose(log_odds(smoothed), np.log(softmax / (1 - softmax)), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(max_probability(smoothed), softmax, rtol=1e-14)


def test_log_odds_never_saturate() -> None:
    gaps = np.array([10.0, 36.0, 40.0, 700.0, 800.0, 1e5, 1e5 + 1e-3])
    smoothed = np.stack([gaps, np.zeros_like(gaps), np.full_like(gaps, -1.0)], axis=-1)
    assert (np.diff(log_odds(smoothed)) > 0).all()
    assert (np.diff(max_probability(smoothed)) == 0).any(), "the softmax, in contrast, does"


def test_an_overflow_of_z_is_surest_not_nan() -> None:
    with np.errstate(over="ignore"):
        smoothed = Smoothing("sum", 1e-300).apply(np.array([[[0.0, -1e100, -1e100]]]))
    assert log_odds(smoothed).tolist() == [[math.inf]]


def test_scores_of_traces_by_hand() -> None:
    # z: (2, 0), (2, 4), (8, 4); sums over 2 give gaps 1, 1, 2; means over 2 give 1, 1/2, 2/3.
    made = Traces(np.array([[[2, 0], [0, 4], [6, 0]]], np.float32), np.array([0]))
    assert score(made, "max_softmax", Smoothing("sum", 2)).tolist() == [[1, 1, 2]]
    np.testing.assert_allclose(score(made, "max_softmax", Smoothing("mean", 2)), [[1, 0.5, 2 / 3]], rtol=1e-15)


def test_pieces_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    made = Traces(rng.normal(size=(23, 5, 4)).astype(np.float16), rng.integers(0, 4, 23))
    whole = score(made, "max_softmax", Smoothing("mean", 3))
    assert whole.shape == (23, 5) and whole.dtype == np.float64
    monkeypatch.setattr(traces_module, "PIECE_ELEMENTS", 45)
    assert (score(made, "max_softmax", Smoothing("mean", 3)) == whole).all()


def test_what_a_person_reads() -> None:
    assert shown("max_softmax", 0.0) == 0.5
    assert shown("max_softmax", LN3) == pytest.approx(0.75, rel=1e-15)
    assert shown("max_softmax", -LN3) == pytest.approx(0.25, rel=1e-15)
    assert shown("max_softmax", math.inf) == 1.0
    assert shown("max_softmax", -math.inf) == 0.0
    assert sigmoid(-1000.0) == 0.0 and sigmoid(1000.0) == 1.0
    assert set(SHOWN) == set(SCORES)


@pytest.mark.parametrize("measure", ["softmax", "", None, ["max_softmax"]])
def test_an_unknown_measure_lists_the_known(measure: str) -> None:
    made = Traces(np.zeros((1, 1, 2)), np.zeros(1, int))
    with pytest.raises(InputError, match="max_softmax"):
        score(made, measure, Smoothing("sum", 1))
    with pytest.raises(InputError, match="max_softmax"):
        shown(measure, 0.0)


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
