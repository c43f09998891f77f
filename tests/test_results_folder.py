"""The published results: their figures follow from the traces beside them, and the analyses can be made again from these."""

import json
from pathlib import Path

import pytest

from dynconf_core.choosing.comparison import compare
from dynconf_core.exit.judgement import at_exit
from dynconf_core.exit.oracles import oracles
from dynconf_core.exit.rule import Rule
from dynconf_core.results.files import csv_text
from dynconf_core.results.page import run_page
from dynconf_core.results.records import json_text, plain, read, to_json
from dynconf_core.results.trace_pairs import pairs
from dynconf_core.results.types import RunResult, SettingResult
from dynconf_core.traces.schema import Traces
from dynconf_tasks.analyse import AnalysisOptions, analyse_pair

ROOT = Path(__file__).parent.parent
RUNS = sorted(path.parent for path in (ROOT / "results").glob("*/results.json"))
PUBLISHED = [(run, path.name.removesuffix("-test.npz")) for run in RUNS for path in sorted(run.glob("*-test.npz"))]
LARGEST = 40_000_000
SMALL = "cifar10-resnet18-qffs"


def row_of(run: Path, name: str) -> SettingResult:
    return next(row for row in read(RunResult, run / "results.json").finished if row.name == name)


def test_there_are_results_and_they_are_small() -> None:
    assert PUBLISHED
    assert sum(path.stat().st_size for path in (ROOT / "results").rglob("*") if path.is_file()) <= LARGEST


@pytest.mark.parametrize(("run", "name"), PUBLISHED, ids=lambda value: getattr(value, "name", value))
def test_the_figures_follow_from_the_traces(run: Path, name: str) -> None:
    row, test = row_of(run, name), Traces.load(run / f"{name}-test.npz")
    rule = Rule.load(run / f"{name}-rule.json")
    correct, steps = test.correct(), rule.exit_steps(test)
    assert tuple(correct.mean(axis=0).tolist()) == row.accuracy_at_t
    judged = at_exit(correct, steps)
    assert (judged.accuracy, judged.mean_steps) == (row.exit.accuracy, row.exit.mean_steps)
    assert oracles(correct) == row.oracles
    assert test.ann_logits is not None and float((test.ann_logits.argmax(1) == test.labels).mean()) == row.ann_accuracy
    assert test.spikes is not None and row.spikes_per_inference is not None
    assert test.spikes.sum(axis=1).mean() == pytest.approx(row.spikes_per_inference.full)
    assert row.ann_accuracy is not None
    page = (run / "README.md").read_text()
    assert f"| {name} | {100 * row.ann_accuracy:.2f} |" in page
    assert f"{100 * judged.accuracy:.2f} @ {judged.mean_steps:.2f}" in page


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_one_page_and_one_record_of_training_a_setting(run: Path) -> None:
    result = read(RunResult, run / "results.json")
    assert not result.failed
    training = {}
    for row in result.finished:
        record = training[row.name] = json.loads((run / f"{row.name}-training.json").read_text())
        assert record["data"]["split"]["calibration"] == row.data.calibration
        assert record["network"]["width"] == row.network.width
        assert (run / "figures" / f"{row.name}-accuracy_against_latency.png").is_file()
        assert Rule.load(run / f"{row.name}-rule.json").threshold == row.exit.rule.threshold
    traces = any(run.glob("*-test.npz"))
    assert (run / "README.md").read_text() == run_page(result, training, traces), "the page is what the results make it"


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_what_is_read_is_written_as_it_was(run: Path) -> None:
    result = read(RunResult, run / "results.json")
    assert json_text(to_json(result)) == (run / "results.json").read_text()
    assert csv_text(result).encode() == (run / "results.csv").read_bytes()


RULES = ROOT / "results" / "2026-11-27-rules" / f"{SMALL}.json"
"""The comparison of all rules on the traces of the smallest pair, cut at the paper's T."""


def test_an_analysis_of_the_traces_finds_what_was_published(tmp_path: Path) -> None:
    run = next(run for run, name in PUBLISHED if name == SMALL)
    pair = next(pair for pair in pairs(run, None) if pair.name == SMALL)
    assert pair.test is not None
    options = AnalysisOptions(rule="gap", readout="plain")
    row, record = row_of(run, SMALL), analyse_pair(pair, tmp_path / "analysis", options).analysis.record
    assert record.accuracy_at_t.test == row.accuracy_at_t
    assert record.oracles.test == row.oracles
    assert (tmp_path / "analysis" / "accuracy_against_latency.png").is_file()


def test_the_comparison_of_rules_is_the_published_one() -> None:
    """Of two measures; what is chosen of one does not depend on the others."""
    run = next(run for run, name in PUBLISHED if name == SMALL)
    calibration, test = (Traces.load(run / f"{SMALL}-{split}.npz").cut(4) for split in ("calibration", "test"))
    published = [row for row in json.loads(RULES.read_text())["comparisons"][SMALL] if row["measure"] in ("gap", "dt_snn")]
    rows = plain(compare(calibration, test, measures=("gap", "dt_snn")).rows)
    assert {(row["measure"], row["max_drop"]) for row in rows} == {(row["measure"], row["max_drop"]) for row in published}
    for row in rows:
        (same,) = (one for one in published if (one["measure"], one["max_drop"]) == (row["measure"], row["max_drop"]))
        assert row["readout"] == same["readout"]
        for split in ("calibration", "test"):
            assert row[split]["mean_steps"] == pytest.approx(same[split]["mean_steps"], abs=0.002)
            assert row[split]["loss"] == pytest.approx(same[split]["loss"], abs=2e-4)
