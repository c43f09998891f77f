"""The published results: their figures follow from the traces beside them, and the study can be made again from these."""

import json
from pathlib import Path
from typing import Any

import pytest

from dynconf_core.exit.oracles import oracles
from dynconf_core.exit.rule import Rule, at_exit
from dynconf_core.results.trace_pairs import pairs
from dynconf_core.traces.schema import Traces
from dynconf_tasks.analyse import study

ROOT = Path(__file__).parent.parent
RUNS = sorted(path.parent for path in (ROOT / "results").glob("*/results.json"))
PUBLISHED = [(run, path.name.removesuffix("-test.npz")) for run in RUNS for path in sorted(run.glob("*-test.npz"))]
LARGEST = 40_000_000
SMALL = "cifar10-resnet18-qffs"


def row_of(run: Path, name: str) -> dict[str, Any]:
    document = json.loads((run / "results.json").read_text())
    found: dict[str, Any] = next(row for row in document["settings"] if row["name"] == name)
    return found


def test_there_are_results_and_they_are_small() -> None:
    assert PUBLISHED
    assert sum(path.stat().st_size for path in (ROOT / "results").rglob("*") if path.is_file()) <= LARGEST


@pytest.mark.parametrize(("run", "name"), PUBLISHED, ids=lambda value: getattr(value, "name", value))
def test_the_figures_follow_from_the_traces(run: Path, name: str) -> None:
    row, test = row_of(run, name), Traces.load(run / f"{name}-test.npz")
    rule = Rule.load(run / f"{name}-rule.json")
    correct, steps = test.correct(), rule.exit_steps(test)
    assert correct.mean(axis=0).tolist() == row["accuracy_at_t"]
    judged = at_exit(correct, steps)
    assert (judged["accuracy"], judged["mean_steps"]) == (row["exit"]["accuracy"], row["exit"]["mean_steps"])
    assert oracles(correct)["first_correct"] == row["oracles"]["first_correct"]
    assert test.ann_logits is not None and float((test.ann_logits.argmax(1) == test.labels).mean()) == row["ann_accuracy"]
    assert test.spikes is not None and test.spikes.sum(axis=1).mean() == pytest.approx(row["spikes_per_inference"]["full"])
    page = (run / "README.md").read_text()
    assert f"| {name} | {100 * row['ann_accuracy']:.2f} |" in page
    assert f"{100 * judged['accuracy']:.2f} @ {judged['mean_steps']:.2f}" in page


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_one_page_and_one_record_of_training_a_setting(run: Path) -> None:
    for row in json.loads((run / "results.json").read_text())["settings"]:
        assert row["status"] == "ok"
        record = json.loads((run / f"{row['name']}-training.json").read_text())
        assert record["data"]["split"]["calibration"] == row["data"]["calibration"]
        assert record["network"]["width"] == row["network"]["width"]
        assert (run / "figures" / f"{row['name']}-accuracy_against_latency.png").is_file()


def test_a_study_of_the_traces_finds_what_was_published(tmp_path: Path) -> None:
    """Of the smallest pair; calibration logits are rounded, so a threshold may move by the last digit."""
    run = next(run for run, name in PUBLISHED if name == SMALL)
    pair = next(pair for pair in pairs(run, None) if pair.name == SMALL)
    assert pair.test is not None
    row, record = row_of(run, SMALL), study(pair, tmp_path / "study").analysis.record
    assert record["accuracy_at_t"]["test"] == row["accuracy_at_t"]
    assert record["oracles"]["test"] == row["oracles"]
    for ours, theirs in zip(record["comparison"], row["comparison"], strict=True):
        assert (ours["rule"], ours["max_drop"]) == (theirs["rule"], theirs["max_drop"])
        assert ours["test"]["mean_steps"] == pytest.approx(theirs["test"]["mean_steps"], abs=0.05)
        assert ours["test"]["accuracy"] == pytest.approx(theirs["test"]["accuracy"], abs=0.001)
    assert (tmp_path / "study" / "accuracy_against_latency.png").is_file()
