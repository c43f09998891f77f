"""Which traces a path stands for, and what the commands make of a folder that holds several."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Command, command_on_traces, strictly
from result_cases import failed_setting, run_result, setting_result
from study_cases import made

from dynconf_core.errors import InputError
from dynconf_core.results.files import write_results
from dynconf_core.results.trace_pairs import Pair, asked_folder, pairs
from dynconf_core.store.artefacts import Store
from dynconf_core.store.keys import stage_key
from dynconf_core.traces.schema import Traces
from dynconf_tasks import analyse as analyses

CALIBRATION, TEST = made(70, 1, 6), made(60, 2, 6)


@pytest.fixture
def dynconf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return command_on_traces(tmp_path / "here", monkeypatch, capsys)


@pytest.fixture
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take most of the time of a small analysis, and have tests of their own."""
    monkeypatch.setattr(analyses, "analysis_figures", lambda *ignored: {})


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A folder with traces in every form that is found."""
    folder = tmp_path / "results"
    CALIBRATION.save(folder / "one-calibration.npz")
    TEST.save(folder / "one-test.npz")
    CALIBRATION.save(folder / "two" / "calibration.npz")
    CALIBRATION.save(folder / "two" / "calibration")  # the same once more
    TEST.save(folder / "two" / "test.npz")
    CALIBRATION.save(folder / "three" / "calibration")  # folders of .npy
    TEST.save(folder / "three" / "test")
    TEST.save(folder / "four.npz")
    np.savez(folder / "other.npz", weights=np.zeros(3))
    TEST.save(folder / ".hidden" / "test.npz")
    return folder


def test_what_a_folder_of_results_holds(results: Path) -> None:
    found = {pair.name: pair for pair in pairs(results, None)}
    assert list(found) == ["four", "one", "three", "two"]
    assert found["one"] == Pair("one", results / "one-calibration.npz", results / "one-test.npz")
    assert found["two"] == Pair("two", results / "two" / "calibration.npz", results / "two" / "test.npz")
    assert found["three"] == Pair("three", results / "three" / "calibration", results / "three" / "test")
    assert found["four"] == Pair("four", results / "four.npz", None)
    assert asked_folder(results, "out", found["two"]) == Path("out") / "two"
    TEST.save(results / "one_calibration.npz")
    with pytest.raises(InputError, match="'one': rename"):
        pairs(results, None)


def test_names_of_traces_that_lie_alone(tmp_path: Path) -> None:
    for name, expected in (("net/calibration.npz", "net"), ("net/x-calibration.npz", "x"), ("y.npz", "y"), ("n/test", "n")):
        path = TEST.save(tmp_path / name)
        assert [pair.name for pair in pairs(path, None)] == [expected]
        assert asked_folder(path, "out", Pair(expected, path, None)) == Path("out")


@pytest.mark.usefixtures("without_pictures")
def test_all_traces_of_a_folder_are_analysed(dynconf: Command, results: Path) -> None:
    answer = dynconf("analyse", results, "--no-track", "--json", "--out", results / "analysis")
    assert answer.code == 0
    found = strictly(answer.out)["analyses"]
    assert list(found) == ["four", "one", "three", "two"]
    for name, record in found.items():
        assert record == strictly((results / "analysis" / name / "analysis.json").read_text())
    assert found["one"] == found["two"] == found["three"] and found["four"]["split"] is not None
    # Neither analyses nor their files are taken for traces.
    assert [pair.name for pair in pairs(results, None)] == list(found)


@pytest.mark.usefixtures("without_pictures")
def test_one_of_several_that_is_damaged_is_found_before_the_first_begins(dynconf: Command, results: Path) -> None:
    whole = (results / "two" / "test.npz").read_bytes()
    (results / "two" / "test.npz").write_bytes(whole[: len(whole) // 2])
    answer = dynconf("analyse", results, "--no-track")
    assert (answer.code, answer.out) == (2, "") and "two/test.npz" in "".join(answer.error.split())
    assert not (results / "analysis").exists()


@pytest.mark.usefixtures("without_pictures")
def test_one_of_several_that_fails_leaves_the_others(dynconf: Command, results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(analysis: Any, out: Path, pictures: Any) -> list[Path]:
        if out.name == "one":
            raise OSError("the disk [is] full")
        out.mkdir(parents=True)
        return []

    monkeypatch.setattr(analyses, "write_analysis", write)
    answer = dynconf("analyse", results, "--no-track", "--json", "--out", "out")
    assert answer.code == 1 and list(strictly(answer.out)["analyses"]) == ["four", "three", "two"]
    assert "failed: one: the disk [is] full" in " ".join(answer.error.split()) and "Traceback" not in answer.error


def stored(home: Path, stage: str, traces: Traces) -> str:
    """The key of the traces, put into the home's store."""
    key = stage_key(stage, {}, {}, "0" * 64)
    with Store(home / "artefacts").create(key, {}) as folder:
        for path in traces.save(folder / "traces").iterdir():
            path.rename(folder / path.name)
        (folder / "traces").rmdir()
    return key.key


def document(home: Path, **artefacts: dict[str, str]) -> Path:
    """The folder of a run with these settings."""
    (home / "artefacts").mkdir(parents=True, exist_ok=True)
    rows = [setting_result(name, artefacts=keys) for name, keys in artefacts.items()]
    result = run_result(*rows, failed_setting("cifar10-vgg16-qcfs", "train: no"), run="20250101-smoke")
    return write_results(home, result).parent


def test_the_traces_of_a_run_are_found_in_its_home(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    home = tmp_path / "home"
    keys = {name: stored(home, name, given) for name, given in (("collect_calibration", CALIBRATION), ("collect_test", TEST))}
    folder = document(home, one=keys, gone={**keys, "collect_test": "0" * 64})
    for given in (folder, home / "results" / "latest", home):
        (pair,) = pairs(given, None)
        assert pair.name == "one" and pair.test is not None
        assert np.array_equal(Traces.load(pair.calibration).labels, CALIBRATION.labels)
        assert np.array_equal(Traces.load(pair.test).labels, TEST.labels)
    assert "gone: its traces are not in" in caplog.text
    elsewhere = tmp_path / "elsewhere" / "20250101-smoke"
    elsewhere.parent.mkdir()
    folder.rename(elsewhere)
    assert [pair.name for pair in pairs(elsewhere, None, str(home))] == ["one"]
    CALIBRATION.save(elsewhere / "one-calibration.npz")
    TEST.save(elsewhere / "one-test.npz")
    assert pairs(elsewhere, None, str(home)) == [Pair("one", elsewhere / "one-calibration.npz", elsewhere / "one-test.npz")]


def test_a_run_whose_traces_are_gone_is_refused(dynconf: Command, tmp_path: Path) -> None:
    folder = document(tmp_path / "home", one={})
    answer = dynconf("analyse", folder)
    assert (answer.code, answer.out) == (2, "") and "holds no traces" in answer.error
    (folder / "results.json").write_text("[1, 2")
    answer = dynconf("analyse", folder)
    assert (answer.code, answer.out) == (2, "") and "results.json cannot be read as JSON" in " ".join(answer.error.split())


def test_a_run_of_another_schema_or_with_a_field_missing_is_named(dynconf: Command, tmp_path: Path) -> None:
    folder = document(tmp_path / "home", one={})
    content = json.loads((folder / "results.json").read_text())
    (folder / "results.json").write_text(json.dumps({**content, "schema": 1}))
    answer = dynconf("analyse", folder)
    assert (answer.code, answer.out) == (2, "") and "results.json has schema = 1" in " ".join(answer.error.split())
    del content["settings"][0]["exit"]["mean_steps"]
    (folder / "results.json").write_text(json.dumps(content))
    answer = dynconf("analyse", folder)
    assert (answer.code, answer.out) == (2, "") and "settings.0.ok.exit.mean_steps: Field required" in " ".join(
        answer.error.split()
    )
