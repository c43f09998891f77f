"""A readout in front of a rule: the same bits live, on traces and written out plainly; fitted without the samples it decodes;
and chosen only where it helps."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from study_cases import made, with_labels
from test_agent import KINDS, LEARNED, exits_in_a_stream, stepped, traces_of

from dynconf_core.choosing.candidates import Candidate, candidates
from dynconf_core.choosing.comparison import compared, comparison_lines, interval_lines
from dynconf_core.choosing.contest import Contest
from dynconf_core.confidence.measure import scores_of
from dynconf_core.confidence.smoothing import PLAIN, Smoothing
from dynconf_core.errors import InputError
from dynconf_core.evaluation.analysis import analyse
from dynconf_core.evaluation.curves import curves_of
from dynconf_core.exit.agent import ExitAgent
from dynconf_core.exit.readout import DecodedTraces, Readout
from dynconf_core.exit.readout_fit import FittedReadout, fit_readout
from dynconf_core.exit.rule import Rule
from dynconf_core.traces.compact import compact
from dynconf_core.traces.parts import taken
from dynconf_core.traces.schema import Traces

T = 9
MEASURES = ["max_softmax", "entropy", "gap", "patience", LEARNED]


def readout_of(classes: int = 5, time_steps: int = T, seed: int = 3) -> Readout:
    draw = np.random.default_rng(seed)
    numbers = draw.normal(size=(2, time_steps - 1)).tolist()
    return Readout(numbers[0], numbers[1], draw.normal(size=(time_steps - 1, classes)).tolist())


def rule_of(measure: Any, traces: Traces, readout: Readout | None, share: float = 0.5) -> Rule:
    """One whose threshold is above this share of the scores."""
    smoothing = Smoothing("power", 2.1, 0.45)
    threshold = float(np.quantile(Rule(measure, smoothing, math.inf, readout).scores(traces), share))
    return Rule(measure, smoothing, threshold, readout)


def plainly_decoded(readout: Readout, logits: NDArray[Any]) -> list[list[list[float]]]:
    """z' of every sample and step, by the formula."""
    entry, found = readout.to_json(), []
    for sample in logits.astype(np.float64).tolist():
        z = r = [0.0] * len(sample[0])
        rows = []
        for t, output in enumerate(sample, start=1):
            z = [one + other for one, other in zip(z, output, strict=True)]
            r = [(one + other) / 2 for one, other in zip(r, output, strict=True)]
            if t < len(entry["sum_weights"]) + 1:
                a, b, c = (entry[name][t - 1] for name in ("sum_weights", "recent_weights", "biases"))
                rows.append([a * one + b * other + bias for one, other, bias in zip(z, r, c, strict=True)])
            else:
                rows.append(z)
        found.append(rows)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_live_equals_the_traces_to_the_bit(kind: str) -> None:
    traces, readout = traces_of(kind), readout_of()
    for measure in MEASURES:
        rule = rule_of(measure, traces, readout)
        scores, predictions = stepped(ExitAgent(rule), traces)
        assert not np.isnan(scores).any()
        np.testing.assert_array_equal(scores, rule.scores(traces))
        np.testing.assert_array_equal(predictions, rule.decoded(traces).predictions())
        np.testing.assert_array_equal(predictions[:, -1], traces.predictions()[:, -1])


@pytest.mark.parametrize("kind", ["float64", "float32", "ties"])
def test_against_the_formula_written_out(kind: str) -> None:
    traces, readout = traces_of(kind), readout_of()
    plain = np.array(plainly_decoded(readout, traces.logits))
    rule = Rule("gap", PLAIN, 1.0, readout)
    decoded = rule.decoded(traces)
    np.testing.assert_array_equal(np.concatenate([sums for _, sums in decoded.accumulated()]), plain)
    np.testing.assert_array_equal(decoded.outputs(), np.diff(plain, axis=1, prepend=0.0))
    first, second = np.sort(plain, axis=2)[..., -1], np.sort(plain, axis=2)[..., -2]
    np.testing.assert_array_equal(rule.scores(traces), first - second)
    np.testing.assert_array_equal(rule.correct(traces), plain.argmax(axis=2) == traces.labels[:, None])
    assert (decoded.predictions()[:, :-1] != traces.predictions()[:, :-1]).any(), "nothing was decoded"


def test_samples_at_different_steps_share_a_batch() -> None:
    traces, draw = traces_of("float32", samples=60), np.random.default_rng(2)
    for measure in MEASURES:
        rule = rule_of(measure, traces, readout_of(), share=0.85)
        wanted = rule.exit_steps(traces)
        assert len(set(wanted.tolist())) > 2
        np.testing.assert_array_equal(exits_in_a_stream(ExitAgent(rule), traces, 7, draw), wanted)


def test_in_a_file(tmp_path: Path) -> None:
    rule = Rule("gap", PLAIN, 1.5, readout_of())
    file = rule.save(tmp_path / "rule.json")
    assert Rule.load(file) == rule == ExitAgent.from_json(file).rule and hash(Rule.load(file)) == hash(rule)
    assert rule != replace(rule, readout=None) and replace(rule, threshold=2.0).readout == rule.readout
    assert set(json.loads(file.read_text())["readout"]) == {"sum_weights", "recent_weights", "biases"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sum_weights": [1.0]}, "one of each for every step"),
        ({"biases": [[0.0], [0.0, 1.0]]}, "one of each"),
        ({"biases": [0.0, 1.0]}, "biases"),
        ({"sum_weights": []}, "list of numbers"),
        ({"recent_weights": [0.0, math.nan]}, "nan"),
        ({"recent_weights": [0.0, True]}, "True"),
        ({"recent_weights": [0.0, 1e101]}, "1e\\+101"),
        ({"sum_weights": "12"}, "list of numbers"),
        ({"form": "linear"}, "not known"),
    ],
)
def test_bad_readouts_are_named(change: dict[str, Any], words: str) -> None:
    entry = {"sum_weights": [1.0, 1.0], "recent_weights": [0.0, 0.0], "biases": [[0.0, 0.0], [0.0, 0.0]]}
    assert Readout.from_json(entry).time_steps == 3
    with pytest.raises(InputError, match=words):
        Rule.from_json({**Rule("gap", PLAIN, 1.0).to_json(), "readout": {**entry, **change}})


def test_where_a_readout_does_not_fit() -> None:
    traces = traces_of("float32")
    rule = Rule("gap", PLAIN, 1.0, readout_of(classes=4))
    for refused in (lambda: rule.scores(traces), lambda: ExitAgent(rule).initial(3, 5)):
        with pytest.raises(InputError, match="4 classes"):
            refused()
    short = replace(traces, lengths=np.full(traces.samples, 4))
    with pytest.raises(InputError, match="readout = plain"):
        Rule("gap", PLAIN, 1.0, readout_of()).scores(short)
    with pytest.raises(InputError, match="give a Readout"):
        Rule("gap", PLAIN, 1.0, {"sum_weights": [1.0]})  # type: ignore[arg-type]


def late(samples: int, seed: int, classes: int = 6) -> Traces:
    """An SNN whose outputs begin with a bias towards some classes, which fades, and gain strength."""
    traces = made(samples, seed, T, classes, pull=0.7)
    fading = np.exp(-np.arange(T) / 2.0)[:, None] * np.linspace(-4, 4, classes)
    strength = np.minimum(1.0, np.arange(1, T + 1) / 5)[:, None]
    return replace(traces, logits=(strength * traces.logits + fading).astype(np.float32))


@pytest.fixture(scope="module")
def pair() -> tuple[Traces, Traces]:
    return late(800, 1), late(800, 2)


@pytest.fixture(scope="module")
def fitted(pair: tuple[Traces, Traces]) -> FittedReadout:
    return fit_readout(pair[0], seed=0)


def test_a_fading_bias_is_corrected(pair: tuple[Traces, Traces], fitted: FittedReadout) -> None:
    calibration, test = pair
    for plain, decoded in ((calibration, fitted.calibration(calibration)), (test, DecodedTraces.of(test, [fitted.readout]))):
        before, after = plain.correct().mean(axis=0), decoded.correct().mean(axis=0)
        assert (after[:3] > before[:3] + 0.05).all() and (after > before - 0.01).all()
        assert (plain.predictions()[:, -1] == decoded.predictions()[:, -1]).all()
    sizes = np.abs(np.array(fitted.readout.biases)).mean(axis=1)
    assert sizes[-1] < 0.5 * sizes[0], "towards T the readout approaches the plain sum"


def test_no_sample_is_decoded_by_its_own_label(pair: tuple[Traces, Traces], fitted: FittedReadout) -> None:
    """With other labels of some samples in one fold, that fold is decoded as before, and the others differently."""
    calibration, _ = pair
    chosen = fitted.fold == 2
    chosen[100:] = False
    labels = np.where(chosen, (calibration.labels + 1) % calibration.classes, calibration.labels)
    again = fit_readout(with_labels(calibration, labels), seed=0)
    assert again.penalty == fitted.penalty and (again.fold == fitted.fold).all()
    assert again.without[2] == fitted.without[2] and again.without[1] != fitted.without[1]
    both = (next(fit.calibration(calibration).accumulated())[1] for fit in (fitted, again))
    same = np.equal(*both).all(axis=(1, 2))
    mine = fitted.fold == 2
    assert same[mine].all() and not same[~mine].any()


def test_few_samples_of_many_classes_lose_little() -> None:
    """Nothing to correct, fewer samples than parameters: the penalty keeps the predictions."""
    draw, classes = np.random.default_rng(0), 40
    traces = [made(200, seed, 6, classes, pull=1.2) for seed in draw.integers(0, 1000, 2).tolist()]
    readout = fit_readout(traces[0], seed=0).readout
    before, after = traces[1].correct().mean(axis=0), DecodedTraces.of(traces[1], [readout]).correct().mean(axis=0)
    assert (after > before - 0.05).all()


def test_decoded_traces_are_taken_and_read_as_others_are(pair: tuple[Traces, Traces], fitted: FittedReadout) -> None:
    decoded, rows = fitted.calibration(pair[0]), np.array([5, 700, 7, 31])
    part = taken(decoded, rows)
    np.testing.assert_array_equal(part.predictions(), decoded.predictions()[rows])
    np.testing.assert_array_equal(part.outputs(), decoded.outputs(rows))


@pytest.mark.parametrize(("more", "words"), [({"lengths": np.full(60, 5)}, "with lengths"), ({}, "50 calibration samples")])
def test_traces_without_a_readout(more: dict[str, Any], words: str) -> None:
    traces = made(60 if more else 40, 0, **more)
    assert all(one.readout is None for one in candidates(traces, 0, ["gap", "max_softmax"]))
    with pytest.raises(InputError, match=words):
        candidates(traces, 0, ["gap"], readout="decoded")
    with pytest.raises(InputError, match="plain, decoded, choose"):
        candidates(traces, 0, ["gap"], readout="best")


@pytest.fixture(scope="module")
def found(pair: tuple[Traces, Traces]) -> list[Candidate]:
    return candidates(pair[0], 0, ["max_softmax", "gap"])


def test_it_is_chosen_where_it_helps(pair: tuple[Traces, Traces], found: list[Candidate]) -> None:
    contest = Contest(found, *pair, 0)
    chosen = contest.choose(0.01)
    assert chosen.rule.readout is not None
    plain = Contest([one for one in found if one.readout is None], *pair, 0)
    without = plain.choose(0.01)
    judged = contest.judged(chosen.index, chosen.rule.threshold)
    assert judged.mean_steps < plain.judged(without.index, without.rule.threshold).mean_steps
    steps, right = chosen.rule.exit_steps(pair[1]), chosen.rule.correct(pair[1])
    assert judged.accuracy == right[np.arange(len(steps)), steps - 1].mean() and judged.mean_steps == steps.mean()
    text = comparison_lines(compared(contest, (0.01,)))
    assert "*" in text[1] and "readout" in text[-1] and "readout" in interval_lines(compared(contest, (0.01,)))[-1]


def test_each_candidate_is_chosen_by_what_was_decoded_without_the_sample(
    pair: tuple[Traces, Traces], found: list[Candidate]
) -> None:
    contest = Contest(found, *pair, 0)
    for candidate, (scores, correct) in zip(found, contest.scored, strict=True):
        read = pair[0] if candidate.readout is None else candidate.readout.calibration(pair[0])
        np.testing.assert_array_equal(correct, read.correct())
        np.testing.assert_array_equal(scores, scores_of(candidate.measure, read, candidate.smoothing))


def test_an_analysis_behind_a_readout(pair: tuple[Traces, Traces]) -> None:
    calibration, test = pair
    done = analyse(calibration, test, measures=["gap"], measure="max_softmax", drops=(0.01,), max_drop=0.01, readout="decoded")
    rule, record = done.rule, done.record
    assert rule.readout is not None and record.rule.readout == "decoded" and "behind a readout" in str(done)
    right = rule.correct(test)
    assert record.exit.accuracy == right[np.arange(test.samples), done.exit_steps - 1].mean()
    assert record.accuracy_at_t.test == tuple(test.correct().mean(axis=0).tolist())
    assert record.oracles.test.first_correct.accuracy == right.any(axis=1).mean()
    curves = curves_of(test, rule, done.robustness)
    predictions = rule.decoded(test).predictions()
    assert all(one.predictions == tuple(predictions[one.index].tolist()) for one in (*curves.easiest, *curves.hardest))
    plain = analyse(calibration, test, measures=["gap"], drops=(0.01,), max_drop=0.01, readout="plain")
    assert plain.rule.readout is None and all(row.readout is None for row in plain.record.comparison)


def test_a_guarantee_behind_a_readout(pair: tuple[Traces, Traces]) -> None:
    calibration, test = pair
    done = analyse(calibration, test, measures=["max_softmax"], drops=(0.01,), epsilon=0.05, delta=0.1, readout="decoded")
    assert done.guarantee is not None and done.guarantee.certified and done.rule.readout is not None
    assert done.record.guarantee is not None and done.record.guarantee.halves is not None
    half = taken(calibration, np.array(done.record.guarantee.halves.certifying))
    right, steps = done.rule.correct(half), done.rule.exit_steps(half)
    at_exit = right[np.arange(half.samples), steps - 1]
    assert done.guarantee.lost == (right[:, -1] & ~at_exit).sum() and done.guarantee.gained == (at_exit & ~right[:, -1]).sum()


def test_published_traces_keep_what_a_readout_reads(pair: tuple[Traces, Traces], fitted: FittedReadout) -> None:
    rule = rule_of("max_softmax", pair[1], fitted.readout)
    small = compact(pair[1], lambda traces: rule.decoded(traces).predictions())
    np.testing.assert_array_equal(rule.decoded(small).predictions(), rule.decoded(pair[1]).predictions())
