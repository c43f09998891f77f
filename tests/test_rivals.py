"""Rivals: each by a second, plain implementation of its definition, fitted without the test samples, live as on traces."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from study_cases import made, running
from study_cases import scores_of as plain_scores

from dynconf_core.choosing.candidates import candidates, measures_compared, measures_tried
from dynconf_core.choosing.comparison import Comparison, compare, table_lines
from dynconf_core.confidence.boosted_gate import BoostedGate
from dynconf_core.confidence.features import FEATURES
from dynconf_core.confidence.learned import TERMS
from dynconf_core.confidence.measure import ConfidenceMeasure, measure_of, own_measures, scores_of
from dynconf_core.confidence.seenn_1 import SeennI
from dynconf_core.confidence.seenn_2 import SeennII
from dynconf_core.confidence.smoothing import PLAIN, Smoothing
from dynconf_core.confidence.spikecp import SpikeCP, SpikeCPSimes
from dynconf_core.errors import InputError
from dynconf_core.exit.agent import ExitAgent
from dynconf_core.exit.rule import Rule
from dynconf_core.traces.schema import Traces

RIVALS = ("seenn_1", "seenn_2", "dt_snn", "snncutoff", "spikecp", "spikecp_simes", "boosted_gate")
T, CLASSES = 5, 4
CALIBRATION, TEST = made(500, 3, T), made(90, 4, T)
SUMS = np.array(running(TEST))


@pytest.fixture(scope="module")
def fitted() -> dict[str, ConfidenceMeasure]:
    found = candidates(CALIBRATION, 0, RIVALS)
    assert [one.measure.name for one in found] == list(RIVALS) and all(one.smoothing == PLAIN for one in found)
    return {one.measure.name: one.measure for one in found}


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    return compare(CALIBRATION, TEST, measures=["gap", *RIVALS], drops=(0.0, 0.01))


def nonconformity(traces: Traces) -> NDArray[np.float64]:
    """(N, T, C) -log softmax of the summed logits."""
    sums = np.array(running(traces))
    surprise: NDArray[np.float64] = -np.log(np.exp(sums) / np.exp(sums).sum(axis=2, keepdims=True))
    return surprise


def plain_p_values() -> NDArray[np.float64]:
    """(N, T, C) of the test samples, one by one."""
    known = nonconformity(CALIBRATION)[np.arange(CALIBRATION.samples), :, CALIBRATION.labels]
    new = nonconformity(TEST)
    return np.array(
        [
            [[(1 + sum(known[:, t] >= new[i, t, c])) / (CALIBRATION.samples + 1) for c in range(CLASSES)] for t in range(T)]
            for i in range(TEST.samples)
        ]
    )


def test_rivals_are_compared_and_never_chosen() -> None:
    assert not set(RIVALS) & set(measures_tried("best")) and own_measures() == measures_tried("best")
    assert set(RIVALS) < set(measures_compared("best")) and measures_tried("dt_snn") == ("dt_snn",)
    assert all(measure_of(name).rival for name in RIVALS) and not any(measure_of(name).rival for name in own_measures())


def test_seenn_1_and_dt_snn_are_known_measures_under_a_fixed_smoothing(fitted: dict[str, ConfidenceMeasure]) -> None:
    other = Smoothing("mean", 0.1)  # which they do not read
    for measure, divisor in ((fitted["seenn_1"], 8.0), (SeennI(2.5), 2.5)):
        entry = {"measure": "max_softmax", "smoothing": {"form": "sum", "alpha": divisor}}
        np.testing.assert_allclose(scores_of(measure, TEST, other), plain_scores(entry, TEST), rtol=1e-12, atol=1e-12)
    probability = np.exp(SUMS / 8).max(axis=2) / np.exp(SUMS / 8).sum(axis=2)
    own = fitted["seenn_1"].default_threshold
    assert own is not None
    assert (scores_of(fitted["seenn_1"], TEST, PLAIN) > own).tolist() == (probability > 0.8).tolist()
    share = np.exp(SUMS) / np.exp(SUMS).sum(axis=2, keepdims=True)
    entropy = -(share * np.log(share)).sum(axis=2) / math.log(CLASSES)
    np.testing.assert_allclose(scores_of(fitted["dt_snn"], TEST, other), -entropy, rtol=1e-9, atol=1e-12)
    assert fitted["dt_snn"].default_threshold == -0.1
    with pytest.raises(InputError, match="finite number above 0"):
        SeennI(0.0)


@pytest.mark.parametrize("epsilon", [0.0, 0.02, 0.2])
def test_snncutoff_exits_where_the_gap_exceeds_beta(fitted: dict[str, ConfidenceMeasure], epsilon: float) -> None:
    sums = np.sort(np.array(running(CALIBRATION)), axis=2)
    gaps, right = sums[:, :, -1] - sums[:, :, -2], CALIBRATION.correct()
    betas = []
    for t in range(T):
        for place in range(100):
            beta = place * (gaps.max() / 100)
            exits = [i for i in range(CALIBRATION.samples) if gaps[i, t] > beta]
            share = sum(all(right[i, t:]) for i in exits) / len(exits) if exits else 0.0
            if share >= 1 - epsilon or place == 99:
                betas.append(beta)
                break
    ordered = np.sort(SUMS, axis=2)
    expected = ordered[:, :, -1] - ordered[:, :, -2] > np.array(betas)
    measure = fitted["snncutoff"]
    found = scores_of(measure, TEST, PLAIN) > math.nextafter(1 - epsilon, 0)
    assert found.tolist() == expected.tolist() and 0 < found.sum() < found.size
    assert measure.default_threshold == math.nextafter(1, 0)


def test_spikecp_exits_when_its_set_is_small_enough(fitted: dict[str, ConfidenceMeasure]) -> None:
    p_values = plain_p_values()
    scores = scores_of(fitted["spikecp"], TEST, PLAIN)
    ordered = np.sort(p_values, axis=2)
    exact = 1 - T * ordered[:, :, -2]
    assert (scores <= exact + 1e-12).all()  # p-values are rounded up, never down
    near = exact > 1 - T * 12 / (CALIBRATION.samples + 1)  # where each is kept
    np.testing.assert_allclose(scores[near], exact[near], atol=1e-12)
    assert near.sum() > 30 and np.abs(scores - exact).max() < 0.2
    for size in (2, CLASSES):
        larger = replace(fitted["spikecp"], set_size=size)  # type: ignore[type-var]
        exact = 1 - T * ordered[:, :, -size - 1] if size < CLASSES else np.ones((TEST.samples, T))
        found = scores_of(larger, TEST, PLAIN)
        assert (found <= exact + 1e-12).all() and (found >= scores).all()


def test_simes_combines_the_steps_so_far(fitted: dict[str, ConfidenceMeasure]) -> None:
    bonferroni, simes = fitted["spikecp"], fitted["spikecp_simes"]
    assert isinstance(bonferroni, SpikeCP) and isinstance(simes, SpikeCPSimes)
    # p-values as the measure rounds them, combined by a plain loop
    each = np.array([bonferroni.corrected_at(TEST, np.full(TEST.samples, t)) / T for t in range(1, T + 1)])  # (T, N, C)
    for t in range(1, T + 1):
        combined = np.array(
            [
                [min(T / (k + 1) * p for k, p in enumerate(sorted(each[:t, i, c]))) for c in range(CLASSES)]
                for i in range(TEST.samples)
            ]
        )
        np.testing.assert_allclose(simes.corrected_at(TEST, np.full(TEST.samples, t)), combined, rtol=1e-12)
        score = scores_of(simes, TEST, PLAIN)[:, t - 1]
        np.testing.assert_allclose(score, 1 - np.sort(combined, axis=1)[:, -2], rtol=1e-12)
    assert (scores_of(simes, TEST, PLAIN) >= scores_of(bonferroni, TEST, PLAIN) - 1e-12).all()


def test_sets_of_the_promised_coverage() -> None:
    """Over 30 calibrations, the mean coverage at early exits is not below the promise, and a wrong p-value would break it."""
    promised = 0.8
    found: dict[str, list[float]] = {"spikecp": [], "spikecp_simes": []}
    for seed in range(30):
        pool = made(160, 100 + seed, T, pull=0.3)
        for kind in (SpikeCP, SpikeCPSimes):
            measure, _ = kind().fit(Traces(pool.logits[:80], pool.labels[:80]), PLAIN, seed)
            new = Traces(pool.logits[80:], pool.labels[80:])
            steps = Rule(measure, PLAIN, promised).exit_steps(new)
            covered = measure.coverage(new, steps, promised)
            found[measure.name].append(covered)
    for name, shares in found.items():
        error = 3 * np.std(shares) / math.sqrt(len(shares))
        assert promised - error < np.mean(shares) < 0.99, name


def test_seenn_2_decides_after_the_first_step(fitted: dict[str, ConfidenceMeasure]) -> None:
    measure = fitted["seenn_2"]
    assert isinstance(measure, SeennII) and measure.weights is not None
    first = np.sort(TEST.logits[:, 0].astype(float), axis=1)[:, ::-1]
    gaps = first[:, :1] - first[:, 1:4]
    expected = [[row[0] + sum(w * g for w, g in zip(row[1:], of, strict=True)) for row in measure.weights] for of in gaps]
    np.testing.assert_allclose(scores_of(measure, TEST, PLAIN), expected, rtol=1e-9)
    changed = TEST.logits.copy()
    changed[:, 1:] = np.random.default_rng(0).normal(size=changed[:, 1:].shape)
    other = Traces(changed, TEST.labels)
    assert scores_of(measure, other, PLAIN).tolist() == scores_of(measure, TEST, PLAIN).tolist()
    # At T nothing can be lost; at step 1 the odds agree with how often nothing is.
    correct = CALIBRATION.correct()
    fine = (correct | ~correct[:, -1:])[:, 0]
    odds = scores_of(measure, CALIBRATION, PLAIN)
    assert (1 / (1 + np.exp(-odds[:, 0]))).mean() == pytest.approx(fine.mean(), abs=0.01)
    assert odds[0, -1] > 5 and len(set(odds[:, -1])) == 1


def test_the_gate_sums_its_regression_and_trees(fitted: dict[str, ConfidenceMeasure]) -> None:
    measure = fitted["boosted_gate"]
    assert isinstance(measure, BoostedGate) and measure.splits and measure.leaves and measure.weights
    forecast = {"steps": [1], "sum_weights": [1.0], "recent_weights": [0.0], "biases": [[0.0] * TEST.classes]}

    def alone(name: str) -> list[list[float]]:
        """A feature, as the learned score that has a weight for nothing else."""
        weights, none = {one: float(one == name) for one in TERMS}, {one: [] for one in TERMS}  # type: ignore[var-annotated]
        regression = {"intercept": 0.0, "weights": weights, "knots": none, "bends": none}
        parameters = {"regression": regression, "forecast": forecast, "scale": 1.0}
        return plain_scores({"measure": "learned", "smoothing": {"form": "sum", "alpha": 1.0}, "parameters": parameters}, TEST)

    features = [alone(name) for name in FEATURES]
    ordered = np.sort(SUMS, axis=2)[:, :, ::-1]
    features += [(ordered[:, :, 0] - ordered[:, :, 2]).tolist(), (ordered[:, :, 0] - ordered[:, :, 3]).tolist()]
    found = np.array([*features, np.zeros_like(features[0])])
    scores = scores_of(measure, TEST, PLAIN)
    for i in range(0, TEST.samples, 7):
        for t in range(T):
            x = found[:, i, t]
            odds = measure.intercept + float(np.dot(measure.weights, x))
            for splits, leaves in zip(measure.splits, measure.leaves, strict=True):
                node = 0
                while node < 7:
                    node = 2 * node + 1 + int(x[int(splits[node])] > splits[7 + node])
                odds += leaves[node - 7]
            assert scores[i, t] == pytest.approx(odds, abs=1e-6)
    final = np.equal(TEST.predictions(), TEST.predictions()[:, -1:])[:, :-1]
    order = np.argsort(scores[:, :-1].ravel())
    assert final.ravel()[order[-60:]].mean() > final.ravel()[order[:60]].mean() + 0.3


def test_the_gate_scores_as_scikit_learn_does(monkeypatch: pytest.MonkeyPatch) -> None:
    import sklearn.ensemble

    kept: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []

    class Kept(sklearn.ensemble.GradientBoostingClassifier):  # type: ignore[misc]
        def fit(self, rows: NDArray[np.float64], *arguments: object, **named: object) -> Kept:
            super().fit(rows, *arguments, **named)
            kept.append((rows, self.decision_function(rows)))
            return self

    monkeypatch.setattr(sklearn.ensemble, "GradientBoostingClassifier", Kept)
    (candidate,) = candidates(CALIBRATION, 0, ["boosted_gate"])
    rows, odds = kept[-1]  # the one of all samples
    scores = candidate.scored(CALIBRATION)[0][:, : T - 1].ravel()
    assert scores.shape == odds.shape == (len(rows),)
    told_apart = np.abs(odds) < 8.0  # scikit-learn passes on the regression's probability, which rounds near 1
    np.testing.assert_allclose(scores[told_apart], odds[told_apart], atol=2e-3)
    assert told_apart.mean() > 0.5


@pytest.mark.parametrize("name", RIVALS)
def test_live_as_on_traces_and_through_json(fitted: dict[str, ConfidenceMeasure], name: str) -> None:
    measure = fitted[name]
    stored = json.loads(json.dumps(measure.to_json(), allow_nan=False))
    again = type(measure).from_json(stored)
    scores = scores_of(measure, TEST, PLAIN)
    assert again == measure and scores_of(again, TEST, PLAIN).tolist() == scores.tolist()
    agent = ExitAgent(Rule(measure, PLAIN, 0.0))
    state = agent.initial(TEST.samples, CLASSES)
    logits = torch.from_numpy(TEST.logits)
    for t in range(T):
        _, score, _, state = agent(logits[:, t], state)
        assert score.tolist() == scores[:, t].tolist()
    # Samples at different steps in one batch, as in a stream.
    rows = torch.arange(TEST.samples)
    state = agent.initial(TEST.samples, CLASSES)
    _, _, _, state = agent(logits[:, 0], state)
    late = rows % 2 == 0
    fresh = agent.initial(int(late.sum()), CLASSES)
    state = state.put(rows[late], fresh)
    mixed = torch.where(late[:, None], logits[:, 0], logits[:, 1])
    _, score, _, _ = agent(mixed, state)
    assert score.tolist() == np.where(late.numpy(), scores[:, 0], scores[:, 1]).tolist()


@pytest.mark.parametrize("name", ["seenn_2", "snncutoff", "spikecp", "spikecp_simes", "boosted_gate"])
def test_what_is_fitted_says_so_and_is_scored_out_of_fold(name: str) -> None:
    measure = measure_of(name)
    assert not measure.fitted
    with pytest.raises(InputError, match="fit"):
        Rule(measure, PLAIN, 0.0)
    with pytest.raises(InputError, match=name):
        type(measure).from_json({next(iter(measure.to_json())): [["x"]]})
    (candidate,) = candidates(CALIBRATION, 0, [name])
    assert candidate.out_of_fold is not None
    # The score of a sample is that of a measure fitted without its fold.
    fold = np.random.Generator(np.random.PCG64(0)).permutation(CALIBRATION.samples) % 5
    rest = Traces(CALIBRATION.logits[fold != 2], CALIBRATION.labels[fold != 2])
    without, _ = measure.fit(rest, PLAIN, 0)
    held_out = Traces(CALIBRATION.logits[fold == 2], CALIBRATION.labels[fold == 2])
    assert candidate.out_of_fold[fold == 2].tolist() == scores_of(without, held_out, PLAIN).tolist()


def test_the_table_shows_rivals_apart_and_at_their_own_thresholds(comparison: Comparison) -> None:
    lines = table_lines(comparison)
    assert lines.index("rivals") > next(i for i, line in enumerate(lines) if line.split()[0] == "gap")
    for row in comparison.rows:
        (line,) = [line for line in lines if line.split()[0] == row.measure and "promises" not in line]
        steps = f"{row.test.mean_steps:.2f}{'' if row.readout is None else '*'}"
        assert f"{steps} ({100 * row.test.loss + 0:.2f})".replace("(-0.00)", "(0.00)") in line
        assert row.readout is None or not row.rival
        assert row.rival == (row.measure in RIVALS) and (row.coverage is not None) == row.measure.startswith("spikecp")
    own = {row.measure: row for row in comparison.own}
    assert set(own) == {"seenn_1", "dt_snn", "snncutoff", "spikecp", "spikecp_simes"}
    for name, proposed in own.items():
        measure = next(one.measure for one in candidates(CALIBRATION, 0, [name]))
        steps = Rule(measure, PLAIN, proposed.threshold).exit_steps(TEST)
        assert proposed.test.mean_steps == steps.mean() and proposed.threshold == measure.default_threshold
        assert f"{proposed.test.mean_steps:.2f}" in next(line for line in lines if line.split()[0] == name).split()[-2]
    assert table_lines(Comparison(T, ())) == []
