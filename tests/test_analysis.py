"""The analysis of traces: what it says is recomputed by plain loops, and nothing that must not choose does."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from study_cases import exits, made, number, operating_points, outcome, running, scores_of, with_labels

from dynconf_core.confidence.smoothing import Smoothing
from dynconf_core.errors import InputError
from dynconf_core.evaluation.analysis import Analysis, analyse
from dynconf_core.evaluation.record import AnalysisRecord
from dynconf_core.exit.front import write_front
from dynconf_core.exit.rule import Rule
from dynconf_core.figures.analysis import analysis_figures
from dynconf_core.results.analysis_folder import write_analysis
from dynconf_core.results.records import json_text, plain, read, to_json
from dynconf_core.traces.parts import split_in_two
from dynconf_core.traces.schema import Traces

PICTURES = {"accuracy_against_latency", "rules", "exit_histogram", "robustness", "reliability"}
MEASURES = ["max_softmax", "entropy", "gap", "patience", "learned"]
CALIBRATION, TEST = made(160, 1), made(120, 2)


@pytest.fixture(scope="module")
def unguaranteed() -> Analysis:
    return analyse(CALIBRATION, TEST, seed=3, readout="plain")


@pytest.fixture(scope="module")
def guaranteed() -> Analysis:
    return analyse(CALIBRATION, TEST, epsilon=0.2, delta=0.2, seed=3, readout="plain")


def record_of(analysis: Analysis) -> dict[str, Any]:
    """As analysis.json holds it."""
    return to_json(analysis.record)


def chosen_of(analysis: Analysis) -> dict[str, Any]:
    """The entry of the chosen rule, likewise."""
    return plain(analysis.record.rule)  # type: ignore[no-any-return]


def just_above(threshold: float | str) -> float:
    """A threshold is a calibration score, and two implementations of a score may differ in the last digit."""
    found = number(threshold)
    return found + 1e-9 * abs(found) if math.isfinite(found) else found


def strictly(text: str) -> Any:
    """JSON without NaN and infinities, which Python's parser would take."""

    def refuse(constant: str) -> None:
        pytest.fail(f"{constant} in JSON")

    return json.loads(text, parse_constant=refuse)


def test_the_fields_that_the_format_names(unguaranteed: Analysis, guaranteed: Analysis) -> None:
    record = strictly(json_text(record_of(unguaranteed)))
    assert (record["schema"], record["time_steps"], record["classes"]) == (2, 8, 4)
    assert (record["calibration"], record["test"], record["guarantee"], record["split"]) == (160, 120, None, None)
    assert [entry["measure"] for entry in record["rules"]] == MEASURES
    for entry in record["rules"]:
        assert {"measure", "readout", "smoothing", "threshold", "threshold_shown", "calibration", "test"} <= entry.keys()
        assert {"accuracy", "mean_steps"} <= entry["calibration"].keys()
        assert {"accuracy", "accuracy_interval", "mean_steps", "mean_steps_interval"} <= entry["test"].keys()
    assert record["rules"][record["chosen"]]["measure"] == unguaranteed.rule.measure.name
    guarantee = strictly(json_text(record_of(guaranteed)))["guarantee"]
    assert {"epsilon", "delta", "threshold", "certified", "method", "assumes", "calibration"} <= guarantee.keys()
    assert (guarantee["epsilon"], guarantee["delta"], guarantee["calibration"]) == (0.2, 0.2, 80)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("which", ["unguaranteed", "guaranteed"])
def test_every_rules_figures_by_a_plain_loop(which: str, measure: str, request: pytest.FixtureRequest) -> None:
    record = record_of(request.getfixturevalue(which))
    entry = next(entry for entry in record["rules"] if entry["measure"] == measure)
    threshold = just_above(entry["threshold"])
    expected = outcome(TEST, exits(scores_of(entry, TEST), threshold))
    judged = entry["test"]
    assert (judged["accuracy"], judged["mean_steps"]) == pytest.approx(tuple(expected.values()), abs=1e-12)
    low, high = judged["accuracy_interval"]
    assert low < judged["accuracy"] < high
    low, high = judged["mean_steps_interval"]
    assert low <= judged["mean_steps"] <= high
    assert judged["loss"] == pytest.approx(record["accuracy_at_t"]["test"][-1] - judged["accuracy"])
    if measure != "learned":  # whose scores on the samples that fitted it are those of other folds
        expected = outcome(CALIBRATION, exits(scores_of(entry, CALIBRATION), threshold))
        figures = (entry["calibration"]["accuracy"], entry["calibration"]["mean_steps"])
        assert figures == pytest.approx(tuple(expected.values()), abs=1e-12)


def test_the_chosen_rules_exit_by_a_plain_loop(unguaranteed: Analysis) -> None:
    record = record_of(unguaranteed)
    entry = record["rules"][record["chosen"]]
    steps = exits(scores_of(entry, TEST), just_above(entry["threshold"]))
    assert unguaranteed.exit_steps.tolist() == steps
    assert record["exit"]["histogram"] == [steps.count(t) for t in range(1, 9)]
    assert {name: record["exit"][name] for name in entry["test"]} == entry["test"]
    least = min(steps)
    assert record["least_latency"] == {"at_step": least, "share_of_samples": steps.count(least) / len(steps)}


@pytest.mark.parametrize("name", ["calibration", "test"])
def test_accuracies_and_oracles_by_a_plain_loop(unguaranteed: Analysis, name: str) -> None:
    traces = {"calibration": CALIBRATION, "test": TEST}[name]
    right = [[z.index(max(z)) == label for z in rows] for rows, label in zip(running(traces), traces.labels, strict=True)]
    count = len(right)
    assert record_of(unguaranteed)["accuracy_at_t"][name] == pytest.approx(
        [sum(row[t] for row in right) / count for t in range(8)]
    )
    best = record_of(unguaranteed)["oracles"][name]
    first = [row.index(True) + 1 if True in row else 8 for row in right]
    assert best["first_correct"]["accuracy"] == pytest.approx(sum(True in row for row in right) / count)
    assert best["first_correct"]["mean_steps"] == best["aet"]["mean_steps"] == pytest.approx(sum(first) / count)
    stays = [next((t for t in range(1, 9) if all(row[t - 1 :])), 8) for row in right]
    assert best["stays_correct"]["accuracy"] == pytest.approx(sum(row[-1] for row in right) / count)
    assert best["stays_correct"]["mean_steps"] == pytest.approx(sum(stays) / count)


FIXED: dict[str, dict[str, Any]] = {
    "max_softmax": {"measure": "max_softmax", "smoothing": Smoothing("sum", 30.0)},
    "mean": {"measure": "max_softmax", "smoothing": Smoothing("mean", 2.0)},
    "entropy": {"measure": "entropy", "smoothing": Smoothing("sum", 3.0)},
    "patience": {"measure": "patience"},  # many equal scores
}


@pytest.mark.parametrize("parts", [{}, {"epsilon": 0.3, "delta": 0.3}], ids=["all", "halved"])
@pytest.mark.parametrize("name", FIXED)
def test_the_front_of_a_fixed_rule_is_every_point_that_a_threshold_reaches(
    name: str, parts: dict[str, float], tmp_path: Path
) -> None:
    calibration, test = made(24, 5, 5, 3), made(20, 6, 5, 3)
    analysis = analyse(calibration, test, **FIXED[name], **parts)
    assert {row.measure for row in analysis.record.comparison} == set(MEASURES), "the others are shown beside it"
    entry = chosen_of(analysis)
    assert entry["measure"] == FIXED[name]["measure"]
    assert entry["smoothing"] == FIXED[name].get("smoothing", Smoothing("sum", 1.0)).to_dict()
    write_front(analysis.front, tmp_path / "front.csv")  # as write_analysis does
    with (tmp_path / "front.csv").open() as file:
        heading, *rows = csv.reader(file)
    assert heading == ["threshold", "accuracy", "mean_steps"]
    assert (rows[0][0], rows[-1][0]) == ("-inf", "inf")
    expected = operating_points(calibration, scores_of(entry, calibration))
    # The last finite threshold that exits nobody is written as never.
    expected[-1] = (math.inf, *expected[-1][1:])
    assert len(rows) == len(expected)
    np.testing.assert_allclose(np.array(rows, dtype=float), np.array(expected), rtol=1e-9, atol=1e-12)
    chosen = (str(entry["threshold"]), entry["calibration"]["accuracy"], entry["calibration"]["mean_steps"])
    assert chosen in [(threshold, float(accuracy), float(steps)) for threshold, accuracy, steps in rows]


def test_a_threshold_is_the_largest_calibration_score_that_does_not_exit(unguaranteed: Analysis) -> None:
    for entry in record_of(unguaranteed)["rules"]:
        if entry["measure"] == "learned" or isinstance(entry["threshold"], str):
            continue
        scores = scores_of(entry, CALIBRATION)
        every = sorted({score for row in scores for score in row})
        nearest = min(every, key=lambda score: abs(score - entry["threshold"]))
        assert nearest == pytest.approx(entry["threshold"], rel=1e-9)
        hair = 1e-9 * abs(nearest)
        following = [score for score in every if score > nearest + hair]
        between = (entry["threshold"] + following[0]) / 2 if following else math.inf
        assert exits(scores, nearest) == exits(scores, between)
        assert exits(scores, nearest - hair) != exits(scores, nearest) or not following


def changed(traces: Traces, rows: list[int], seed: int = 0) -> Traces:
    """Other labels and other logits at some rows."""
    draw = np.random.default_rng(seed)
    labels, logits = traces.labels.copy(), traces.logits.copy()
    labels[rows] = (labels[rows] + draw.integers(1, traces.classes, len(rows))) % traces.classes
    logits[rows] = draw.normal(size=logits[rows].shape)
    return Traces(logits, labels)


def test_the_half_that_certifies_chooses_nothing(guaranteed: Analysis) -> None:
    halves = record_of(guaranteed)["guarantee"]["halves"]
    choosing, certifying = set(halves["choosing"]), set(halves["certifying"])
    assert not choosing & certifying and choosing | certifying == set(range(160)) and len(certifying) == 80
    other = analyse(changed(CALIBRATION, halves["certifying"]), TEST, epsilon=0.2, delta=0.2, seed=3, readout="plain")
    for ours, theirs in zip(record_of(guaranteed)["rules"], record_of(other)["rules"], strict=True):
        for name in ("measure", "smoothing", "threshold", "parameters", "cross_fitted", "calibrated", "test"):
            assert ours.get(name) == theirs.get(name)
    assert record_of(other)["chosen"] == record_of(guaranteed)["chosen"]
    assert record_of(other)["comparison"] == record_of(guaranteed)["comparison"]
    candidates = [analysis.guarantee.tests.thresholds.tolist() for analysis in (guaranteed, other) if analysis.guarantee]
    assert candidates[0] == candidates[1]
    assert record_of(other)["guarantee"]["lost"] != record_of(guaranteed)["guarantee"]["lost"] or (
        record_of(other)["guarantee"]["certified"] != record_of(guaranteed)["guarantee"]["certified"]
    )


def test_the_half_that_chooses_does_choose(guaranteed: Analysis) -> None:
    """So that the test above can fail."""
    halves = record_of(guaranteed)["guarantee"]["halves"]
    other = analyse(changed(CALIBRATION, halves["choosing"]), TEST, epsilon=0.2, delta=0.2, seed=3, readout="plain")
    assert [entry["threshold"] for entry in record_of(other)["rules"]] != [
        entry["threshold"] for entry in record_of(guaranteed)["rules"]
    ]


def test_the_guarantees_figures_by_a_plain_loop(guaranteed: Analysis) -> None:
    entry, guarantee = chosen_of(guaranteed), record_of(guaranteed)["guarantee"]
    assert guarantee["certified"]
    rows = guarantee["halves"]["certifying"]
    half = Traces(CALIBRATION.logits[rows], CALIBRATION.labels[rows])
    steps = exits(scores_of(entry, half), just_above(guarantee["threshold"]))
    lost = gained = 0
    for z, label, step in zip(running(half), half.labels.tolist(), steps, strict=True):
        full, early = (z[t].index(max(z[t])) == label for t in (-1, step - 1))
        lost += full and not early
        gained += early and not full
    assert (guarantee["lost"], guarantee["gained"]) == (lost, gained)
    assert guarantee["mean_steps"] == pytest.approx(sum(steps) / len(steps))
    judged = outcome(TEST, exits(scores_of(entry, TEST), just_above(guarantee["threshold"])))
    assert guarantee["test"]["accuracy"] == pytest.approx(judged["accuracy"])
    assert guarantee["test"]["mean_steps"] == pytest.approx(judged["mean_steps"])


def test_too_few_samples_certify_nothing() -> None:
    for calibration in (made(3, 1), made(40, 1)):
        guarantee = record_of(analyse(calibration, TEST, epsilon=0.01, delta=0.05))["guarantee"]
        assert (guarantee["certified"], guarantee["threshold"]) == (False, "inf")
        assert guarantee["test"]["mean_steps"] == 8


def test_test_traces_choose_nothing(unguaranteed: Analysis) -> None:
    other = analyse(CALIBRATION, changed(TEST, list(range(120))), seed=3, readout="plain")
    for ours, theirs in zip(record_of(unguaranteed)["rules"], record_of(other)["rules"], strict=True):
        assert {**ours, "test": None} == {**theirs, "test": None}
    thresholds = [[row["threshold"] for row in record_of(analysis)["comparison"]] for analysis in (unguaranteed, other)]
    assert thresholds[0] == thresholds[1] and record_of(unguaranteed)["chosen"] == record_of(other)["chosen"]
    assert record_of(unguaranteed)["exit"] != record_of(other)["exit"]


def test_every_field_is_documented(guaranteed: Analysis, root: Path) -> None:
    text = (root / "docs" / "formats.md").read_text()
    record = record_of(guaranteed)
    names = {
        *record,
        *record["rules"][0],
        *record["rules"][0]["test"],
        *record["guarantee"],
        *record["exit"],
        *record["oracles"]["test"],
    }
    assert {name for name in names - {"schema"} if f"`{name}`" not in text and f"`{name}." not in text} == set()


def test_the_same_seed_gives_the_same_bytes(guaranteed: Analysis, tmp_path: Path) -> None:
    again = analyse(CALIBRATION, TEST, epsilon=0.2, delta=0.2, seed=3, readout="plain")
    assert json_text(record_of(again)) == json_text(record_of(guaranteed))
    other = analyse(CALIBRATION, TEST, epsilon=0.2, delta=0.2, seed=4, readout="plain")
    assert record_of(other)["guarantee"]["halves"] != record_of(guaranteed)["guarantee"]["halves"]


def test_a_larger_allowed_drop_never_waits_longer() -> None:
    """On the samples that chose, where a rule is fixed: the points allowed grow with the drop."""
    steps = [
        analyse(CALIBRATION, TEST, max_drop=drop, measures=(), **FIXED["max_softmax"]).choice.cross_fitted.mean_steps
        for drop in (0.0, 0.02, 0.1, 0.5)
    ]
    assert steps == sorted(steps, reverse=True) and steps[0] > steps[-1]


def ones(samples: int, time_steps: int, classes: int, label: int | None = None) -> Traces:
    """A constant classifier: class 1 always."""
    logits = np.zeros((samples, time_steps, classes), dtype=np.float32)
    logits[..., 1] = 1.0
    return Traces(logits, np.arange(samples) % classes if label is None else np.full(samples, label))


def right_at_once(samples: int, wrong: int = 0) -> Traces:
    traces = made(samples, 9, 6, 4)
    logits = np.zeros_like(traces.logits)
    logits[np.arange(samples), :, traces.labels] = np.random.default_rng(1).random((samples, 6)) + 0.1
    return Traces(logits, (traces.labels + wrong) % 4)


TINY = made(2, 4, 5, 3)
CASES: dict[str, tuple[Traces, Traces, str | None]] = {
    "a constant classifier": (ones(30, 6, 3), ones(20, 6, 3), "predicts class 1"),
    "no difference between classes": (
        Traces(np.zeros((30, 6, 3)), np.arange(30) % 3),
        Traces(np.zeros((30, 6, 3)), np.arange(30) % 3),
        "predicts class 0",
    ),
    "all wrong": (right_at_once(40, 1), right_at_once(30, 1), "is correct at any step"),
    "all right at step 1": (right_at_once(40), right_at_once(30), "waiting cannot improve anything"),
    "duplicated samples": (made(60, 1), Traces(made(60, 1).logits[:20], made(60, 1).labels[:20]), "20 of the 20 test samples"),
    "one step": (made(50, 1, 1, 3), made(40, 2, 1, 3), None),
    "two samples": (TINY, made(2, 5, 5, 3), None),
    "one test sample": (made(30, 1), made(1, 2), None),
    "one class among labels": (
        with_labels(made(40, 1), np.full(40, 2)),
        with_labels(made(30, 2), np.full(30, 2)),
        "all calibration samples are of class 2",
    ),
    "two classes": (made(40, 1, 6, 2), made(30, 2, 6, 2), None),
    "half precision": (
        Traces(made(40, 1).logits.astype(np.float16), made(40, 1).labels),
        Traces(made(30, 2).logits.astype(np.float16), made(30, 2).labels),
        None,
    ),
    "tiny logits": (
        Traces(made(40, 1).logits.astype(np.float64) * 1e-290, made(40, 1).labels),
        Traces(made(30, 2).logits.astype(np.float64) * 1e-290, made(30, 2).labels),
        None,
    ),
    "the largest logits": (
        Traces(made(40, 1).logits.astype(np.float64) * 1e98, made(40, 1).labels),
        Traces(made(30, 2).logits.astype(np.float64) * 1e98, made(30, 2).labels),
        None,
    ),
    "trained on": (made(40, 1, meta={"trained_on_calibration": True}), made(30, 2), "trained on the calibration images"),
}


@pytest.mark.parametrize("guarantee", [{}, {"epsilon": 0.1, "delta": 0.2}], ids=["", "guaranteed"])
@pytest.mark.parametrize("case", CASES)
def test_odd_traces_are_analysed(case: str, guarantee: dict[str, float]) -> None:
    calibration, test, warning = CASES[case]
    analysis = analyse(calibration, test, readout="plain", **guarantee)
    record = strictly(json_text(record_of(analysis)))
    assert warning is None or any(warning in text for text in record["warnings"]), record["warnings"]
    entry = record["rules"][record["chosen"]]
    assert 0 <= entry["test"]["accuracy"] <= 1 and 1 <= entry["test"]["mean_steps"] <= test.time_steps
    if case not in ("tiny logits",):  # where rounding of z / alpha decides
        expected = outcome(test, exits(scores_of(entry, test), just_above(entry["threshold"])))
        assert entry["test"]["mean_steps"] == pytest.approx(expected["mean_steps"])
        assert entry["test"]["accuracy"] == pytest.approx(expected["accuracy"])


def test_odd_traces_have_the_right_answers() -> None:
    for case in ("all wrong", "all right at step 1", "a constant classifier"):
        calibration, test, _ = CASES[case]
        chosen = chosen_of(analyse(calibration, test))
        assert (chosen["threshold"], chosen["test"]["mean_steps"], chosen["test"]["loss"]) == ("-inf", 1.0, 0.0)
    one_step = analyse(*CASES["one step"][:2])
    assert chosen_of(one_step)["test"]["mean_steps"] == 1.0
    assert [entry["measure"] for entry in record_of(one_step)["rules"]] == MEASURES[:-1]  # there is nothing to learn
    assert len(one_step.front) == 1


def test_what_is_nothing_to_warn_of(unguaranteed: Analysis) -> None:
    assert record_of(unguaranteed)["warnings"] == []
    calibration, test, _ = CASES["a constant classifier"]
    assert not any("also calibration samples" in text for text in analyse(calibration, test).record.warnings)


@pytest.mark.parametrize(
    ("calibration", "test", "wish", "words"),
    [
        (made(20, 1), made(20, 2, 7), {}, ["8 time steps", "7", "one SNN"]),
        (made(20, 1), made(20, 2, 8, 5), {}, ["4 classes", "5"]),
        (made(1, 1), made(20, 2), {}, ["1 sample", "at least 2"]),
        (CALIBRATION, TEST, {"epsilon": 0.01}, ["epsilon = 0.01", "delta = None", "both"]),
        (CALIBRATION, TEST, {"delta": 0.01}, ["epsilon = None", "both"]),
        (CALIBRATION, TEST, {"epsilon": 0.0, "delta": 0.1}, ["epsilon = 0.0", "between 0 and 1"]),
        (CALIBRATION, TEST, {"epsilon": 0.1, "delta": math.nan}, ["delta = nan"]),
        (CALIBRATION, TEST, {"max_drop": -0.1}, ["max_drop = -0.1"]),
        (CALIBRATION, TEST, {"max_drop": math.nan}, ["max_drop = nan"]),
        (CALIBRATION, TEST, {"measures": ("nope",)}, ["'nope'", "patience"]),
        (made(20, 1, 1), made(20, 2, 1), {"measures": ("learned",)}, ["2 time steps"]),
    ],
)
def test_what_cannot_work_is_said(calibration: Traces, test: Traces, wish: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(InputError) as told:
        analyse(calibration, test, **wish)
    assert all(word in str(told.value) for word in words), told.value


@pytest.mark.parametrize("samples", [4, 5, 101])
def test_one_set_is_split_half_and_half(samples: int) -> None:
    traces = made(samples, 1, spikes=np.arange(samples * 8).reshape(samples, 8), meta={"source": "a"})
    calibration, test, split = split_in_two(traces, 7)
    chosen, judging = list(split.calibration), list(split.test)
    assert sorted(chosen + judging) == list(range(samples)) and abs(len(chosen) - len(judging)) <= 1
    assert split.seed == 7 and split == split_in_two(traces, 7)[2]
    for part, rows in ((calibration, chosen), (test, judging)):
        assert (part.logits == traces.logits[rows]).all() and (part.labels == traces.labels[rows]).all()
        assert part.spikes is not None and (part.spikes[:, 0] == np.array(rows) * 8).all() and part.meta == {"source": "a"}
    if samples > 5:
        assert split.test != split_in_two(traces, 8)[2].test


def test_one_set_of_three_samples_cannot_be_split() -> None:
    with pytest.raises(InputError, match=r"samples = 3 .* at least 4"):
        split_in_two(made(3, 1), 0)


def written_to(out: Path, analysis: Analysis, test: Traces, title: str, source: str = "") -> list[Path]:
    return write_analysis(analysis, out, analysis_figures(analysis, test, title, source))


def test_an_analysis_as_a_folder(guaranteed: Analysis, unguaranteed: Analysis, tmp_path: Path) -> None:
    out = tmp_path / "a" / "folder"
    written = written_to(out, guaranteed, TEST, "a [b] $c$", "profile smoke")
    assert {path.name for path in written} == {path.name for path in out.iterdir()}
    assert written[-1] == out / "analysis.json"
    assert {path.stem for path in out.glob("*.png")} == PICTURES | {"guarantee"}
    assert all(path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 5000 for path in out.glob("*.png"))
    assert strictly((out / "analysis.json").read_text()) == record_of(guaranteed)
    with (out / "front.csv").open() as file:
        front = [[float(value) for value in row.values()] for row in csv.DictReader(file)]
    assert np.array_equal(
        front, np.stack([guaranteed.front.thresholds, guaranteed.front.accuracy, guaranteed.front.mean_steps], 1)
    )
    rule = strictly((out / "rule-uncertified.json").read_text())
    assert rule["schema"] == 2 and {"calibration", "cross_fitted", "calibrated", "test"} <= rule.keys()
    loaded = Rule.load(out / "rule-uncertified.json")
    assert loaded == guaranteed.uncertified and rule["certified"] is False
    assert loaded.exit_steps(TEST).mean() == guaranteed.record.rule.test.mean_steps

    (out / "mine.txt").write_text("kept")
    before = (out / "analysis.json").read_bytes()
    written_to(out, unguaranteed, TEST, "again")
    assert not (out / "guarantee.png").exists() and (out / "mine.txt").exists()  # the other analysis's, and somebody's
    assert not (out / "rule-uncertified.json").exists() and Rule.load(out / "rule.json") == unguaranteed.rule
    assert {"calibration", "cross_fitted", "calibrated", "test"} <= strictly((out / "rule.json").read_text()).keys()
    assert (out / "analysis.json").read_bytes() != before


def test_the_certified_rule_is_the_one_that_is_written(guaranteed: Analysis, tmp_path: Path) -> None:
    write_analysis(guaranteed, tmp_path, {})
    certified, guarantee = Rule.load(tmp_path / "rule.json"), guaranteed.record.guarantee
    assert guarantee is not None and certified.threshold == guarantee.threshold
    assert certified == guaranteed.rule and certified.threshold != guaranteed.uncertified.threshold
    assert (certified.measure, certified.smoothing) == (guaranteed.uncertified.measure, guaranteed.uncertified.smoothing)
    entry = strictly((tmp_path / "rule.json").read_text())
    assert entry["certified"] is entry["guarantee"]["certified"] is True
    assert [entry["guarantee"][name] for name in ("epsilon", "delta", "calibration")] == [0.2, 0.2, 80]
    assert guaranteed.exit_steps.tolist() == certified.exit_steps(TEST).tolist()  # and all figures are of the rule one gets
    assert (guaranteed.record.exit.loss, guaranteed.record.exit.mean_steps) == (guarantee.test.loss, guarantee.test.mean_steps)
    assert "with confidence 80 %" in str(guaranteed) and f"{guarantee.test.mean_steps:.2f} of 8" in str(guaranteed)
    assert certified.exit_steps(TEST).mean() == entry["test"]["mean_steps"] == guarantee.test.mean_steps


def test_where_nothing_is_certified_the_rule_that_is_written_never_exits(tmp_path: Path) -> None:
    write_analysis(analyse(made(40, 1), TEST, epsilon=0.01, delta=0.05), tmp_path, {})
    assert (Rule.load(tmp_path / "rule.json").exit_steps(TEST) == TEST.time_steps).all()


@pytest.mark.parametrize("which", ["unguaranteed", "guaranteed"])
def test_an_analysis_is_read_back_as_it_was(which: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    analysis: Analysis = request.getfixturevalue(which)
    path = tmp_path / "analysis.json"
    path.write_text(json_text(record_of(analysis)))
    assert read(AnalysisRecord, path) == analysis.record


@pytest.mark.parametrize("case", ["one step", "a constant classifier", "one test sample"])
def test_odd_traces_have_pictures(case: str, tmp_path: Path) -> None:
    calibration, test, _ = CASES[case]
    analysis = analyse(calibration, test, epsilon=0.1, delta=0.2)
    written = written_to(tmp_path, analysis, test, case)
    assert {path.stem for path in written if path.suffix == ".png"} == PICTURES | {"guarantee"}


def test_what_json_cannot_say_is_said_otherwise() -> None:
    record = {"a": [1.0, math.inf, -math.inf], "b": {"c": math.nan}, "d": ("[ 1,\n 2 ]", "x"), "e": [[1, 2], [3]], "f": []}
    text = json_text(record)
    assert strictly(text) == {
        "a": [1.0, "inf", "-inf"],
        "b": {"c": None},
        "d": ["[ 1,\n 2 ]", "x"],
        "e": [[1, 2], [3]],
        "f": [],
    }
    assert "[1, 2]" in text and plain(record)["d"][0] == "[ 1,\n 2 ]"
    assert json_text({"a": list(range(500))}).count("\n") == 3
