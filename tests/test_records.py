"""Typed results and their files: what is written is read back as it was, and what is wrong is named."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from result_cases import PUBLISHED, exiting, failed_setting, rule_entry, run_result, setting_result

from dynconf_core.choosing.entries import ComparisonRow, RuleEntry
from dynconf_core.confidence.smoothing import Smoothing
from dynconf_core.errors import InputError
from dynconf_core.evaluation.energy import MultiplyAccumulates
from dynconf_core.evaluation.record import AnalysisRecord
from dynconf_core.evaluation.setting import SettingEvaluation
from dynconf_core.results.records import flat, from_json, json_text, plain, read, to_json
from dynconf_core.results.types import NetworkFacts, OverSeeds, RunResult, SweepResult

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
QUICK = settings(
    max_examples=25, deadline=None, derandomize=True, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
)
THRESHOLDS = FLOATS | st.sampled_from([math.inf, -math.inf])
VALUES = st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | FLOATS | st.text(), max_size=3)
SMOOTHINGS = st.builds(Smoothing, st.sampled_from(["sum", "mean"]), st.floats(0.1, 100.0)) | st.builds(
    Smoothing, st.just("power"), st.floats(0.1, 100.0), st.floats(-8.0, 8.0)
)
COUNTS = st.integers(0, 10**12)


@pytest.fixture(scope="module", autouse=True)
def _strategies() -> None:
    """How Hypothesis makes what has conditions of its own; all else it makes by the fields' types."""
    st.register_type_strategy(float, FLOATS)
    st.register_type_strategy(Smoothing, SMOOTHINGS)
    st.register_type_strategy(MultiplyAccumulates, st.builds(MultiplyAccumulates, COUNTS, COUNTS, COUNTS))
    parameters = st.none() | st.fixed_dictionaries({"weights": st.dictionaries(st.text(), FLOATS, max_size=2)})
    for kind in (RuleEntry, ComparisonRow):
        built = st.builds(kind, threshold=THRESHOLDS, threshold_shown=THRESHOLDS, parameters=parameters)
        st.register_type_strategy(kind, built)


@pytest.mark.parametrize("kind", [SettingEvaluation, AnalysisRecord, RunResult, SweepResult, OverSeeds])
def test_whatever_is_written_is_read_back(kind: type[Any]) -> None:
    @QUICK
    @given(st.data())
    def property_(data: st.DataObject) -> None:
        made = data.draw(st.from_type(kind))
        text = json_text(to_json(made))
        content = json.loads(text, parse_constant=pytest.fail)
        assert content["schema"] == 2
        assert from_json(kind, content, "x.json") == made

    property_()


def test_a_threshold_may_be_infinite() -> None:
    for threshold, said in ((math.inf, "inf"), (-math.inf, "-inf"), (1.5, 1.5)):
        made = run_result(setting_result(exit=exiting(rule=rule_entry(threshold))))
        content = json.loads(json_text(to_json(made)))
        assert content["settings"][0]["exit"]["rule"]["threshold"] == said
        assert from_json(RunResult, content, "x.json") == made


def test_fields_that_say_nothing_are_null_or_left_out() -> None:
    content = plain(setting_result(levels=None, bits=2))
    assert content["energy"] is None and content["error"] is None and content["paper"] is None
    assert content["exit"]["rule"]["readout"] is None
    assert plain(NetworkFacts("vgg16", 1.0, None)) == {"architecture": "vgg16", "width": 1.0, "parameters": None}
    assert "levels" not in content and content["bits"] == 2
    assert "parameters" not in content["exit"]["rule"] and "source" not in content["exit"]["rule"]
    assert content["exit"]["rule"]["smoothing"] == {"form": "sum", "alpha": 3.0}


def test_further_fields_are_left_alone_and_missing_ones_are_named(tmp_path: Path) -> None:
    made = run_result(setting_result(), failed_setting("other", "train: no"))
    content = json.loads(json_text(to_json(made)))
    content["settings"][0]["exit"]["more"] = [1]
    assert from_json(RunResult, content, "x.json") == made
    path = tmp_path / "results.json"
    for change, words in (
        (lambda c: c.pop("profile"), "profile: Field required"),
        (lambda c: c["settings"][0]["exit"].pop("mean_steps"), "settings.0.ok.exit.mean_steps: Field required"),
        (lambda c: c["settings"][0]["exit"].update(mean_steps="fast"), "settings.0.ok.exit.mean_steps"),
        (lambda c: c["settings"][1].update(status="lost"), "settings.1"),
        (lambda c: c["settings"][1].pop("error"), "settings.1.failed.error: Field required"),
        (lambda c: c.update(schema=1), "schema = 1"),
        (lambda c: c.pop("schema"), "schema = None"),
    ):
        wrong = json.loads(json.dumps(content))
        change(wrong)  # type: ignore[no-untyped-call]
        path.write_text(json.dumps(wrong))
        with pytest.raises(InputError) as told:
            read(RunResult, path)
        assert str(path) in str(told.value) and words in str(told.value), told.value


@pytest.mark.parametrize("text", ["", "{", "[1, 2", "\xff"])
def test_what_is_no_json_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=r"results\.json cannot be read as JSON"):
        read(RunResult, path)
    with pytest.raises(InputError, match="cannot be read"):
        read(RunResult, tmp_path / "none.json")
    path.write_text("[1, 2]")
    with pytest.raises(InputError, match="schema = None"):
        read(RunResult, path)


def test_flat_names() -> None:
    found = flat(setting_result(paper=PUBLISHED))
    assert list(found)[:3] == ["name", "status", "error"]
    assert found["baselines_iso_accuracy_time_steps"] == 20 and found["oracles_aet_mean_steps_if_nested"] == 3.5
    assert found["accuracy_at_t"] == [0.1, 0.5, 0.9557] and found["paper_rows_0_label"] == "S"
    assert found["exit_rule_threshold"] == "inf" and found["exit_rule_smoothing_alpha"] == 3.0
    shorter = replace(setting_result(), energy=None)
    assert flat(shorter)["energy"] is None
