"""Rules at equal accuracy: recomputed by a plain loop, chosen on calibration alone, and readable in 80 columns."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest
from study_cases import exits, made, number, outcome, scores_of, with_labels

from dynconf_core.choosing.candidates import Candidate, candidates
from dynconf_core.choosing.comparison import (
    DROPS,
    Comparison,
    choose,
    compare,
    comparison_lines,
    interval_lines,
    judged,
)
from dynconf_core.choosing.contest import Contest
from dynconf_core.exit.rule import Rule
from dynconf_core.exit.shown import points
from dynconf_core.results.records import plain

CALIBRATION, TEST = made(150, 1, 6), made(110, 2, 6)
MEASURES = ["max_softmax", "entropy", "gap", "patience", "learned"]


@pytest.fixture(scope="module")
def found() -> list[Candidate]:
    return candidates(CALIBRATION, 0, readout="plain")


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    return compare(CALIBRATION, TEST, seed=0, readout="plain")


@pytest.fixture(scope="module")
def rows(comparison: Comparison) -> list[dict[str, Any]]:
    """The rows as stored in files."""
    return plain(comparison.rows)  # type: ignore[no-any-return]


def test_every_measure_at_every_drop(rows: list[dict[str, Any]]) -> None:
    assert DROPS == (0.0, 0.001, 0.005, 0.01)
    assert [(row["max_drop"], row["measure"]) for row in rows] == [(drop, measure) for drop in DROPS for measure in MEASURES]
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    assert len({row["name"] for row in rows}) == len(rows)


def test_figures_by_a_plain_loop(rows: list[dict[str, Any]], found: list[Candidate]) -> None:
    for row in rows:
        entry = row
        if row["measure"] == "learned":  # whose weights the table leaves out
            (candidate,) = (one for one in found if one.measure.name == "learned")
            assert candidate.measure.fitted and "parameters" not in row
            entry = {**row, "parameters": candidate.measure.to_json()}
        threshold = number(row["threshold"])
        threshold += 1e-9 * abs(threshold) if np.isfinite(threshold) else 0.0
        expected = outcome(TEST, exits(scores_of(entry, TEST), threshold))
        test = row["test"]
        assert (test["accuracy"], test["mean_steps"]) == pytest.approx(tuple(expected.values()), abs=1e-12)
        full = outcome(TEST, [TEST.time_steps] * TEST.samples)["accuracy"]
        assert test["loss"] == pytest.approx(full - expected["accuracy"])
        for name in ("accuracy", "mean_steps", "loss"):
            low, high = test[f"{name}_interval"]
            assert low <= test[name] <= high


def test_a_threshold_is_chosen_for_its_drop_on_calibration(rows: list[dict[str, Any]], found: list[Candidate]) -> None:
    for row in rows:
        own = [one for one in found if one.measure.name == row["measure"]]
        rule, choice = choose(own, CALIBRATION, row["max_drop"], 0)
        assert {"measure": row["measure"], "threshold": row["threshold"]}.items() <= rule.to_json().items()
        assert rule.smoothing.to_dict() == row["smoothing"]
        assert (row["calibration"], row["cross_fitted"]) == (plain(choice.calibration), plain(choice.cross_fitted))
        assert row["test"] == plain(judged(rule, TEST, 0))


def test_test_traces_choose_nothing() -> None:
    labels = (TEST.labels + np.random.default_rng(0).integers(1, 4, TEST.samples)) % 4
    rows, others = (plain(compare(CALIBRATION, test, seed=0).rows) for test in (TEST, with_labels(TEST, labels)))
    assert "decoded" in {row["readout"] for row in rows}
    assert [{**row, "test": None} for row in others] == [{**row, "test": None} for row in rows]
    assert [row["test"]["accuracy"] for row in others] != [row["test"]["accuracy"] for row in rows]


def test_a_contest_chooses_as_its_parts_do(found: list[Candidate]) -> None:
    contest = Contest(found, CALIBRATION, TEST, 5)
    assert contest.measures == MEASURES
    chosen = contest.choose(0.01)
    rule, choice = choose(found, CALIBRATION, 0.01, 5)
    assert (chosen.rule, chosen.choice.to_json(), chosen.index) == (rule, choice.to_json(), choice.index)
    assert contest.choose(0.01) is chosen
    assert contest.judged(chosen.index, rule.threshold) == judged(rule, TEST, 5)
    assert contest.exiting(chosen.index, rule.threshold).tolist() == rule.exit_steps(TEST).tolist()
    gap = contest.choose(0.01, "gap")
    assert gap.rule.measure.name == "gap" and found[gap.index].smoothing == gap.rule.smoothing
    front = contest.test_front(gap.index)
    steps = Rule("gap", gap.rule.smoothing, float(front.thresholds[len(front) // 2])).exit_steps(TEST)
    assert front.mean_steps[len(front) // 2] == steps.mean()


def test_measures_and_drops_can_be_named(comparison: Comparison) -> None:
    few = compare(CALIBRATION, TEST, measures=("gap",), drops=(0.005,), readout="plain")
    assert few.rows == tuple(row for row in comparison.rows if (row.measure, row.max_drop) == ("gap", 0.005))


def test_the_short_lines(comparison: Comparison, rows: list[dict[str, Any]]) -> None:
    lines = comparison_lines(comparison)
    assert max(map(len, lines)) <= 80
    assert [part.strip() for part in lines[0].split("drop")] == ["rule", "0 points", "0.1 points", "0.5 points", "1 point"]
    for steps, losses, measure in zip(lines[1:-1:2], lines[2:-1:2], MEASURES, strict=True):
        own = [row["test"] for row in rows if row["measure"] == measure]
        assert steps.split() == [measure, *(f"{test['mean_steps']:.2f}" for test in own)]
        assert losses.split() == [word for test in own for word in points(test["loss"]).split()]
    assert "6" in lines[-1] and comparison_lines(Comparison(6, ())) == []


def test_the_long_lines_have_intervals(comparison: Comparison, rows: list[dict[str, Any]]) -> None:
    lines = interval_lines(comparison)
    assert max(map(len, lines[:-1])) <= 80
    at = iter(rows)
    for line in lines[:-1]:
        if line.startswith("drop"):
            continue
        row = next(at)
        numbers = [float(text) for text in re.findall(r"[-+]?\d+\.\d+", line)]
        test = row["test"]
        expected = [100 * test["accuracy"], *(100 * end for end in test["accuracy_interval"])]
        expected += [test["mean_steps"], *test["mean_steps_interval"], 100 * abs(test["loss"])]
        assert line.split()[0] == row["measure"] and numbers == pytest.approx(expected, abs=0.0051)
        assert line.endswith(points(test["loss"]))
    assert next(at, None) is None


def test_the_public_names() -> None:
    import dynconf_core

    found = dynconf_core.compare(CALIBRATION, TEST, measures=["gap"], drops=[0.0])
    assert isinstance(found, dynconf_core.Comparison) and [row.measure for row in found.rows] == ["gap"]
    analysis = dynconf_core.analyse(CALIBRATION, TEST, measures=["gap"])
    assert isinstance(analysis, dynconf_core.Analysis) and analysis.record.rule.test == found.rows[0].test
