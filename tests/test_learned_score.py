"""The learned score: terms by hand, both fits against second ones, and no sample scored by parameters fitted on it."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import expit, log_softmax, logsumexp
from threadpoolctl import threadpool_limits

from dynconf_core.confidence import forecast as forecast_module
from dynconf_core.confidence.additive import KNOTS, PULL, Additive, fit_additive
from dynconf_core.confidence.calibration_error import expected_calibration_error
from dynconf_core.confidence.features import FEATURES, features, final_predictions
from dynconf_core.confidence.forecast import BIAS_PULL, BIASED, Forecast, fit_forecast, fitted_steps
from dynconf_core.confidence.forecast import PULL as FORECAST_PULL
from dynconf_core.confidence.learned import TERMS, Learned, fit_learned
from dynconf_core.confidence.max_softmax import MaxSoftmax
from dynconf_core.confidence.recent import recent_average
from dynconf_core.confidence.smoothing import PLAIN, Smoothing
from dynconf_core.errors import InputError
from dynconf_core.exit.agent import ExitAgent
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


def made(classes: int = 4, steps: tuple[int, ...] = (1, 3), biased: bool = True) -> Learned:
    """Made-up parameters, none of them 0."""
    rng = np.random.default_rng(0)
    forecast = Forecast(
        steps,
        rng.normal(1.0, 0.2, len(steps)).tolist(),
        rng.normal(0.5, 0.2, len(steps)).tolist(),
        rng.normal(size=(len(steps), classes)).tolist() if biased else None,
    )
    weights, knots, bends = ({term: rng.normal(size=count).tolist() for term in TERMS} for count in (1, 2, 2))
    regression = Additive(0.25, {term: weights[term][0] for term in TERMS}, knots, bends)
    return Learned(regression, forecast, 1.7)


def plain_terms(logits: np.ndarray, learned: Learned) -> np.ndarray:
    """(T, F) of one sample's logits (T, C), by loops."""
    rows = []
    z = np.zeros(logits.shape[1])
    recent = np.zeros(logits.shape[1])
    forecast, scale = learned.forecast, learned.scale
    assert forecast is not None and forecast.biases is not None
    for t, output in enumerate(logits.astype(float), start=1):
        z = z + output
        recent = recent / 2 + output / 2
        winner = int(np.argmax(z))
        others = [index for index in range(len(z)) if index != winner]
        lead, margin = z[winner] - max(z[others]), recent[winner] - max(recent[others])
        row = [lead, lead / math.sqrt(t), lead / t, margin * math.sqrt(t), 1 / math.sqrt(t), math.log(t)]
        for temperature in (1.2 * scale, 0.3 * scale * math.sqrt(t), 0.3 * scale * t):
            row.append((z[winner] - logsumexp(z[others] * 1.0 / temperature) * temperature) / temperature)
        log_steps = np.log(forecast.steps)
        a, b = (np.interp(math.log(t), log_steps, column) for column in (forecast.sum_weights, forecast.recent_weights))
        bias = [np.interp(math.log(t), log_steps, column) for column in np.array(forecast.biases).T]
        u = a * z / t + b * recent + bias
        odds = u[winner] - logsumexp(u[others])
        rows.append([*row, odds, odds * math.sqrt(t)])
    return np.array(rows)


def plain_score(logits: np.ndarray, learned: Learned) -> np.ndarray:
    """(T,) of one sample, by loops."""
    regression = learned.regression
    assert regression is not None
    scores = []
    for row in plain_terms(logits, learned):
        score = regression.intercept
        for name, value in zip(TERMS, row, strict=True):
            score += regression.weights[name] * value
            for knot, bend in zip(regression.knots[name], regression.bends[name], strict=True):
                score += bend * max(knot - value, 0.0)
        scores.append(score)
    return np.array(scores)


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
    traces, learned = drifting(20, 0, time_steps=6), made()
    expected = [plain_score(logits, learned) for logits in traces.logits]
    np.testing.assert_allclose(learned.scores(traces), expected, rtol=1e-9, atol=1e-9)


def test_the_forecast_against_a_second_fit() -> None:
    """At every fitted step: penalised multinomial likelihood of the prediction at T."""
    traces = drifting(150, 1)
    z = traces.logits.astype(float).cumsum(axis=1)
    recent = recent_average(torch.from_numpy(traces.logits.astype(float))).numpy()
    final = z[:, -1].argmax(axis=1)
    forecast = fit_forecast(traces, final)
    assert list(forecast.steps) == fitted_steps(16) == [1, 2, 3, 4, 5, 6, 8, 10, 13]
    assert forecast.biases is not None
    for place in (0, 1, 6):
        t = forecast.steps[place]
        inputs = [z[:, t - 1] / t, recent[:, t - 1]][: 1 if t == 1 else 2]
        inputs = [one / np.abs(one - one.mean(axis=1, keepdims=True)).mean() for one in inputs]

        def cost(w: np.ndarray, inputs: list[np.ndarray] = inputs) -> float:
            chances = log_softmax(sum(a * one for a, one in zip(w, inputs, strict=False)) + w[len(inputs) :], axis=1)
            pull = FORECAST_PULL * (w[: len(inputs)] ** 2).sum() + BIAS_PULL * (w[len(inputs) :] ** 2).sum()
            return float(-chances[np.arange(150), final].sum() + 0.5 * pull)

        found = minimize(cost, np.append(1.0, np.zeros(len(inputs) + 3)), method="BFGS", options={"gtol": 1e-4}).x
        np.testing.assert_allclose(forecast.biases[place], found[len(inputs) :], atol=2e-3)
        np.testing.assert_allclose(forecast.sum_weights[place] * (z[:, t - 1] / t).std(), found[0] * inputs[0].std(), rtol=5e-3)


def test_the_regression_against_a_second_fit() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=400)
    true = rng.random(400) < expit(np.where(x < 0, 3 * x, 0.2 * x))
    importance = rng.uniform(0.5, 1.5, 400)
    fitted = fit_additive({"x": x}, true, importance)
    knots = np.quantile(x, KNOTS)
    rows = np.column_stack([x, *(np.maximum(knot - x, 0) for knot in knots)])
    rows = np.column_stack([(rows - rows.mean(0)) / rows.std(0), np.ones(400)])

    def cost(w: np.ndarray) -> tuple[float, np.ndarray]:
        odds = rows @ w
        pull = PULL * np.append(w[:-1], 0)
        value = (importance * np.logaddexp(0, np.where(true, -odds, odds))).sum() + 0.5 * pull @ w
        return value, rows.T @ (importance * (expit(odds) - true)) + pull

    found = minimize(cost, np.zeros(7), jac=True, method="BFGS", options={"gtol": 1e-6}).x
    np.testing.assert_allclose(fitted.log_odds({"x": torch.from_numpy(x)}), rows @ found, rtol=1e-3, atol=1e-3)
    steep, flat = (fitted.log_odds({"x": torch.tensor(ends, dtype=torch.float64)}) for ends in ([-1.5, -0.5], [0.5, 1.5]))
    assert steep[1] - steep[0] > flat[1] - flat[0] + 1, "a straight line was fitted"


def test_out_of_fold_scores_come_from_parameters_that_have_not_seen_the_sample() -> None:
    traces = drifting(61, 2, time_steps=5)
    learned, out_of_fold = Learned().fit(traces, PLAIN, 7)
    assert out_of_fold is not None and learned == fit_learned(traces)
    fold = np.random.Generator(np.random.PCG64(7)).permutation(61) % 5
    for k in (0, 3):
        others, mine = fold != k, fold == k
        elsewhere = fit_learned(Traces(traces.logits[others], traces.labels[others]))
        expected = elsewhere.scores(Traces(traces.logits[mine], traces.labels[mine]))
        np.testing.assert_allclose(out_of_fold[mine], expected, rtol=1e-9, atol=1e-9)


def test_labels_are_not_used_and_the_seed_changes_only_the_folds() -> None:
    traces = drifting(60, 3, time_steps=5)
    learned, scores = Learned().fit(traces, PLAIN, 0)
    again, same = Learned().fit(Traces(traces.logits, np.zeros(60, int)), PLAIN, 0)
    assert again == learned and np.array_equal(scores, same)
    other, moved = Learned().fit(traces, PLAIN, 1)
    assert other == learned and not np.array_equal(scores, moved)


def test_the_fit_does_not_depend_on_the_number_of_threads() -> None:
    traces = drifting(400, 12, 8)
    found = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            found.append(fit_learned(traces))
    assert found[0] == found[1]


@pytest.mark.parametrize("kind", ["drifting", "one class leads too early"])
def test_fewer_steps_than_max_softmax_on_unseen_samples(kind: str) -> None:
    def draw(samples: int, seed: int) -> Traces:
        traces = drifting(samples, seed, time_steps=10)
        if kind == "drifting":
            return traces
        early = np.zeros((10, 4), np.float32)
        early[:, 1] = 4 * np.exp(-np.arange(10) / 2.0)
        return Traces(traces.logits + early, traces.labels)

    calibration, test = draw(800, 4), draw(1500, 5)
    learned, out_of_fold = Learned().fit(calibration, PLAIN, 0)
    assert out_of_fold is not None
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
    learned, test = fit_learned(drifting(1500, 6, 10)), drifting(1500, 7, 10)
    scores, final = learned.scores(test), final_predictions(test)
    assert expected_calibration_error(expit(scores[:, :-1]).reshape(-1), final[:, :-1].reshape(-1)) < 0.03


def test_a_class_that_leads_too_early_is_doubted() -> None:
    """At equal gaps, the forecast trusts it less than another class."""
    forecast = Forecast([1], [1.0], [0.0], [[0.0, -2.0, 0.0]])
    z = torch.tensor([[3.0, 0.0, 0.0], [0.0, 3.0, 0.0]], dtype=torch.float64)
    odds = forecast.log_odds(z, z / 2, torch.tensor(1))
    expected = [3 - math.log(1 + math.exp(-2)), 1 - math.log(2)]
    np.testing.assert_allclose(odds, expected, rtol=1e-14)


@pytest.mark.parametrize("classes", [2, 30, BIASED + 1])
def test_any_number_of_classes(classes: int) -> None:
    """With more than 20, only some compete in the fit; with more than 200 there are no biases. Live and on traces alike."""
    traces = drifting(40, 10, time_steps=6, classes=classes)
    learned = fit_learned(traces)
    assert learned.forecast is not None and learned.forecast.classes == (classes if classes <= BIASED else None)
    scores = learned.scores(traces)
    rule = Rule(learned, SUM, float(np.quantile(scores[:, 2], 0.5)))
    agent = ExitAgent(rule)
    for samples in (slice(0, 1), slice(1, 9)):
        state = agent.initial(samples.stop - samples.start, classes)
        live = []
        for t in range(6):
            _, _, done, state = agent(torch.from_numpy(traces.logits[samples, t]), state)
            live.append(done.numpy())
        assert (np.vstack((*live[:-1], np.ones_like(live[0]))).argmax(axis=0) + 1 == rule.exit_steps(traces)[samples]).all()


def test_few_of_many_classes_compete_in_the_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others, of next to no probability, make no difference."""
    traces = drifting(300, 11, time_steps=4, classes=30)
    steps, z = torch.arange(1, 5), torch.from_numpy(traces.logits.astype(float)).cumsum(1)
    found = []
    for rivals in (forecast_module.RIVALS, 30):
        monkeypatch.setattr(forecast_module, "RIVALS", rivals)
        forecast = fit_forecast(traces, traces.predictions()[:, -1])
        found.append(forecast.log_odds(z, z / 2, steps)[:, :-1])
    assert (found[0] != found[1]).any()
    np.testing.assert_allclose(found[0], found[1], rtol=0.02, atol=0.05)


@pytest.mark.parametrize("kind", ["constant", "zero", "never wrong", "huge", "two samples"])
def test_degenerate_traces_give_finite_scores(kind: str) -> None:
    rng = np.random.default_rng(0)
    logits = {
        "constant": np.full((12, 4, 3), 0.1),
        "zero": np.zeros((12, 4, 3)),
        "never wrong": np.ones((12, 4, 3)) * np.array([0, 1, 0]),
        "huge": rng.normal(size=(12, 4, 3)) * 1e98,
        "two samples": rng.normal(size=(2, 4, 3)),
    }[kind]
    traces = Traces(logits, np.zeros(len(logits), int))
    learned = fit_learned(traces)
    scores = learned.scores(traces)
    assert np.isfinite(scores).all() and (exit_steps(scores, -math.inf) == 1).all()
    assert Rule.from_json(json.loads(json.dumps(Rule(learned, SUM, 0.0).to_json(), allow_nan=False))).measure == learned


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match="at least 2 time steps"):
        fit_learned(Traces(np.zeros((9, 1, 2)), np.zeros(9, int)))
    learned, other = made(classes=4), drifting(3, 0, classes=5)
    for score in (lambda: learned.scores(other), lambda: learned.initial(1, 5)):
        with pytest.raises(InputError, match="fitted to 4 classes, the outputs have 5"):
            score()


def test_as_json() -> None:
    rule = Rule(fit_learned(drifting(40, 9)), SUM, 1.25)
    entry = json.loads(json.dumps(rule.to_json(), allow_nan=False))
    assert Rule.from_json(entry) == rule
    assert set(entry["parameters"]["regression"]["weights"]) == set(TERMS)
    assert entry["threshold_shown"] == pytest.approx(expit(1.25), rel=1e-14)


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        ((), None, "needs its fitted parameters"),
        ((), {"weights": {}, "intercept": 0.0}, "give regression, forecast and scale"),
        (("scale",), 0.0, "scale = 0.0 cannot divide"),
        (("scale",), "1", "scale holds '1'"),
        (("regression", "weights"), {"gap": 1.0}, "knots = .*one entry for each term"),
        (("regression", "intercept"), math.nan, "intercept holds nan"),
        (("regression", "weights", "gap"), 1e101, "weight gap holds 1e\\+101"),
        (("regression", "bends", "gap"), [1.0], "gap: the numbers of knots and bends differ"),
        (("regression",), {"weights": {}}, "give an object of intercept, weights, knots, bends"),
        (("forecast", "steps"), [1, 1], "each larger than the one before"),
        (("forecast", "steps"), [1], "has 1 steps"),
        (("forecast", "biases"), [[0.0] * 4, [0.0] * 3], r"rows of \[3, 4\] numbers"),
        (("forecast",), {"steps": [1]}, "give an object of steps, sum_weights"),
    ],
)
def test_bad_parameters_are_named(place: tuple[str, ...], value: Any, words: str) -> None:
    entry = json.loads(json.dumps(Rule(made(), SUM, 0.0).to_json()))
    inner, path = entry, ("parameters", *place)
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    with pytest.raises(InputError, match=words):
        Rule.from_json(entry)


def test_terms_are_known() -> None:
    entry = made().to_json()
    for part in ("weights", "knots", "bends"):
        entry["regression"][part]["x"] = entry["regression"][part].pop("gap")
    with pytest.raises(InputError, match="give one on the terms gap, gap_per_root_step"):
        Learned.from_json(entry)
