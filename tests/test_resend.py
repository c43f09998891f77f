"""Logging results to MLflow later: what is sent where artefacts, settings or results are not what they were."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from commands import Command, command
from result_cases import failed_setting, run_result, setting_result

from dynconf_core.errors import InputError
from dynconf_core.results.files import write_results
from dynconf_core.results.types import RunResult
from dynconf_tasks.resend import resend
from dynconf_tasks.tracking.database import tracking_uri

NAME, GONE = "cifar10-vgg16-qcfs", "a-setting-of-yesterday"


@pytest.fixture(autouse=True)
def without_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "DYNCONF_HOME", "PREFECT_HOME"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def dynconf(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    return command(monkeypatch, capsys, "resend")


def written(home: Path, started: str, *rows: Any, **changes: Any) -> RunResult:
    result = run_result(*rows, run=f"{started}-smoke-seed0", tracking_error="MLflow did not answer", **changes)
    write_results(home, result)
    return result


def runs(home: Path) -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=tracking_uri(home))
    experiment = client.get_experiment_by_name("dynconf-smoke")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id]))


def errors(home: Path) -> list[str | None]:
    return [json.loads(path.read_text())["tracking_error"] for path in sorted((home / "results").glob("2*/results.json"))]


def test_what_is_sent_of_results_whose_artefacts_and_settings_are_gone(tmp_path: Path, dynconf: Command) -> None:
    rows = (setting_result(NAME), setting_result(GONE), failed_setting("cifar10-vgg16-qffs", "convert: no"))
    result = written(tmp_path, "20260101-000000", *rows, overrides={"time_steps": 8})
    answer = dynconf("--home", tmp_path)
    assert answer.code == 0, answer
    assert f"{result.run}: sent {NAME}, {GONE}, cifar10-vgg16-qffs" in answer.out
    assert f"figures only, without files, of {NAME}, {GONE}:" in answer.out
    found = {run.data.tags.get("setting", ""): run for run in runs(tmp_path)}
    assert [found[row.name].info.status for row in rows] == ["FINISHED", "FINISHED", "FAILED"]
    (parent,) = [run for run in found.values() if run.data.tags["kind"] == "reproduction"]
    assert parent.info.status == "FAILED" and "time_steps=8" in parent.info.run_name
    assert {run.info.run_name for run in found.values()} == {
        parent.info.run_name,
        *(f"{row.name}, time_steps=8" for row in rows),
    }
    assert found[NAME].data.metrics["headline/mean_steps"] == rows[0].exit.mean_steps
    assert found[NAME].data.params["training.epochs"] == "8", "the plan's"
    params = found[GONE].data.params
    assert (params["setting"], params["time_steps"], params["network.architecture"]) == (GONE, "32", "vgg16"), "the row's"
    assert errors(tmp_path) == [None]
    again = dynconf("--home", tmp_path)
    assert again.code == 0 and "Nothing to send" in again.out
    assert {run.info.run_id for run in runs(tmp_path)} == {run.info.run_id for run in found.values()}


def test_newer_results_take_the_place_of_older_ones(tmp_path: Path) -> None:
    """Also where an older run is asked for by its name; what only that has is sent."""
    old = written(tmp_path, "20260101-000000", setting_result(NAME), setting_result(GONE))
    changed = setting_result(NAME, snn_accuracy=0.5, artefacts={"evaluate": "1" * 64})
    new = written(tmp_path, "20260101-000000-2", changed)
    assert [(one.run, one.children) for one in resend(tmp_path, [old.run])] == [(old.run, (GONE,))]
    assert [(one.run, one.children) for one in resend(tmp_path)] == [(new.run, (NAME,))]
    assert list(resend(tmp_path)) == []
    found = {run.info.run_name: run for run in runs(tmp_path)}
    assert set(found) == {"smoke, seed 0", NAME, GONE} and found[NAME].data.metrics["headline/snn_accuracy_percent"] == 50
    assert errors(tmp_path) == [None, "MLflow did not answer"], "the newer one's; that of the older is not in MLflow"


def test_seeds_and_overrides_are_reproductions_of_their_own(tmp_path: Path) -> None:
    written(tmp_path, "20260101-000000", setting_result(NAME))
    written(tmp_path, "20260101-000001", setting_result(NAME), seed=1)
    written(tmp_path, "20260101-000002", setting_result(NAME), overrides={"alpha": 2.0})
    assert [one.children for one in resend(tmp_path)] == [(NAME,)] * 3
    assert len(runs(tmp_path)) == 6 and errors(tmp_path) == [None] * 3


def test_an_interrupted_setting_is_not_sent(tmp_path: Path) -> None:
    from dynconf_tasks.interruption import Interrupted

    interrupted = failed_setting("cifar10-vgg16-qffs", f"train: {Interrupted()}")
    written(tmp_path, "20260101-000000", setting_result(NAME), interrupted)
    assert [one.children for one in resend(tmp_path)] == [(NAME,)]
    assert {run.info.run_name: run.info.status for run in runs(tmp_path)} == {"smoke, seed 0": "KILLED", NAME: "FINISHED"}
    assert list(resend(tmp_path)) == []


def test_results_that_cannot_be_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """They do not keep others from being sent, unless they are asked for."""
    result = written(tmp_path, "20260101-000000", setting_result(NAME))
    broken = tmp_path / "results" / "20260101-000001-smoke-seed0" / "results.json"
    broken.parent.mkdir()
    broken.write_text("{")
    with pytest.raises(InputError, match="20260101-000001"):
        list(resend(tmp_path, [broken.parent.name]))
    assert [one.run for one in resend(tmp_path, [str(broken.parent.parent / "latest")])] == [result.run]
    (warning, *_) = [record.getMessage() for record in caplog.records]
    assert str(broken) in warning


def test_the_command_names_what_it_cannot_read(tmp_path: Path, dynconf: Command) -> None:
    broken = tmp_path / "results" / "20260101-000001-smoke-seed0" / "results.json"
    broken.parent.mkdir(parents=True)
    broken.write_text("[]")
    answer = dynconf("--home", tmp_path)
    assert (answer.code, answer.out) == (1, "Nothing to send: MLflow has all results that can be read.\n")
    assert str(broken) in answer.error.replace("\n", "")


def test_a_name_that_the_home_does_not_have(tmp_path: Path, dynconf: Command) -> None:
    result = written(tmp_path, "20260101-000000", replace(setting_result(NAME)))
    answer = dynconf("yesterday", "--home", tmp_path)
    assert answer.code == 2 and "yesterday" in answer.error and result.run in answer.error
    assert not (tmp_path / "mlflow.db").exists()


def test_nothing_to_send_and_nothing_made(tmp_path: Path, dynconf: Command) -> None:
    answer = dynconf("--home", tmp_path / "home")
    assert answer.code == 0 and "Nothing to send" in answer.out
    assert not (tmp_path / "home").exists()


def test_a_server_that_refuses(tmp_path: Path, dynconf: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, "20260101-000000", setting_result(NAME))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    answer = dynconf("--home", tmp_path)
    assert answer.code == 1 and "127.0.0.1:9" in answer.error and "Traceback" not in answer.error
    assert errors(tmp_path) == ["MLflow did not answer"]
