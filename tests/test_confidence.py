"""Smoothing, scores and measures, by values worked out by hand and against arithmetic of 60 digits."""

from __future__ import annotations

import decimal
import math
from collections.abc import Callable
from decimal import Decimal

import numpy as np
import pytest
import torch

from dynconf_core.confidence import measure as measure_module
from dynconf_core.confidence.calibration_error import max_probability
from dynconf_core.confidence.elementary import exponential, gap, logarithm, logarithm_1p, total
from dynconf_core.confidence.entropy import Entropy
from dynconf_core.confidence.max_softmax import MaxSoftmax, sigmoid
from dynconf_core.confidence.measure import MEASURES, MeasureLike, measure_of, scores_of
from dynconf_core.confidence.patience import standing
from dynconf_core.confidence.smoothing import Smoothing
from dynconf_core.errors import InputError
from dynconf_core.traces import schema as traces_module
from dynconf_core.traces.schema import Traces

log_odds, negative_entropy = MaxSoftmax().of_smoothed, Entropy().of_smoothed
LN2, LN3, LN4 = math.log(2), math.log(3), math.log(4)


def score(traces: Traces, measure: MeasureLike, smoothing: Smoothing) -> np.ndarray:
    return scores_of(measure_of(measure), traces, smoothing)


def shown(measure: str, value: float) -> float:
    return measure_of(measure).shown(value)


def test_smoothing_by_hand() -> None:
    z = np.array([[[2.0, 4.0], [6.0, 8.0]]])
    assert Smoothing("sum", 2).apply(z).tolist() == [[[1, 2], [3, 4]]]
    assert Smoothing("mean", 2).apply(z).tolist() == [[[1, 2], [1.5, 2]]]
    power = Smoothing("power", 2, 0.5).apply(z)
    np.testing.assert_allclose(power, [[[1, 2], [3 / math.sqrt(2), 4 / math.sqrt(2)]]], rtol=1e-15)
    assert z.tolist() == [[[2, 4], [6, 8]]], "the input stays as it was"


def test_sum_and_mean_are_powers() -> None:
    steps = torch.arange(1, 65)
    assert torch.equal(Smoothing("power", 3, 0).temperature(steps), Smoothing("sum", 3).temperature(steps))
    mean = Smoothing("mean", 3).temperature(steps)
    torch.testing.assert_close(Smoothing("power", 3, 1).temperature(steps), mean, rtol=1e-14, atol=0)
    assert (Smoothing("power", 3, -0.5).temperature(steps).diff() < 0).all()


def test_smoothing_as_a_dict() -> None:
    smoothing = Smoothing("mean", 30)
    assert smoothing.to_dict() == {"form": "mean", "alpha": 30.0}
    assert Smoothing.from_dict(smoothing.to_dict()) == smoothing
    power = Smoothing("power", 30, 0.25)
    assert power.to_dict() == {"form": "power", "alpha": 30.0, "exponent": 0.25}
    assert Smoothing.from_dict(power.to_dict()) == power


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"form": "cubic", "alpha": 1}, "cubic"),
        ({"form": "power", "alpha": 1}, "exponent = None"),
        ({"form": "power", "alpha": 1, "exponent": "1"}, "exponent = '1'"),
        ({"form": "power", "alpha": 1, "exponent": float("nan")}, "exponent = nan"),
        ({"form": "power", "alpha": 1, "exponent": 9}, "exponent = 9"),
        ({"form": "sum", "alpha": 1, "exponent": 1}, "exponent = 1"),
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
    assert log_odds(torch.tensor([smoothed], dtype=torch.float64)).item() == pytest.approx(expected, rel=1e-15, abs=1e-15)


def test_log_odds_are_those_of_the_softmax() -> None:
    smoothed = np.random.default_rng(0).normal(scale=3, size=(50, 4, 7))
    exponentials = np.exp(smoothed)
    softmax = (exponentials / exponentials.sum(axis=-1, keepdims=True)).max(axis=-1)
    np.testing.assert_allclose(log_odds(torch.from_numpy(smoothed)), np.log(softmax / (1 - softmax)), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(max_probability(smoothed), softmax, rtol=1e-14)


def test_log_odds_never_saturate() -> None:
    gaps = np.array([10.0, 36.0, 40.0, 700.0, 800.0, 1e5, 1e5 + 1e-3])
    smoothed = np.stack([gaps, np.zeros_like(gaps), np.full_like(gaps, -1.0)], axis=-1)
    assert (log_odds(torch.from_numpy(smoothed)).diff() > 0).all()
    assert (np.diff(max_probability(smoothed)) == 0).any(), "the softmax, in contrast, does"


@pytest.mark.parametrize("z", [[0.0, -1e100, -1e100], [1e100, 0, 0], [1e100, -1e100, 0], [0, 0, 1e100]])
@pytest.mark.parametrize("smoothing", [Smoothing("sum", 1e-300), Smoothing("power", 5e-324, -8.0)])
def test_an_overflow_of_z_gives_the_highest_score_not_nan(z: list[float], smoothing: Smoothing) -> None:
    smoothed = torch.from_numpy(smoothing.apply(np.array([[z, z]])))
    assert (log_odds(smoothed) > 1e300).all() and (gap(smoothed) > 1e300).all() and (negative_entropy(smoothed) == 0).all()


# Exponential, logarithm and the entropy against arithmetic of 60 digits.


def precisely(function: Callable[[Decimal], Decimal], values: torch.Tensor, digits: int = 60) -> torch.Tensor:
    with decimal.localcontext(prec=digits):
        return torch.tensor([float(function(Decimal(value))) for value in values.tolist()], dtype=torch.float64)


def test_exponential_and_logarithm_to_two_units_in_the_last_place() -> None:
    random = torch.Generator().manual_seed(0)
    unit = torch.rand(500, dtype=torch.float64, generator=random)
    close = {"rtol": 2 * 2.0**-52, "atol": 0}
    for x in (-708 * unit, 709 * unit, unit - 0.5, 1e-9 * unit, -1e-17 * unit):
        torch.testing.assert_close(exponential(x), precisely(Decimal.exp, x), **close)
    for x in (unit, 10 * unit, 1 + 1e-9 * unit, 1 - 1e-3 * unit, 1e300 * unit, 1e-300 * (unit + 0.1)):
        torch.testing.assert_close(logarithm(x), precisely(Decimal.ln, x), **close)
    for x in (unit, 1000 * unit, 1e-9 * unit, 1e-100 * unit):
        torch.testing.assert_close(logarithm_1p(x), precisely(lambda value: (1 + value).ln(), x, digits=160), **close)


def test_exponential_and_logarithm_where_it_matters_exactly() -> None:
    tensor = torch.tensor([0.0, -0.0, -709.0, -1e300, -math.inf], dtype=torch.float64)
    assert exponential(tensor).tolist() == [1, 1, 0, 0, 0]
    assert logarithm(torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)).tolist() == [0, LN2, 2 * LN2]
    assert logarithm_1p(torch.zeros(1, dtype=torch.float64)).tolist() == [0]


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 10, 100, 1000])
def test_the_total_is_the_same_sum_for_any_layout(count: int) -> None:
    terms = torch.rand(6, 7, count, dtype=torch.float64, generator=torch.Generator().manual_seed(count))
    turned = terms.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    whole = total(terms.clone())
    torch.testing.assert_close(whole, terms.sum(-1), rtol=1e-14, atol=0)
    assert torch.equal(total(turned.clone()), whole) and torch.equal(total(terms[2:3].clone()), whole[2:3])


def entropy60(smoothed: list[float]) -> float:
    with decimal.localcontext(prec=400):
        weights = [(Decimal(z) - Decimal(max(smoothed))).exp() for z in smoothed]
        shares = [weight / sum(weights) for weight in weights]
        return float(sum(share * share.ln() for share in shares) / Decimal(len(smoothed)).ln())


@pytest.mark.parametrize(
    "smoothed",
    [
        [0.0, 1.0],
        [3.0, -2.0, 0.5],
        [5.0, 5.0, -1.0, 4.9],
        [40.0, 0.0, 0.0],  # the softmax is 1 in float64
        [0.0, 600.0, -1.0],  # an entropy of 1e-258
        [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0],
        [1e-12, 0.0, -1e-12],
    ],
)
def test_entropy_against_60_digits(smoothed: list[float]) -> None:
    found = negative_entropy(torch.tensor([smoothed], dtype=torch.float64)).item()
    assert found == pytest.approx(entropy60(smoothed), rel=1e-14, abs=0)


def test_entropy_by_hand() -> None:
    rows = [[2.0] * 4, [LN3, 0.0, -5000.0, -5000.0], [0.0, 9e9, 0.0, 0.0]]
    found = negative_entropy(torch.tensor(rows, dtype=torch.float64)).tolist()
    assert found[0] == -1, "uniform"
    assert found[1] == pytest.approx(-(0.75 * math.log(4 / 3) + 0.25 * LN4) / LN4, rel=1e-15)
    assert found[2] == 0, "certain"


def test_gap_by_hand() -> None:
    rows = [[3.0, 1.0, 2.5], [2.0, 2.0, -1.0], [-1.0, -4.0, -2.0]]
    assert gap(torch.tensor(rows, dtype=torch.float64)).tolist() == [0.5, 0, 1]


def test_standing_by_hand() -> None:
    predictions = torch.tensor([[1, 1, 2, 2, 2, 1], [0, 0, 0, 0, 0, 0], [0, 1, 0, 1, 0, 1]])
    assert standing(predictions).tolist() == [[1, 2, 1, 2, 3, 1], [1, 2, 3, 4, 5, 6], [1] * 6]


def test_scores_of_traces_by_hand() -> None:
    # z: (2, 0), (2, 4), (8, 4); sums over 2 give gaps 1, 1, 2; means over 2 give 1, 1/2, 2/3.
    made = Traces(np.array([[[2, 0], [0, 4], [6, 0]]], np.float32), np.array([0]))
    assert score(made, "max_softmax", Smoothing("sum", 2)).tolist() == [[1, 1, 2]]
    np.testing.assert_allclose(score(made, "max_softmax", Smoothing("mean", 2)), [[1, 0.5, 2 / 3]], rtol=1e-15)


def test_the_sum_has_a_minimum_latency_and_the_mean_has_none() -> None:
    # Every step puts out (5, 0): the log-odds are 5 t / 30 for the sum, 5 / 30 for the mean, 5 / (30 sqrt t) in between.
    made = Traces(np.tile([5.0, 0.0], (1, 12, 1)), np.array([0]))
    steps = np.arange(1, 13)
    for smoothing, expected in (
        (Smoothing("sum", 30), 5 * steps / 30),
        (Smoothing("mean", 30), np.full(12, 5 / 30)),
        (Smoothing("power", 30, 0.5), 5 * np.sqrt(steps) / 30),
    ):
        np.testing.assert_allclose(score(made, "max_softmax", smoothing)[0], expected, rtol=1e-12)


def test_other_measures_on_traces_by_hand() -> None:
    # z: (2, 0, 0), (2, 4, 0), (8, 4, 0).
    made = Traces(np.array([[[2, 0, 0], [0, 4, 0], [6, 0, 0]]], np.float16), np.array([0]))
    assert score(made, "gap", Smoothing("sum", 2)).tolist() == [[1, 1, 2]]
    assert score(made, "patience", Smoothing("sum", 2)).tolist() == [[1, 1, 1]]
    expected = [entropy60([1, 0, 0]), entropy60([1, 2, 0]), entropy60([4, 2, 0])]
    np.testing.assert_allclose(score(made, "entropy", Smoothing("sum", 2)), [expected], rtol=1e-14)


@pytest.mark.parametrize("measure", ["max_softmax", "entropy", "gap", "patience"])
def test_pieces_change_nothing(measure: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    made = Traces(rng.normal(size=(23, 5, 4)).astype(np.float16), rng.integers(0, 4, 23))
    whole = score(made, measure, Smoothing("mean", 3))
    assert whole.shape == (23, 5) and whole.dtype == np.float64
    for piece, chunk in ((45, 2**15), (45, 10), (2**21, 70), (130, 41)):
        monkeypatch.setattr(traces_module, "PIECE_ELEMENTS", piece)
        monkeypatch.setattr(measure_module, "CHUNK_ELEMENTS", chunk)
        assert (score(made, measure, Smoothing("mean", 3)) == whole).all()


def test_scores_as_shown_to_people() -> None:
    assert shown("max_softmax", 0.0) == 0.5
    assert shown("max_softmax", LN3) == pytest.approx(0.75, rel=1e-15)
    assert shown("max_softmax", -LN3) == pytest.approx(0.25, rel=1e-15)
    assert shown("max_softmax", math.inf) == 1.0
    assert shown("max_softmax", -math.inf) == 0.0
    assert sigmoid(-1000.0) == 0.0 and sigmoid(1000.0) == 1.0
    assert shown("entropy", -0.25) == 0.25 and shown("gap", 3.5) == 3.5 and shown("patience", 4.0) == 4.0
    assert shown("learned", LN3) == pytest.approx(0.75, rel=1e-15)
    assert MEASURES.names()[:5] == ("max_softmax", "entropy", "gap", "patience", "learned")


@pytest.mark.parametrize("measure", ["softmax", "", None, ["max_softmax"]])
def test_an_unknown_measure_lists_the_known(measure: str) -> None:
    made = Traces(np.zeros((1, 1, 2)), np.zeros(1, int))
    with pytest.raises(InputError, match="max_softmax"):
        score(made, measure, Smoothing("sum", 1))
    with pytest.raises(InputError, match="max_softmax"):
        shown(measure, 0.0)


@pytest.mark.parametrize("measure", ["EmaGap", "own_measure.EmaGap"])
def test_how_a_measure_of_ones_own_is_named_is_said(measure: str) -> None:
    with pytest.raises(InputError, match=r"unknown: choose one of max_softmax, .*, or your own as package.module:NAME\."):
        shown(measure, 0.0)


def test_a_learned_score_needs_its_parameters() -> None:
    made = Traces(np.zeros((1, 1, 2)), np.zeros(1, int))
    with pytest.raises(InputError, match="'learned' needs its fitted parameters"):
        score(made, "learned", Smoothing("sum", 1))
