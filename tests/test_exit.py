"""Rules, the chosen operating point and the oracles, by values worked out by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dynconf_core.choosing.selection import operating_point
from dynconf_core.confidence.smoothing import Smoothing
from dynconf_core.errors import InputError
from dynconf_core.exit.by_class import figures_by_class, in_brief
from dynconf_core.exit.front import Front, exact_front
from dynconf_core.exit.judgement import OperatingPoint, at_exit
from dynconf_core.exit.oracles import Oracles, aet, first_correct, oracles, stays_correct
from dynconf_core.exit.rule import Rule, exit_steps
from dynconf_core.traces.schema import Traces

INF = math.inf
SUM30 = Smoothing("sum", 30.0)


def test_exit_steps_by_hand() -> None:
    scores = np.array([[0.0, 1.0, 2.0], [1.0, 0.0, 0.0], [2.0, 2.0, 2.0], [0.5, 0.5, INF]])
    assert exit_steps(scores, 0.5).tolist() == [2, 1, 1, 3]
    assert exit_steps(scores, 1.0).tolist() == [3, 3, 1, 3], "equal does not exit"
    assert exit_steps(scores, INF).tolist() == [3, 3, 3, 3]
    assert exit_steps(scores, -INF).tolist() == [1, 1, 1, 1]
    assert exit_steps(scores[:, :1], 9.0).tolist() == [1, 1, 1, 1]
    assert exit_steps(scores, 0.0).dtype == np.int64


def test_at_exit_by_hand() -> None:
    correct = np.array([[False, True], [True, False], [True, True]])
    assert at_exit(correct, np.array([2, 2, 1])) == OperatingPoint(2 / 3, 5 / 3)


def test_a_rule_on_traces() -> None:
    # z: (1, 0), (3, 0) and (0, 1), (0, 1): with alpha 1 the log-odds are the gaps 1, 3 and 1, 1.
    made = Traces(np.array([[[1, 0], [2, 0]], [[0, 1], [0, 0]]], np.float32), np.array([0, 1]))
    assert Rule("max_softmax", Smoothing("sum", 1), 0.9).exit_steps(made).tolist() == [1, 1]
    assert Rule("max_softmax", Smoothing("sum", 1), 1).exit_steps(made).tolist() == [2, 2]


@pytest.mark.parametrize("threshold", [0.0, 2.5, -7.25, 0.1 + 0.2, INF, -INF])
def test_rules_as_json(threshold: float) -> None:
    rule = Rule("max_softmax", SUM30, threshold)
    text = json.dumps(rule.to_json(), allow_nan=False)
    assert Rule.from_json(json.loads(text)) == rule


def test_the_entry_by_hand() -> None:
    assert Rule("max_softmax", SUM30, 0).to_json() == {
        "measure": "max_softmax",
        "readout": None,
        "smoothing": {"form": "sum", "alpha": 30.0},
        "threshold": 0.0,
        "threshold_shown": 0.5,
    }
    never = Rule("max_softmax", SUM30, INF).to_json()
    assert (never["threshold"], never["threshold_shown"]) == ("inf", 1.0)
    at_once = Rule("max_softmax", SUM30, -INF).to_json()
    assert (at_once["threshold"], at_once["threshold_shown"]) == ("-inf", 0.0)


def test_what_is_shown_of_other_measures() -> None:
    assert Rule("entropy", SUM30, -0.25).to_json()["threshold_shown"] == 0.25
    assert Rule("gap", SUM30, 1.5).to_json()["threshold_shown"] == 1.5
    assert Rule("patience", SUM30, 3).to_json()["threshold_shown"] == 3.0


@pytest.mark.parametrize("measure", ["max_softmax", "entropy", "gap", "patience"])
@pytest.mark.parametrize("smoothing", [SUM30, Smoothing("mean", 0.3), Smoothing("power", 3, -0.5)])
@pytest.mark.parametrize("threshold", [0.1 + 0.2, INF, -INF])
def test_every_rule_as_json_and_as_a_file(measure: str, smoothing: Smoothing, threshold: float, tmp_path: Path) -> None:
    rule = Rule(measure, smoothing, threshold)
    assert Rule.from_json(json.loads(json.dumps(rule.to_json(), allow_nan=False))) == rule
    file = rule.save(tmp_path / "rule.json", {"calibration": {"accuracy": 0.5}})
    assert Rule.load(file) == rule
    entry = json.loads(file.read_text())
    assert entry == {"schema": 2, **rule.to_json(), "calibration": {"accuracy": 0.5}}


def test_bad_files_of_rules_are_named(tmp_path: Path) -> None:
    file = tmp_path / "rule.json"
    rule = Rule("gap", SUM30, 1.0)
    for text, words in (
        ("{", "cannot be read as JSON"),
        ("[]", "JSON object"),
        ("{}", "lacks the field measure"),
        (json.dumps({**rule.to_json(), "schema": 1}), "schema = 1"),
    ):
        file.write_text(text)
        with pytest.raises(InputError, match=rf"rule\.json.*{words}"):
            Rule.load(file)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"rule\.json"):
        Rule.load(file)
    with pytest.raises(InputError, match="cannot be read"):
        Rule.load(tmp_path)
    with pytest.raises(InputError, match="cannot be written"):
        rule.save(file / "rule.json")  # below a file
    for record, words in (({"threshold": 3}, "threshold"), ({"x": INF}, "JSON"), ({"x": object()}, "JSON")):
        with pytest.raises(InputError, match=words):
            rule.save(file, record)


def test_other_fields_are_ignored() -> None:
    rule = Rule("max_softmax", SUM30, 1.5)
    assert Rule.from_json({**rule.to_json(), "calibration": {"accuracy": 1.0}, "note": "x"}) == rule


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"measure": "softmax"}, "'softmax'.*max_softmax"),
        ({"measure": None}, "None"),
        ({"readout": {"form": "linear"}}, "readout"),
        ({"parameters": 3}, "parameters = 3"),
        ({"smoothing": None}, "smoothing"),
        ({"smoothing": {"form": "sum"}}, "lacks form or alpha"),
        ({"threshold": "0.5"}, "'0.5'"),
        ({"threshold": "nan"}, "'nan'"),
        ({"threshold": None}, "None"),
        ({"threshold": True}, "True"),
        ({"threshold": float("nan")}, "nan"),
    ],
)
def test_bad_rules_are_named(change: dict[str, Any], words: str) -> None:
    entry = {**Rule("max_softmax", SUM30, 1.0).to_json(), **change}
    with pytest.raises(InputError, match=words):
        Rule.from_json(entry)


@pytest.mark.parametrize("name", ["measure", "smoothing", "threshold"])
def test_a_missing_field_is_named(name: str) -> None:
    entry = Rule("max_softmax", SUM30, 1.0).to_json()
    del entry[name]
    with pytest.raises(InputError, match=f"lacks the field {name}"):
        Rule.from_json(entry)
    with pytest.raises(InputError, match="JSON object"):
        Rule.from_json([])  # type: ignore[arg-type]


def made_front(accuracy: list[float], mean_steps: list[float]) -> Front:
    return Front(np.arange(float(len(accuracy))), np.array(accuracy), np.array(mean_steps))


def test_the_operating_point_by_hand() -> None:
    front = made_front([0.5, 0.8, 0.9, 0.89, 0.9], [1, 2, 3, 4, 5])
    assert operating_point(front, 0.9) == 2
    assert operating_point(front, 0.9, 0.1) == 1, "0.9 - 0.1 > 0.8 in floats must not cost the point"
    assert operating_point(front, 0.9, 0.099) == 2
    assert operating_point(front, 0.9, 1.0) == 0
    assert operating_point(front, 0.89, 0.0) == 2
    assert operating_point(front, 0.88, -0.02) == 2, "a margin"
    assert operating_point(front, 0.95) == 4, "none qualifies: the one that waits longest"


def test_among_equal_steps_the_higher_accuracy_wins() -> None:
    assert operating_point(made_front([0.9, 0.95, 0.92], [3, 3, 3]), 0.9) == 1


def test_numbers_that_are_not_finite_are_refused() -> None:
    front = made_front([1.0], [1])
    for full, drop in ((math.nan, 0.0), (1.0, math.nan), (1.0, INF)):
        with pytest.raises(ValueError, match="finite"):
            operating_point(front, full, drop)


def test_the_full_accuracy_is_always_reachable() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        scores = rng.integers(0, 4, (7, 5)).astype(float)
        correct = rng.random((7, 5)) < 0.5
        front = exact_front(scores, correct)
        index = operating_point(front, correct[:, -1].mean())
        assert front.accuracy[index] >= correct[:, -1].mean() - 1e-12
        earlier = front.accuracy[:index]
        assert (earlier < correct[:, -1].mean()).all()


#                     first right / stays right from
CORRECT = np.array(
    [
        [1, 1, 1, 1],  # 1 / 1
        [0, 1, 0, 1],  # 2 / 4
        [1, 0, 0, 0],  # 1 / never: T
        [0, 0, 0, 0],  # never: T / never: T
        [0, 0, 1, 1],  # 3 / 3
    ],
    dtype=bool,
)


def test_oracles_by_hand() -> None:
    assert first_correct(CORRECT) == OperatingPoint(4 / 5, (1 + 2 + 1 + 4 + 3) / 5)
    assert stays_correct(CORRECT) == OperatingPoint(3 / 5, (1 + 4 + 4 + 4 + 3) / 5)
    # Accuracies by step 2/5, 2/5, 2/5, 3/5: nested, 1 * 2/5 + 4 * 1/5 + 4 * 2/5 = 14/5.
    earliest = aet(CORRECT)
    assert (earliest.accuracy, earliest.mean_steps) == (4 / 5, 11 / 5)
    assert earliest.mean_steps_if_nested == pytest.approx(14 / 5, rel=1e-15)
    assert oracles(CORRECT) == Oracles(first_correct(CORRECT), stays_correct(CORRECT), earliest)
    assert list(oracles(CORRECT).points()) == ["first_correct", "stays_correct", "aet"]


def test_oracles_of_one_step_and_of_extremes() -> None:
    for right in (True, False):
        for oracle in oracles(np.array([[right]])).points().values():
            assert oracle.accuracy == float(right)
            assert {value for name, value in vars(oracle).items() if name != "accuracy"} == {1.0}
    always, never = np.ones((3, 6), bool), np.zeros((3, 6), bool)
    assert {oracle.mean_steps for oracle in oracles(always).points().values()} == {1.0}
    assert {oracle.mean_steps for oracle in oracles(never).points().values()} == {6.0}
    assert aet(always).mean_steps_if_nested == 1.0
    assert aet(never).mean_steps_if_nested == 6.0


def test_the_nested_aet_is_the_sum_that_defines_it() -> None:
    correct = np.random.default_rng(1).random((40, 9)) < 0.6
    accuracy = correct.mean(axis=0)
    gained = np.diff(accuracy, prepend=0.0)
    expected = (np.arange(1, 10) * gained).sum() + 9 * (1 - accuracy[-1])
    assert aet(correct).mean_steps_if_nested == pytest.approx(expected, rel=1e-12)


def test_no_exit_beats_the_first_correct_step() -> None:
    rng = np.random.default_rng(2)
    for _ in range(20):
        scores, correct = rng.normal(size=(15, 6)), rng.random((15, 6)) < 0.5
        assert first_correct(correct).accuracy >= exact_front(scores, correct).accuracy.max()


def test_figures_by_class_by_a_plain_loop() -> None:
    rng = np.random.default_rng(3)
    correct, steps, labels = rng.random((60, 5)) < 0.6, rng.integers(1, 6, 60), rng.choice([0, 2, 5], 60)
    found = figures_by_class(correct, steps, labels)
    assert [one.label for one in found] == [0, 2, 5]
    for one in found:
        own = [
            (bool(correct[n, -1]), bool(correct[n, steps[n] - 1]), int(steps[n])) for n in range(60) if labels[n] == one.label
        ]
        assert one.samples == len(own)
        assert one.accuracy_at_full == pytest.approx(np.mean([full for full, _, _ in own]))
        assert one.accuracy == pytest.approx(np.mean([right for _, right, _ in own]))
        assert (one.lost, one.gained) == (sum(f and not r for f, r, _ in own), sum(r and not f for f, r, _ in own))
        assert one.loss == pytest.approx(one.accuracy_at_full - one.accuracy)
        assert one.mean_steps == pytest.approx(np.mean([step for _, _, step in own]))


def test_many_classes_in_brief_are_the_ones_that_lose_most() -> None:
    steps, labels = np.full(90, 1), np.repeat(np.arange(30), 3)
    correct = np.ones((90, 2), dtype=bool)
    correct[labels == 17, 0] = correct[3, 0] = False
    found = figures_by_class(correct, steps, labels)
    assert [one.label for one in in_brief(found)][:3] == [17, 1, 0] and len(in_brief(found)) == 20
    assert in_brief(found[:20]) == found[:20]
