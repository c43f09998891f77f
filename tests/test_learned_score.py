"""The learned score: features by hand, the fit against a second one, and no sample scored by weights fitted on it."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import expit

from dynconf_core.confidence import learned as learned_module
from dynconf_core.confidence.calibration_error import expected_calibration_error
from dynconf_core.confidence.learned import FEATURES, Learned, features, final_predictions, fit_learned
from dynconf_core.confidence.max_softmax import MaxSoftmax
from dynconf_core.confidence.recent import recent_average
from dynconf_core.confidence.smoothing import Smoothing
from dynconf_core.errors import InputError
from dynconf_core.exit.front import exact_front
from dynconf_core.exit.judgement import at_exit
from dynconf_core.exit.rule import Rule, exit_steps
from dynconf_core.traces.schema import Traces

SUM = Smoothing("sum", 1.0)


def drifting(samples: int, seed: int, time_steps: int = 16, classes: int = 4) -> Traces:
    """Outputs that start with a bias towards some class and then settle, as those of a deep spiking network do."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, samples)
    settled = rng.normal(scale=1.0, size=(samples, 1, classes))
    settled[np.arange(samples), 0, labels] += 2.0
    pull = rng.normal(scale=4.0, size=(samples, 1, classes)) * np.exp(-np.arange(time_steps) / 3.0)[:, None]
    logits = settled + pull + rng.normal(scale=0.5, size=(samples, time_steps, classes))
    return Traces(logits.astype(np.float32), labels)


def plain_features(logits: np.ndarray) -> np.ndarray:
    """(T, F) of one sample's logits (T, C), by loops."""
    rows = []
    z = np.zeros(logits.shape[1])
    recent = np.zeros(logits.shape[1])
    for t, output in enumerate(logits.astype(float), start=1):
        z = z + output
        recent = recent / 2 + output / 2
        winner = int(np.argmax(z))
        second = max(value for index, value in enumerate(z) if index != winner)
        rival = max(value for index, value in enumerate(recent) if index != winner)
        lead, margin = z[winner] - second, recent[winner] - rival
        rows.append([lead, lead / math.sqrt(t), lead / t, margin * math.sqrt(t), 1 / math.sqrt(t), math.log(t)])
    return np.array(rows)


def test_features_by_hand() -> None:
    logits = torch.tensor([[[4.0, 0.0, 2.0], [0.0, 1.0, 4.0]]], dtype=torch.float64)
    recent = recent_average(logits)
    assert recent.tolist() == [[[2, 0, 1], [1, 0.5, 2.5]]]
    found = dict(zip(FEATURES, features(logits.cumsum(1), recent, torch.tensor([1, 2])), strict=True))
    root = math.sqrt(2)
    expected = {
        "gap": [2, 2],  # z: (4, 0, 2), (4, 1, 6)
        "gap_per_root_step": [2, 2 / root],
        "gap_per_step": [2, 1],
        "recent_margin_root_step": [1, 1.5 * root],
        "inverse_root_step": [1, 1 / root],
        "log_step": [0, math.log(2)],
    }
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], [values], rtol=1e-15, err_msg=name)


def test_a_prediction_that_is_being_overtaken_has_a_negative_margin() -> None:
    logits = torch.tensor([[[9.0, 0.0], [0.0, 0.0], [0.0, 4.0]]], dtype=torch.float64)
    margin = features(logits.cumsum(1), recent_average(logits), torch.tensor([1, 2, 3]))[3][0]
    assert margin[0] > margin[1] > 0 > margin[2]


def test_the_score_against_plain_loops() -> None:
    traces = drifting(20, 0)
    learned = Learned(dict(zip(FEATURES, [0.3, -0.7, 0.2, 1.1, 0.6, -0.4], strict=True)), 0.25)
    expected = [0.25 + plain_features(logits) @ np.array(list(learned.weights.values())) for logits in traces.logits]
    np.testing.assert_allclose(learned.scores(traces), expected, rtol=1e-10, atol=1e-10)


def test_the_fit_against_a_second_one() -> None:
    traces = drifting(150, 1)
    learned, _ = fit_learned(traces, seed=0)
    rows = np.array([plain_features(logits)[:-1] for logits in traces.logits]).reshape(-1, len(FEATURES))
    z = traces.logits.astype(float).cumsum(axis=1)
    final = (z.argmax(axis=2) == z.argmax(axis=2)[:, -1:])[:, :-1].reshape(-1)
    weight = np.tile(1 / np.sqrt(np.arange(1, 16)), 150)
    scaled = np.column_stack(((rows - rows.mean(0)) / rows.std(0), np.ones(len(rows))))

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        odds = scaled @ w
        cost = (weight * np.logaddexp(0, np.where(final, -odds, odds))).sum() + 0.5e-4 * (w[:-1] ** 2).sum()
        return cost, scaled.T @ (weight * (expit(odds) - final)) + 1e-4 * np.append(w[:-1], 0)

    found = minimize(loss, np.zeros(len(FEATURES) + 1), jac=True, method="BFGS", options={"gtol": 1e-6}).x
    np.testing.assert_allclose(learned.scores(traces)[:, :-1].reshape(-1), scaled @ found, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("folds", [2, 5])
def test_out_of_fold_scores_come_from_weights_that_have_not_seen_the_sample(folds: int) -> None:
    traces = drifting(61, 2)
    _, out_of_fold = fit_learned(traces, seed=7, folds=folds)
    fold = np.random.Generator(np.random.PCG64(7)).permutation(61) % folds
    for k in range(folds):
        others, mine = fold != k, fold == k
        elsewhere, _ = fit_learned(Traces(traces.logits[others], traces.labels[others]), seed=0, folds=2)
        expected = elsewhere.scores(Traces(traces.logits[mine], traces.labels[mine]))
        np.testing.assert_allclose(out_of_fold[mine], expected, rtol=1e-9, atol=1e-9)


def test_labels_are_not_used_and_the_seed_changes_only_the_folds() -> None:
    traces = drifting(60, 3)
    learned, scores = fit_learned(traces, seed=0)
    again, same = fit_learned(Traces(traces.logits, np.zeros(60, int)), seed=0)
    assert again == learned and (same == scores).all()
    other, moved = fit_learned(traces, seed=1)
    assert other == learned and (moved != scores).any()


def test_fewer_steps_than_max_softmax_on_unseen_samples() -> None:
    calibration, test = drifting(1500, 4), drifting(3000, 5)
    learned, out_of_fold = fit_learned(calibration, seed=0)
    correct, seen = test.correct(), calibration.correct()
    figures = {}
    for measure, on_calibration in (("max_softmax", MaxSoftmax().scores(calibration, SUM)), ("learned", out_of_fold)):
        front = exact_front(on_calibration, seen)
        point = np.argmax(front.accuracy >= seen[:, -1].mean() - 0.005)
        rule = Rule(learned if measure == "learned" else measure, SUM, float(front.thresholds[point]))
        figures[measure] = at_exit(correct, rule.exit_steps(test))
        assert figures[measure].accuracy > correct[:, -1].mean() - 0.015
    assert figures["learned"].mean_steps < 0.85 * figures["max_softmax"].mean_steps


def test_it_is_calibrated_for_agreement_with_the_final_prediction() -> None:
    learned, _ = fit_learned(drifting(1500, 6), seed=0)
    test = drifting(1500, 7)
    scores, final = learned.scores(test), final_predictions(test)
    assert expected_calibration_error(expit(scores[:, :-1]).reshape(-1), final[:, :-1].reshape(-1)) < 0.03


def test_rows_are_thinned_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    traces = drifting(400, 8)
    whole = fit_learned(traces, seed=0)[0].scores(traces)
    monkeypatch.setattr(learned_module, "ROWS", 2000)
    thinned = fit_learned(traces, seed=0)[0].scores(traces)
    assert (thinned != whole).any() and np.corrcoef(thinned.reshape(-1), whole.reshape(-1))[0, 1] > 0.95


@pytest.mark.parametrize("kind", ["constant", "zero", "never wrong", "huge", "two samples"])
def test_degenerate_traces_give_finite_scores(kind: str) -> None:
    rng = np.random.default_rng(0)
    logits = {
        "constant": np.full((12, 4, 3), 0.1),
        "zero": np.zeros((12, 4, 3)),
        "never wrong": np.ones((12, 4, 3)) * np.array([0, 1, 0]),
        "huge": rng.normal(size=(12, 4, 3)) * 1e306,
        "two samples": rng.normal(size=(2, 4, 3)),
    }[kind]
    traces = Traces(logits, np.zeros(len(logits), int))
    learned, out_of_fold = fit_learned(traces, seed=0, folds=2)
    assert np.isfinite(out_of_fold).all() and np.isfinite(learned.scores(traces)).all()
    assert (exit_steps(out_of_fold, -math.inf) == 1).all()


def test_traces_too_small_are_refused() -> None:
    with pytest.raises(InputError, match="at least 2 time steps"):
        fit_learned(Traces(np.zeros((9, 1, 2)), np.zeros(9, int)), seed=0)
    with pytest.raises(InputError, match="folds = 5 of 4"):
        fit_learned(Traces(np.zeros((4, 3, 2)), np.zeros(4, int)), seed=0)


def test_as_json() -> None:
    learned, _ = fit_learned(drifting(40, 9), seed=0)
    rule = Rule(learned, SUM, 1.25)
    entry = json.loads(json.dumps(rule.to_json(), allow_nan=False))
    assert Rule.from_json(entry) == rule
    assert set(entry["parameters"]["weights"]) == set(FEATURES)
    assert entry["threshold_shown"] == pytest.approx(expit(1.25), rel=1e-14)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"parameters": None}, "needs its fitted parameters"),
        ({"parameters": {"weights": {}}}, "give weights and intercept"),
        ({"parameters": {"weights": {"gap": 1.0}, "intercept": 0.0}}, "one number for each of gap"),
        ({"parameters": {"weights": {**dict.fromkeys(FEATURES, 0.0), "x": 1.0}, "intercept": 0.0}}, "one number for each"),
        ({"parameters": {"weights": [1.0] * 6, "intercept": 0.0}}, "one number for each"),
        ({"parameters": {"weights": dict.fromkeys(FEATURES, "1"), "intercept": 0.0}}, "learned gap = '1'"),
        ({"parameters": {"weights": dict.fromkeys(FEATURES, 0.0), "intercept": math.nan}}, "intercept = nan"),
        ({"parameters": {"weights": dict.fromkeys(FEATURES, 1e101), "intercept": 0.0}}, "gap = 1e\\+101"),
        ({"measure": "gap"}, "'gap' does not take the parameters"),
    ],
)
def test_bad_parameters_are_named(change: dict[str, Any], words: str) -> None:
    entry = Rule(Learned(dict.fromkeys(FEATURES, 0.0), 0.0), SUM, 0.0).to_json()
    with pytest.raises(InputError, match=words):
        Rule.from_json({**entry, **change})
