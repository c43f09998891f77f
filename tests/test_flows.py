"""Two settings through the whole flow: stages, cache, results, MLflow runs; a failure midway; an interruption."""

import errno
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from commands import command

from dynconf_core.errors import InputError
from dynconf_core.experiment.request import Request, checked
from dynconf_core.results.records import to_json
from dynconf_core.store.claim import claim
from dynconf_flows.requested import study_name
from dynconf_tasks.study.shared import participation

SETTINGS = ["cifar10-vgg16-qffs", "cifar10-resnet18-qcfs"]
SHORT = {"epochs": 1, "time_steps": 5, "width": 0.04}


@pytest.fixture(scope="module")
def home(empty_home: Path, prefect_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home for the module's runs."""
    from dynconf_flows.command.server import configure
    from dynconf_flows.prefect_runs import deliver_logs_and_events

    folder = Path(shutil.copytree(empty_home, tmp_path_factory.mktemp("flows") / "home"))
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    os.environ["PREFECT_API_URL"] = prefect_server
    configure(folder)
    from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None, PREFECT_API_URL: prefect_server}):
        yield folder
        deliver_logs_and_events()


def run(
    home: Path, overrides: dict[str, Any] | None = None, settings: list[str] = SETTINGS, workers: int = 0
) -> dict[str, Any]:
    """Run a reproduction, in this process unless told otherwise: a worker would first import everything."""
    from dynconf_flows.reproduce import reproduce

    asked = {**SHORT, **(overrides or {})}
    return to_json(reproduce(settings=settings, overrides=asked, home=str(home), workers=workers))


@pytest.fixture(scope="module")
def first(home: Path) -> dict[str, Any]:
    return run(home, workers=2)


def outcomes(document: dict[str, Any]) -> list[dict[str, str]]:
    return [row["stages"] for row in document["settings"]]


def figures(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name not in ("stages", "resources")} for row in document["settings"]]


def mlflow_runs(home: Path) -> list[Any]:
    from mlflow import MlflowClient

    from dynconf_tasks.tracking.database import tracking_uri

    client = MlflowClient(tracking_uri=tracking_uri(home))
    experiment = client.get_experiment_by_name("dynconf-smoke")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id]))


def test_every_stage_runs_and_every_figure_is_there(first: dict[str, Any], home: Path) -> None:
    assert [set(stages.values()) for stages in outcomes(first)] == [{"ran"}, {"ran"}]
    for row, name in zip(first["settings"], SETTINGS, strict=True):
        assert row["name"] == name and row["status"] == "ok" and row["error"] is None
        assert row["data"] == {"name": "digits", "stands_in_for": "CIFAR-10", "train": 1000, "calibration": 300, "test": 497}
        assert row["network"]["width"] == SHORT["width"] and row["network"]["parameters"] > 10_000
        assert len(row["accuracy_at_t"]) == row["time_steps"] == 5
        assert row["accuracy_at_t"][-1] == row["snn_accuracy"]
        assert sum(row["exit"]["histogram"]) == 497
        steps = sum((step + 1) * count for step, count in enumerate(row["exit"]["histogram"])) / 497
        assert row["exit"]["mean_steps"] == pytest.approx(steps)
        assert row["exit"]["latency_saving"] == pytest.approx(1 - steps / 5)
        assert row["oracles"]["first_correct"]["accuracy"] >= row["snn_accuracy"]
        assert 0 < row["spikes_per_neuron"]["exit"] <= row["spikes_per_neuron"]["full"]
        assert 0 < row["synaptic_operations_per_inference"]["exit"] <= row["synaptic_operations_per_inference"]["full"]
        assert row["multiply_accumulates"]["once"] > 0 and 0 < row["energy"]["exit"] <= row["energy"]["full"]
        assert abs(row["reference_accuracy"] - row["ann_accuracy"]) < 0.05 and row["fixed_point"] is True
        assert set(row["artefacts"]) == set(row["stages"]) and 0 < row["conversion"]["agreement"] <= 1
    cut, whole = (row["at_paper_time_steps"] for row in first["settings"])
    assert cut["time_steps"] == 4 and cut["snn_accuracy"] == first["settings"][0]["accuracy_at_t"][3] and whole is None
    assert all(1 <= entry["test"]["mean_steps"] <= 4 for entry in cut["comparison"])
    assert first["settings"][0]["bits"] == 2 and first["settings"][1]["levels"] == 4
    assert "scheme" not in first["settings"][0] and first["settings"][1]["scheme"] == {"initial_potential": 0.5}


def test_results_lie_in_the_home(first: dict[str, Any], home: Path) -> None:
    written = json.loads((home / "results" / first["run"] / "results.json").read_text())
    assert written["schema"] == 2
    assert written["settings"] == first["settings"]
    lines = (home / "results" / first["run"] / "results.csv").read_text().splitlines()
    assert len(lines) == 1 + len(SETTINGS) and lines[1].startswith(SETTINGS[0])


def test_a_request_is_checked_once(first: dict[str, Any], home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the flow that it is given to, or by the command before it starts a server; not once more by every setting."""
    from dynconf_core.experiment import request as module
    from dynconf_flows.reproduce import checked_reproduction
    from dynconf_flows.sweep import sweep

    seen: list[int] = []
    real = module.check_checkpoints
    monkeypatch.setattr(module, "check_checkpoints", lambda plans, files: (seen.append(len(plans)), real(plans, files))[1])
    run(home)
    assert seen == [2]
    document = checked_reproduction(checked(Request("smoke", tuple(SETTINGS), SHORT, home=str(home))), "as typed")
    assert seen == [2, 2] and (document.command, document.seed) == ("as typed", 0)
    sweep(settings=SETTINGS[:1], grid=["time_steps=5"], overrides={"epochs": 1, "width": 0.04}, home=str(home))
    assert seen == [2, 2, 1]


def test_a_second_run_takes_everything_from_the_store_and_adds_no_runs(first: dict[str, Any], home: Path) -> None:
    before = {run.info.run_id for run in mlflow_runs(home)}
    again = run(home)
    assert [set(stages.values()) for stages in outcomes(again)] == [{"cached"}, {"cached"}]
    assert figures(again) == figures(first)
    assert {run.info.run_id for run in mlflow_runs(home)} == before


def test_nothing_starts_where_nothing_is_left_to_do(
    first: dict[str, Any], home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command prints and writes what the flow does; anything that is missing takes the usual way."""
    import dynconf_flows.command.session as session

    def started(home: Path) -> None:
        raise InputError("a server is started")

    monkeypatch.setattr(session, "TemporaryServer", started)
    dynconf = command(monkeypatch, capsys, "reproduce", "--home", str(home), *asked_on_the_command_line())
    usual, before = run(home), {run.info.run_id for run in mlflow_runs(home)}
    assert "a server is started" in dynconf().error  # the user's own server shows every reproduction
    monkeypatch.delenv("PREFECT_API_URL")

    answer = dynconf("--json")
    assert answer.code == 0 and answer.error == ""
    quick = json.loads(answer.out)
    for name in ("run", "command", "environment"):
        del quick[name], usual[name]
    assert quick == json.loads(json.dumps(usual))
    latest = home / "results" / "latest"
    assert "-smoke-seed0-epochs=1-time_steps=5" in latest.resolve().name
    assert json.loads((latest / "results.json").read_text())["settings"] == quick["settings"]
    assert {run.info.run_id for run in mlflow_runs(home)} == before

    assert "a server is started" in dynconf("--join").error
    assert "a server is started" in dynconf("--set", "max_drop=0.02").error
    asked = checked(Request("smoke", tuple(SETTINGS), SHORT, home=str(home)))
    with claim(home, "participant-0", participation(study_name(asked))):
        assert "a server is started" in dynconf().error
    with closing(sqlite3.connect(home / "mlflow.db")) as database, database:
        evaluation = first["settings"][0]["artefacts"]["evaluate"]
        of_run = "UPDATE runs SET lifecycle_stage = ? WHERE run_uuid IN (SELECT run_uuid FROM tags WHERE instr(value, ?))"
        assert database.execute(of_run, ("deleted", evaluation)).rowcount >= 1  # that of a sweep's point, too
        database.commit()
        assert "a server is started" in dynconf().error
        database.execute(of_run, ("active", evaluation))
    damaged = next((home / "artefacts" / "search").glob(f"*/{first['settings'][1]['artefacts']['search']}")) / "rule.json"
    content = damaged.read_bytes()
    damaged.write_bytes(content.replace(b"0", b"1", 1))
    try:
        assert "a server is started" in dynconf().error
    finally:
        damaged.write_bytes(content)
    assert dynconf().code == 0


def asked_on_the_command_line() -> list[str]:
    named = [word for name in SETTINGS for word in ("--setting", name)]
    return [*named, *(word for name, value in SHORT.items() for word in ("--set", f"{name}={value}"))]


def test_mlflow_has_a_parent_and_a_child_a_setting(first: dict[str, Any], home: Path) -> None:
    runs = mlflow_runs(home)
    parents = [run for run in runs if run.data.tags["kind"] == "reproduction"]
    below = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parents[0].info.run_id]
    children = {run.data.tags["setting"]: run for run in below}
    assert [run.info.status for run in parents] == ["FINISHED"]
    assert set(children) == set(SETTINGS)
    assert {run.info.run_name for run in below} == {f"{name}, time_steps=5, width=0.04, epochs=1" for name in SETTINGS}
    for row in first["settings"]:
        child = children[row["name"]]
        assert child.data.tags["mlflow.parentRunId"] == parents[0].info.run_id
        assert child.data.metrics["headline/mean_steps"] == round(row["exit"]["mean_steps"], 4)
        assert child.data.params["time_steps"] == "5"
    from mlflow import MlflowClient

    from dynconf_tasks.tracking.database import tracking_uri

    client = MlflowClient(tracking_uri=tracking_uri(home))
    row, child = first["settings"][0], children[SETTINGS[0]]
    curve = client.get_metric_history(child.info.run_id, "curve/accuracy_percent")
    assert [point.step for point in curve] == list(range(1, 6))
    assert [point.value for point in curve] == [round(100 * accuracy, 4) for accuracy in row["accuracy_at_t"]]
    assert "accuracy_against_latency.png" in {artefact.path for artefact in client.list_artifacts(child.info.run_id)}
    tables = {artefact.path for artefact in client.list_artifacts(child.info.run_id, "tables")}
    assert {"tables/comparison.json", "tables/conversion.json"} <= tables
    assert child.data.tags["dynconf.flow_run"]


def test_a_run_leaves_its_report_with_all_curves_and_images(first: dict[str, Any], home: Path, tmp_path: Path) -> None:
    from report_cases import content, tables

    from dynconf_core.report.writing import write_report
    from dynconf_core.results.export import export

    run, out = home / "results" / first["run"], tmp_path / "published"
    page = (run / "report.html").read_text()
    assert "cannot be shown" not in page
    assert [figure["heading"] for figure in content(page)["figures"] if figure["kind"] == "images"] == SETTINGS
    for found in tables(page, "images"):
        assert len(found["pictures"]["url"]) == 8 and found["pictures"]["url"][0].startswith("data:image/png;base64,")
    assert len(tables(page, "layers_agreement")) == len(tables(page, "robustness_lost")) == len(SETTINGS)
    export(run, out, traces=False)  # what was exported is enough for the same report
    elsewhere = write_report(out, str(tmp_path / "nowhere")).read_text()
    assert content(elsewhere) == content(page)


def test_an_exported_run_is_analysed_without_its_home(first: dict[str, Any], home: Path, tmp_path: Path) -> None:
    from dynconf_core.errors import InputError
    from dynconf_core.exit.rule import Rule
    from dynconf_core.results.export import export
    from dynconf_core.results.trace_pairs import pairs
    from dynconf_core.traces.schema import Traces

    run, out = home / "results" / first["run"], tmp_path / "published"
    written = export(run, out)
    names = {str(path.relative_to(out)) for path in written}
    assert {"README.md", "results.json", "results.csv", f"{SETTINGS[0]}-training.json"} <= names
    assert "agrees" in (out / f"{SETTINGS[1]}-conversion.txt").read_text()
    assert f"figures/{SETTINGS[1]}-accuracy_against_latency.png" in names
    assert json.loads((out / "results.json").read_text())["settings"] == first["settings"]
    found = pairs(out, None, str(tmp_path / "nowhere"))
    assert sorted(pair.name for pair in found) == sorted(SETTINGS)
    for pair in found:
        row = next(row for row in first["settings"] if row["name"] == pair.name)
        assert pair.test is not None
        test, rule = Traces.load(pair.test), Rule.load(out / f"{pair.name}-rule.json")
        assert test.correct().mean(axis=0).tolist() == row["accuracy_at_t"]
        assert rule.exit_steps(test).mean() == row["exit"]["mean_steps"]
        assert f"| {pair.name} |" in (out / "README.md").read_text()
    page = (out / "README.md").read_text()
    assert "Profile smoke" in page and "digits instead of CIFAR-10" in page and "## With T as in the paper" in page
    with pytest.raises(InputError, match="is not empty"):
        export(run, out)
    with pytest.raises(InputError, match="stage train is not in"):
        export(run, tmp_path / "more", str(tmp_path / "nowhere"))
    assert not (tmp_path / "more").exists()


def test_traces_say_whether_the_calibration_images_were_trained_on(first: dict[str, Any], home: Path) -> None:
    from dynconf_core.traces.schema import Traces

    folders = [path.parent for path in (home / "artefacts").glob("collect_*/*/*/logits.npy")]
    assert len(folders) >= 4
    assert {Traces.load(folder).trained_on_calibration for folder in folders} == {False}


def test_memory_bounds_the_batch_and_changes_nothing(first: dict[str, Any], home: Path) -> None:
    from dynconf_core.experiment.request import Request
    from dynconf_core.experiment.stages import job, stage
    from dynconf_core.traces.schema import Traces
    from dynconf_flows.command.explain import followed

    request = Request(settings=(SETTINGS[1],), overrides=SHORT, home=str(home))
    bounded = Request(settings=(SETTINGS[1],), overrides=SHORT, home=str(home), memory="1500MiB")
    assert len(followed(bounded).finished) == 6
    done = followed(request).finished
    (plan,) = request.plans()
    config = stage("collect_calibration").config(job(plan, bounded.context()))
    assert not {"memory", "batch_size", "device"} & set(config)
    assert Traces.load(request.context().folder(done["collect_test"])).meta["exact"] is True


def test_explain_names_the_field_that_differs(first: dict[str, Any], home: Path) -> None:
    from dynconf_core.experiment.request import Request
    from dynconf_flows.command.explain import Explained, explained

    hits = explained(Request(settings=(SETTINGS[0],), overrides=SHORT, home=str(home)))
    assert {one.outcome for one in hits} == {"hit"}
    lines = explained(Request(settings=(SETTINGS[0],), overrides={**SHORT, "epochs": 2}, home=str(home)))
    assert lines[0].outcome == "miss" and "config.recipe.epochs (1 there, 2 now)" in lines[0].reason
    assert lines[1] == Explained("convert", "miss", "an earlier stage must run first")


def test_a_damaged_artefact_is_made_again(first: dict[str, Any], home: Path) -> None:
    (rule,) = [
        path for path in (home / "artefacts" / "search").glob("*/*/rule.json") if '"max_drop": 0.001' in path.read_text()
    ][:1]
    rule.write_text(rule.read_text().replace("max_softmax", "max_softmix"))
    again = run(home)
    assert sorted(stages["search"] for stages in outcomes(again)) == ["cached", "ran"]
    assert figures(again) == figures(first)


def test_without_a_grid_the_snn_is_another_one(first: dict[str, Any], home: Path) -> None:
    """The same ANN, other weights; device, batch and memory are then in the key."""
    row = run(home, {"fixed_point": False}, SETTINGS[1:])["settings"][0]
    assert (row["stages"]["train"], row["stages"]["convert"], row["stages"]["collect_test"]) == ("cached", "ran", "ran")
    assert row["fixed_point"] is False and row["ann_accuracy"] == first["settings"][1]["ann_accuracy"]
    assert abs(row["reference_accuracy"] - row["ann_accuracy"]) < 0.005, "nothing is rounded but by float32"
    from dynconf_core.experiment.request import Request
    from dynconf_flows.command.explain import explained

    overrides = {**SHORT, "fixed_point": False}
    lines = explained(Request(settings=(SETTINGS[1],), overrides=overrides, home=str(home), memory="2GiB"))
    by_stage = {one.stage: one for one in lines}
    assert by_stage["convert"].outcome == "hit"
    assert "config.memory (None there, 1073741824 now)" in by_stage["collect_test"].reason


def test_a_field_of_one_method_is_no_hindrance_to_the_other(first: dict[str, Any], home: Path) -> None:
    """levels are of the QCFS settings alone; in a reproduction and in a sweep the QFFS ones run as they would without."""
    from dynconf_flows.sweep import sweep

    both = ["cifar10-vgg16-qcfs", "cifar10-vgg16-qffs"]
    rows = run(home, {"levels": 2}, both)["settings"]
    assert [row["status"] for row in rows] == ["ok", "ok"]
    assert [row.get("levels") for row in rows] == [2, None]
    result = sweep(settings=both, grid=["levels=2"], overrides=dict(SHORT), home=str(home), workers=0)
    assert result.failed == 0 and len(result.points) == 2


def test_a_setting_that_raises_is_recorded_and_a_rerun_does_what_is_missing(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That others finish nevertheless: see ``test_processes``."""
    from dynconf_flows.reproduce import SomeFailed

    asked = {"rule": "measures_from_outside:FailsOnTest"}
    monkeypatch.setenv("FAULT_OF_THE_TEST", "1")
    with pytest.raises(SomeFailed) as failure:
        run(home, asked, SETTINGS[1:])
    (row,) = to_json(failure.value.result)["settings"]
    assert (row["status"], row["error"]) == ("failed", "evaluate: a fault made by the test")
    assert row["stages"]["search"] == "ran" and row["stages"]["evaluate"] == "failed"
    assert "search" in row["artefacts"] and "evaluate" not in row["artefacts"]
    assert json.loads((home / "results" / "latest" / "results.json").read_text())["settings"] == [row]
    failed = [run for run in mlflow_runs(home) if run.data.tags.get("error")]
    assert len(failed) == 1 and failed[0].info.status == "FAILED"

    monkeypatch.delenv("FAULT_OF_THE_TEST")
    again = run(home, asked, SETTINGS[1:])
    assert [row["status"] for row in again["settings"]] == ["ok"]
    assert outcomes(again)[0]["search"] == "cached" and outcomes(again)[0]["evaluate"] == "ran"
    assert not [run for run in mlflow_runs(home) if run.data.tags.get("error")]


def test_a_checkpoint_takes_the_place_of_training(first: dict[str, Any], home: Path) -> None:
    from dynconf_flows.reproduce import reproduce

    name, key = SETTINGS[0], first["settings"][0]["artefacts"]["train"]
    (checkpoint,) = (home / "artefacts" / "train").glob(f"*/{key}/checkpoint.pt")
    result = reproduce(
        settings=[name], overrides={**SHORT, "time_steps": 4}, home=str(home), checkpoints=[f"{name}={checkpoint}"], workers=0
    )
    assert outcomes(to_json(result))[0]["train"] == "given"


def test_a_grid_shares_the_stages_that_its_points_have_in_common(first: dict[str, Any], home: Path) -> None:
    """A field of the search reruns search and evaluation alone."""
    from dynconf_flows.sweep import sweep

    document = to_json(
        sweep(settings=SETTINGS[:1], grid=["max_drop=0.001,0.05"], overrides=dict(SHORT), home=str(home), workers=0)
    )
    assert document["run"] in (home / "sweeps" / document["run"] / "report.html").read_text()
    assert [point["values"] for point in document["points"]] == [{"max_drop": 0.001}, {"max_drop": 0.05}]
    assert set(document["points"][0]["stages"].values()) == {"cached"}
    assert document["points"][1]["stages"] == {
        "train": "cached",
        "convert": "cached",
        "collect_calibration": "cached",
        "collect_test": "cached",
        "search": "ran",
        "evaluate": "ran",
    }
    assert document["failed"] == 0 and any(point["on_front"] for point in document["points"])


def test_a_study_goes_on_where_it_ended(first: dict[str, Any], home: Path) -> None:
    from dynconf_flows.sweep import sweep

    asked: dict[str, Any] = {"settings": SETTINGS[:1], "study": ["alpha=1..100"], "workers": 0}
    asked["overrides"] = {**SHORT, "smoothing": "sum"}
    two = to_json(sweep(**asked, trials=2, home=str(home)))
    three = to_json(sweep(**asked, trials=3, home=str(home)))
    assert three["points"][0]["values"] == two["points"][0]["values"]
    assert [point["stages"]["search"] for point in three["points"]] == ["cached", "cached", "ran"]
    assert len({point["values"]["alpha"] for point in three["points"]}) == 3
    (study,) = [run for run in mlflow_runs(home) if run.info.run_name == f"sweep {two['run']}"]
    points = [run for run in mlflow_runs(home) if run.data.tags.get("mlflow.parentRunId") == study.info.run_id]
    assert study.info.status == "FINISHED" and len(points) == 3


def test_an_unreachable_tracking_server_does_not_stop_the_work(
    first: dict[str, Any], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    document = run(home)
    assert "127.0.0.1:9" in document["tracking_error"]
    assert [row["status"] for row in document["settings"]] == ["ok", "ok"]


@pytest.mark.parametrize("fault", ["locked", "full", "read-only"])
def test_results_do_not_depend_on_tracking(
    first: dict[str, Any], home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """A tracking server that refuses is tested above."""
    from dynconf_core.failing import failing
    from dynconf_tasks import databases

    def written(document: dict[str, Any]) -> str:
        text = (home / "results" / document["run"] / "results.json").read_text()
        assert json.loads(text)["tracking_error"] == document["tracking_error"]
        return text.replace(json.dumps(document["tracking_error"]), "null").replace(document["run"], "run")

    def fail(point: str) -> None:
        if point == "track.created":
            if fault == "full":
                raise OSError(errno.ENOSPC, "No space left on device")
            raise sqlite3.OperationalError("attempt to write a readonly database")

    whole = written(run(home))
    if fault == "locked":
        monkeypatch.setattr(databases, "BUSY", 0.2)
        with closing(sqlite3.connect(home / "mlflow.db", isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            document = run(home)
    else:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
        with failing(fail):
            document = run(home)
    reason = {"locked": "locked", "full": "No space left", "read-only": "readonly"}[fault]
    assert reason in document["tracking_error"] and "dynconf resend --home" in document["tracking_error"]
    assert "\n" not in document["tracking_error"]
    assert written(document) == whole


def test_what_could_not_be_logged_is_sent_later(first: dict[str, Any], home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dynconf_core.experiment.request import home_folder
    from dynconf_flows.sweep import sweep
    from dynconf_tasks.resend import resend

    def known() -> dict[str, list[Any]]:
        """The runs by the name of their parent."""
        found = mlflow_runs(home)
        names = {run.info.run_id: run.info.run_name for run in found}
        below = [run for run in found if "mlflow.parentRunId" in run.data.tags]
        return {name: [run for run in below if names[run.data.tags["mlflow.parentRunId"]] == name] for name in names.values()}

    list(resend(home_folder(str(home))))
    before, unlogged = {run.info.run_id for run in mlflow_runs(home)}, {"max_drop": 0.07}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    run(home, unlogged, SETTINGS[:1])
    document = run(home, unlogged, SETTINGS[:1])
    swept = to_json(
        sweep(settings=SETTINGS[:1], grid=["max_drop=0.001,0.07"], overrides=dict(SHORT), home=str(home), workers=0)
    )
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    path = home / "results" / document["run"] / "results.json"
    written = path.read_text()

    sent = {one.run: one for one in resend(home)}
    assert set(sent) == {document["run"], swept["run"]}, "the newest of two that are alike"
    assert sent[document["run"]].children == (SETTINGS[0],) and not sent[document["run"]].without_files
    assert path.read_text() == written.replace(json.dumps(document["tracking_error"]), "null")
    assert list(resend(home)) == [], "nothing to send"
    points = known()[f"sweep {swept['run']}"]
    assert {run.data.params["search.max_drop"]: run.data.metrics["headline/mean_steps"] for run in points} == {
        str(point["values"]["max_drop"]): round(point["mean_steps"], 4) for point in swept["points"]
    }
    assert [run.info.status for run in points] == ["FINISHED"] * 2
    after = {run.info.run_id for run in mlflow_runs(home)}
    assert len(after - before) == 5 and before <= after
    run(home, unlogged, SETTINGS[:1])
    assert {run.info.run_id for run in mlflow_runs(home)} == after, "a run with tracking finds what was sent"


def test_an_interruption_ends_soon_keeps_what_is_done_and_a_rerun_goes_on(prefect_server: str, tmp_path: Path) -> None:
    """The command in a process of its own: SIGINT while it trains."""
    command = [
        sys.executable,
        "-m",
        "dynconf_flows.command.main",
        "reproduce",
        "--home",
        str(tmp_path),
        "--setting",
        SETTINGS[0],
        "--set",
        "epochs=4",
        "--set",
        "time_steps=4",
    ]
    environment = {**os.environ, "PREFECT_API_URL": prefect_server, "PYTHONPATH": str(Path(__file__).parent.parent)}
    started = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and not list(tmp_path.glob("work/*/epoch.pt")):
        assert started.poll() is None, started.communicate()
        time.sleep(0.05)
    asked = time.monotonic()
    started.send_signal(signal.SIGINT)
    output, errors = started.communicate(timeout=30)
    assert started.returncode == 130, (output, errors)
    assert time.monotonic() - asked < 10  # five seconds, and what a loaded machine takes to notice
    assert "Traceback" not in output + errors
    assert "interrupted" in (output + errors).lower()
    (resume,) = tmp_path.glob("work/*/epoch.pt")
    before = resume.stat().st_mtime
    again = subprocess.run([*command, "--json"], env=environment, capture_output=True, text=True, timeout=240)
    assert again.returncode == 0, again.stderr
    row = json.loads(again.stdout)["settings"][0]
    assert row["status"] == "ok"
    manifest = json.loads(next(tmp_path.glob("artefacts/train/*/*/manifest.json")).read_text())
    record = manifest["provenance"]["facts"]["record"]
    assert len(record["losses"]) == 4 and record["seconds"] > 0 and before > 0


def test_several_seeds_are_summed_up(home: Path, first: dict[str, Any]) -> None:
    """The command in a process of its own, on the module's home: seed 0 is in the store."""
    shorter = asked_on_the_command_line()[:2] + asked_on_the_command_line()[4:]
    command = [
        sys.executable,
        "-m",
        "dynconf_flows.command.main",
        "reproduce",
        "--home",
        str(home),
        *shorter,
        "--seeds",
        "0,1",
        "--workers",
        "0",
        "--json",
    ]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    content = json.loads(done.stdout)
    rows = [document["settings"][0] for document in content["seeds"]]
    assert rows[0]["stages"]["train"] == "cached" and rows[1]["stages"]["train"] == "ran"
    (summary,) = content["over_seeds"]
    mean = sum(row["exit"]["mean_steps"] for row in rows) / 2
    assert summary["figures"]["exit_mean_steps"]["mean"] == pytest.approx(mean)
    written = json.loads((home / "results" / "latest" / "over_seeds.json").read_text())
    assert written["settings"] == content["over_seeds"]


def test_a_setting_with_a_measure_from_outside(home: Path, first: dict[str, Any], tmp_path: Path) -> None:
    from dynconf_core.errors import InputError
    from dynconf_core.results.export import export

    own = {"rule": "measures_from_outside:ShareOfVotes"}
    (row,) = run(home, own, SETTINGS[1:])["settings"]
    assert {name for name, outcome in row["stages"].items() if outcome != "cached"} == {"search", "evaluate"}
    rule = row["exit"]["rule"]
    assert (rule["measure"], rule["source"]) == ("share_of_votes", own["rule"])
    compared = [entry["measure"] for entry in row["comparison"] if entry["max_drop"] == 0 and not entry["rival"]]
    assert compared == ["max_softmax", "entropy", "gap", "patience", "learned", "share_of_votes"]
    assert set(run(home, own, SETTINGS[1:])["settings"][0]["stages"].values()) == {"cached"}
    with pytest.raises(InputError, match=r"measures_from_outside:ShareOfVotes.*--rule"):
        export(None, tmp_path / "published", str(home))
    assert not (tmp_path / "published").exists()
    assert len(export(None, tmp_path / "published", str(home), measure=own["rule"])) > 8


def test_a_setting_alone_ends_the_run_above_it(home: Path) -> None:
    from dynconf_flows.setting import setting

    done = setting(name=SETTINGS[0], overrides={**SHORT, "time_steps": 3}, home=str(home))
    assert (done.row.status, done.interrupted, done.tracking_error) == ("ok", False, None)
    (parent,) = [run for run in mlflow_runs(home) if run.data.tags.get("dynconf.record", "").count('"time_steps": 3')][-1:]
    assert parent.info.status == "FINISHED"
    assert "RUNNING" not in {run.info.status for run in mlflow_runs(home)}


def test_a_setting_alone_is_stopped_when_a_stage_takes_too_long(home: Path) -> None:
    from dynconf_flows.setting import SettingFailed, setting

    with pytest.raises(SettingFailed, match=r"train: took longer than --stage-timeout 0.1 s"):
        setting(name=SETTINGS[0], overrides={"epochs": 1000}, seed=99, home=str(home), stage_timeout="0.1s", track_run=False)
