"""The MLflow side: runs are found again by their tags, and a server that is not there costs seconds."""

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from result_cases import ENVIRONMENT, PUBLISHED, compared, exiting, failed_setting, run_result, setting_result

from dynconf_core.evaluation.energy import Energy, MultiplyAccumulates
from dynconf_core.evaluation.metrics import Baseline
from dynconf_core.exit.judgement import OperatingPoint
from dynconf_core.exit.oracles import AveragedEarliest, Oracles
from dynconf_core.experiment.profiles import resolve
from dynconf_core.results.files import over_seeds
from dynconf_core.results.sweep_front import with_front
from dynconf_core.results.types import AnySetting, RunResult, SweepPoint, SweepResult
from dynconf_core.store.artefacts import Artefact, Store
from dynconf_core.store.keys import stage_key
from dynconf_tasks.tracking import logged
from dynconf_tasks.tracking.family import PARENT
from dynconf_tasks.tracking.logged import Child, Origin
from dynconf_tasks.tracking.runs import metrics_of
from dynconf_tasks.tracking.shown import Shown, setting_shown
from dynconf_tasks.tracking.tags import Source
from dynconf_tasks.tracking.tracker import Tracker, TrackingUnavailable
from dynconf_tasks.tracking.views import OF_PROFILES

ROW = setting_result(
    "cifar10-vgg16-qcfs",
    PUBLISHED,
    time_steps=4,
    accuracy_at_t=(0.25, 0.5, 0.75, 0.95),
    exit=exiting(0.94, 2.5, latency_saving=0.375, histogram=(1, 1, 1, 1)),
    oracles=Oracles(OperatingPoint(0.97, 1.5), OperatingPoint(0.95, 2.0), AveragedEarliest(0.97, 1.5, 1.6)),
    baselines=(Baseline("within_0.1_points", 3, 0.95, 0.1), Baseline("iso_accuracy", 3, 0.95, 0.1)),
    energy=Energy("estimate", 900.5, 80.0, 30.25, "a formula", 4.6, 0.9, "a paper"),
    multiply_accumulates=MultiplyAccumulates(10, 0, 200),
)
FAILED = failed_setting("imagenet-vgg16-qffs", "convert: no threshold")
ORIGIN = Origin(Path("nowhere"), "smoke", 0, {"time_steps": 4}, None, "dynconf reproduce")


def child_of(row: AnySetting, files: list[Path] | None = None, digest: str = "d1") -> Child:
    """What is logged of a setting whose evaluation has these files and this digest."""
    found = logged.child_of(row, ORIGIN)
    return found if found.error else replace(found, digest=digest, files=tuple(files or ()))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(autouse=True)
def without_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def tracker(home: Path) -> Tracker:
    return Tracker(home)


def client(tracker: Tracker) -> Any:
    """Another client of the same tracking server."""
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=tracker.uri)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    picture, figures = tmp_path / "accuracy_against_latency.png", tmp_path / "evaluation.json"
    picture.write_bytes(b"png")
    figures.write_text("{}")
    return [picture, figures]


def runs(tracker: Tracker, profile: str = "smoke") -> list[Any]:
    experiment = client(tracker).get_experiment_by_name(f"dynconf-{profile}")
    return list(client(tracker).search_runs([experiment.experiment_id])) if experiment else []


def document(*rows: AnySetting, saving: float | None = 0.375) -> RunResult:
    return run_result(*rows, mean_latency_saving=saving)


def test_a_childs_params_metrics_steps_and_artefacts(tracker: Tracker, files: list[Path]) -> None:
    parent = tracker.parent("smoke", 1, {"time_steps": 4}, "smoke, seed 1")
    child = client(tracker).get_run(tracker.child(parent, child_of(ROW, files, "d1")))
    assert child.info.status == "FINISHED" and child.info.run_name == f"{ROW.name}, time_steps=4"
    assert child.data.tags[PARENT] == parent and child.data.tags["setting"] == ROW.name
    params = child.data.params
    assert (params["profile"], params["seed"], params["time_steps"], params["scheme.levels"]) == ("smoke", "0", "4", "4")
    assert params["data.stands_in_for"] == "CIFAR-10" and params["rule.measure"] == "max_softmax"
    assert "scheme.bits" not in params, "unknown values are left out"
    metrics = child.data.metrics
    assert metrics["headline/mean_steps"] == 2.5 and metrics["headline/steps_saved_percent"] == 37.5
    assert metrics["headline/oracle_mean_steps"] == 1.5
    assert len([name for name in metrics if name.startswith("headline/")]) <= 12 and len(metrics) <= 15
    history = client(tracker).get_metric_history(child.info.run_id, "curve/accuracy_percent")
    assert sorted((point.step, point.value) for point in history) == [(1, 25), (2, 50), (3, 75), (4, 95)]
    history = client(tracker).get_metric_history(child.info.run_id, "curve/exited_percent")
    assert sorted((point.step, point.value) for point in history) == [(1, 25), (2, 50), (3, 75), (4, 100)]
    names = {file.path for file in client(tracker).list_artifacts(child.info.run_id)}
    assert {"accuracy_against_latency.png", "evaluation.json"} <= names
    above = client(tracker).get_run(parent)
    assert above.info.status == "RUNNING" and above.data.params["time_steps"] == "4"
    assert PARENT not in above.data.tags, "one level of nesting"
    tracker.finish_parent(parent, document(ROW))
    above = client(tracker).get_run(parent)
    assert above.info.status == "FINISHED" and above.data.metrics["headline/steps_saved_percent"] == 37.5


def test_names_of_runs_tell_seeds_and_overrides_apart(tmp_path: Path) -> None:
    """Those of fields that the setting does not have and the digests of given checkpoints say nothing of it."""
    plan = resolve("cifar10-vgg16-qffs", "smoke")
    row = setting_result(plan.setting)

    def name(seed: int, **identity: Any) -> str:
        given = {"checkpoint cifar10-vgg16-qffs": "ab" * 32, **identity}
        return logged.child_of(row, Origin(tmp_path, "smoke", seed, given, plan)).name

    assert name(0) == plan.setting
    assert name(1) == f"{plan.setting}, seed 1"
    assert name(0, time_steps=16, levels=8) == f"{plan.setting}, time_steps=16"
    assert name(2, time_steps=16, fixed_point=False) == f"{plan.setting}, seed 2, time_steps=16, fixed_point=false"
    point = Origin(tmp_path, "smoke", 1, {"time_steps": 16, "alpha": 2.0}, plan, point={"alpha": 2.0})
    assert logged.child_of(row, point).name == f"alpha=2 {plan.setting}"


def test_a_rerun_finds_its_runs_and_appends_nothing(home: Path, files: list[Path]) -> None:
    def once(digest: str) -> tuple[str, str]:
        tracker = Tracker(home)
        parent = tracker.parent("smoke", 2, {}, "again")
        child = tracker.child(parent, child_of(ROW, files, digest))
        tracker.finish_parent(parent, document(ROW))
        return parent, child

    parent, child = once("d1")
    before = len(runs(Tracker(home)))
    assert once("d1") == (parent, child)
    tracker = Tracker(home)
    assert len(runs(tracker)) == before
    assert len(client(tracker).get_metric_history(child, "curve/accuracy_percent")) == 4
    assert len(client(tracker).get_metric_history(parent, "headline/steps_saved_percent")) == 1
    same, changed = once("d2")
    assert same == parent and changed != child, "another evaluation is another run"
    assert len(runs(tracker)) == before, "which takes the place of the old one"
    assert client(tracker).get_run(child).info.lifecycle_stage == "deleted"


def test_seed_overrides_and_profile_tell_parents_apart(tracker: Tracker) -> None:
    made = {
        tracker.parent("smoke", 3, {}, "a"),
        tracker.parent("smoke", 4, {}, "b"),
        tracker.parent("smoke", 3, {"bits": 3}, "c"),
        tracker.parent("smoke", 3, {"note": 'it\'s "quoted", % and `ticked`'}, "d"),
        tracker.parent("quick", 3, {}, "e"),
    }
    assert len(made) == 5
    assert tracker.parent("smoke", 3, {"note": 'it\'s "quoted", % and `ticked`'}, "d") in made
    assert tracker.parent("smoke", 3, {"bits": 3}, "c") in made


def test_a_child_of_a_killed_run_is_replaced(tracker: Tracker) -> None:
    parent = tracker.parent("smoke", 5, {}, "killed")
    child = tracker.child(parent, child_of(ROW))
    client(tracker).update_run(child, status="RUNNING")
    again = tracker.child(parent, child_of(ROW))
    found = [run for run in runs(tracker) if run.data.tags.get(PARENT) == parent]
    assert [run.info.run_id for run in found] == [again] and found[0].info.status == "FINISHED"


def test_a_failed_setting_is_a_failed_child_until_it_succeeds(tracker: Tracker) -> None:
    parent = tracker.parent("smoke", 6, {}, "failed")
    long = replace(FAILED, error="convert: " + "x" * 20_000)
    tracker.child(parent, child_of(long))
    child = client(tracker).get_run(tracker.child(parent, child_of(FAILED)))
    assert child.info.status == "FAILED" and child.data.tags["error"] == FAILED.error
    tracker.finish_parent(parent, document(ROW, FAILED))
    assert client(tracker).get_run(parent).info.status == "FAILED"
    tracker.child(parent, child_of(replace(ROW, name=FAILED.name)))
    found = [run for run in runs(tracker) if run.data.tags.get(PARENT) == parent]
    assert [run.info.status for run in found] == ["FINISHED"]


def test_an_interrupted_parent_does_not_stay_running(tracker: Tracker) -> None:
    parent = tracker.parent("smoke", 7, {}, "interrupted")
    tracker.finish_parent(parent, document(FAILED, saving=None), interrupted=True)
    assert client(tracker).get_run(parent).info.status == "KILLED"
    assert tracker.parent("smoke", 7, {}, "interrupted") == parent
    assert client(tracker).get_run(parent).info.status == "RUNNING"


def test_several_threads(home: Path) -> None:
    """Each with a tracker of its own; one parent comes of it."""
    faults: list[BaseException] = []
    made: list[tuple[str, str]] = []

    def work(number: int) -> None:
        try:
            tracker = Tracker(home)
            parent = tracker.parent("smoke", 8, {}, "threads")
            row = replace(ROW, name=f"setting-{number}", accuracy_at_t=(number / 10,) * 1500)
            made.append((parent, tracker.child(parent, child_of(row, [], "d"))))
        except BaseException as fault:
            faults.append(fault)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert len({parent for parent, _ in made}) == 1 and len({child for _, child in made}) == 4
    tracker = Tracker(home)
    for _, child in made:
        run = client(tracker).get_run(child)
        number = int(run.data.tags["setting"].removeprefix("setting-"))
        history = client(tracker).get_metric_history(child, "curve/accuracy_percent")
        assert len(history) == 1500 and {point.value for point in history} == {number * 10}


@pytest.fixture
def silent_server() -> Iterator[str]:
    """Takes connections and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(50)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def refused(uri: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    start = time.monotonic()
    with pytest.raises(TrackingUnavailable) as caught:
        Tracker(home)
    assert time.monotonic() - start < 6
    return str(caught.value)


def test_a_server_that_refuses_fails_fast(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "http://127.0.0.1:9" in refused("http://127.0.0.1:9", home, monkeypatch)


def test_a_server_that_is_silent_fails_fast(home: Path, silent_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert silent_server in refused(silent_server, home, monkeypatch)


@pytest.mark.parametrize("uri", ["nonsense://nowhere", "file:///tmp/mlruns", "sqlite:////proc/none/mlflow.db"])
def test_an_address_that_cannot_work_is_named(uri: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert uri in refused(uri, home, monkeypatch)


def test_a_password_is_not_shown(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    message = refused("http://someone:geheim@127.0.0.1:9", home, monkeypatch)
    assert "geheim" not in message and "someone" in message and "127.0.0.1:9" in message


def test_a_home_with_odd_characters(tmp_path: Path, files: list[Path]) -> None:
    home = tmp_path / "50%20 of a? home #1"
    home.mkdir()
    tracker = Tracker(home)
    child = tracker.child(tracker.parent("smoke", 0, {}, "odd"), child_of(ROW, files, "d"))
    assert (home / "mlflow.db").is_file()
    assert {file.path for file in client(tracker).list_artifacts(child)} >= {"evaluation.json"}
    stored = [path for path in (home / "mlartifacts").rglob("evaluation.json") if os.path.getsize(path)]
    assert len(stored) == 1
    assert [path.name for path in home.parent.iterdir() if path.is_dir()] == [home.name], "nothing beside the home"


def table(tracker: Tracker, run: str, name: str) -> list[dict[str, Any]]:
    """A table of a run, read by MLflow."""
    experiment = client(tracker).get_run(run).info.experiment_id
    with pytest.MonkeyPatch.context() as patch:  # part of `load_table` asks the server that this names, not the client's
        patch.setenv("MLFLOW_TRACKING_URI", tracker.uri)
        found = client(tracker).load_table(experiment, f"tables/{name}.json", run_ids=[run])
    return list(found.to_dict("records"))


def artefact(home: Path, stage: str, files: dict[str, str], config: dict[str, Any], seconds: float = 2.0) -> Artefact:
    """An artefact in the store of a home."""
    with (new := Store(home / "artefacts").create(stage_key(stage, config, {}, "0" * 64), {"seconds": seconds})) as folder:
        for name, text in files.items():
            (folder / name).write_text(text)
    return new.created


def test_every_other_figure_stands_in_tables(tracker: Tracker, tmp_path: Path) -> None:
    layers = [
        {
            "name": name,
            "neurons": 8,
            "threshold": {"least": 1.0, "most": 2.0},
            "rate": 0.5,
            "error": [0.5, 0.25],
            "agreement": 0.9,
        }
        for name in ("conv1", "conv2")
    ]
    report = artefact(tmp_path, "convert", {"report.json": json.dumps({"marks": [2, 4], "layers": layers})}, {})
    compared_at = (compared("gap", 0.0, 3.0, 0.0), compared("gap", 0.01, 2.0, 0.01))
    row = replace(ROW, comparison=compared_at, artefacts={"convert": report.key})
    child = replace(logged.child_of(row, replace(ORIGIN, home=tmp_path)), digest="d1")
    run = tracker.child(tracker.parent("smoke", 9, {}, "tables"), child)
    figures = {one["figure"]: one for one in table(tracker, run, "figures")}
    assert (figures["energy_exit"]["value"], figures["energy_picojoules_per_mac"]["value"]) == (30.25, 4.6)
    assert figures["multiply_accumulates_ann"]["value"] == 200
    assert figures["exit_rule_threshold"]["value"] == "inf", "never exit is no number"
    exit_accuracy = [figures["exit_accuracy"][name] for name in ("value", "low", "high")]
    assert exit_accuracy == pytest.approx([0.94, *row.exit.accuracy_interval]), "up to the last digit, which pandas loses"
    assert not [name for name in figures if name.startswith(("paper", "stages", "artefacts", "name", "comparison"))]
    over_time = table(tracker, run, "over_time")
    assert [(one["time_step"], one["exits"]) for one in over_time] == [(1, 1), (2, 1), (3, 1), (4, 1)]
    assert [one["accuracy"] for one in over_time] == pytest.approx(ROW.accuracy_at_t)
    assert [one["test_mean_steps"] for one in table(tracker, run, "comparison")] == [3.0, 2.0]
    assert table(tracker, run, "baselines")[0]["name"] == "within_0.1_points"
    assert [one["ece"] for one in table(tracker, run, "reliability")] == pytest.approx([ROW.ece.full, ROW.ece.exit])
    assert [(one["layer"], one["error_at_4"], one["threshold_most"]) for one in table(tracker, run, "conversion")] == [
        ("conv1", 0.25, 2.0),
        ("conv2", 0.25, 2.0),
    ]


def test_what_the_page_of_a_setting_says(tracker: Tracker, tmp_path: Path) -> None:
    """The number first, what was run, how to do it again, the data, and when it was computed, long before it was logged."""
    plan = resolve("cifar10-resnet18-qcfs", "smoke", 3)
    data = {"name": plan.data.name, "digest": "ab" * 32}
    first = artefact(tmp_path, "convert", {"snn.pt": "x"}, {"data": data}, seconds=90.0)
    last = artefact(tmp_path, "evaluate", {"evaluation.json": "{}"}, {}, seconds=1.5)
    row = setting_result(
        plan.setting, exit=exiting(0.9481, 5.46, loss=0.0002), accuracy_at_t=(0.95,) * 32, warnings=("Seen in training.",)
    )
    row = replace(row, artefacts={"convert": first.key, "evaluate": last.key})
    home = tmp_path / "a home"
    (tmp_path / "artefacts").rename(home.parent / "kept")
    home.mkdir()
    (tmp_path / "kept").rename(home / "artefacts")
    origin = Origin(home, "smoke", 3, {"alpha": 2.0}, plan, "dynconf reproduce --seed 3")
    parent = tracker.parent("smoke", 12, {}, "described", source=Source("dynconf reproduce --seed 3", "abc-dirty"))
    run = client(tracker).get_run(tracker.child(parent, logged.child_of(row, origin)))
    lines = run.data.tags["mlflow.note.content"].splitlines()
    assert lines[0] == "**94.81 % with 5.46 of 32 steps: 83 % fewer, 0.02 points lost**"
    text = "\n".join(lines)
    assert "Seen in training." in text and "standing in for CIFAR-10" in text and "0.125 of full width" in text
    assert f"dynconf explain {plan.setting} --profile smoke --set alpha=2 --seed 3 --home '{home}'" in text
    assert "Computed in 1.5 min: convert 1.5 min, evaluate 1.5 s." in text
    gained = logged.child_of(replace(row, exit=exiting(0.9481, 5.46, loss=-0.0002)), origin).description
    assert "0.02 points gained" in gained.splitlines()[0]
    tags = {name: run.data.tags[name] for name in ("setting", "dataset", "network", "scheme", "profile", "seed", "commit")}
    assert list(tags.values()) == [plan.setting, "digits", "resnet18", "qcfs", "smoke", "3", "abc-dirty"]
    assert run.data.tags["mlflow.source.name"] == "dynconf reproduce --seed 3"
    assert run.data.tags["mlflow.source.git.commit"] == "abc"
    params = run.data.params
    assert (params["training.epochs"], params["search.rule"], params["seconds.total"]) == ("6", "max_softmax", "91.5")
    assert not [value for value in params.values() if len(value) >= 32], "no hashes"
    inputs = {one.tags[0].value: one.dataset for one in run.inputs.dataset_inputs}
    rows = {context: json.loads(found.profile)["num_rows"] for context, found in inputs.items()}
    assert rows == {"training": plan.data.train, "calibration": plan.data.calibration, "test": row.data.test}
    assert json.loads(inputs["training"].source)["content_digest"] == "ab" * 32 and len(inputs["test"].digest) >= 32
    assert len({found.digest for found in inputs.values()}) == 3
    start = datetime.fromisoformat(first.manifest["created"]).timestamp() - 90
    end = datetime.fromisoformat(last.manifest["created"]).timestamp()
    assert (run.info.start_time / 1000, run.info.end_time / 1000) == pytest.approx((start, end), abs=0.01)


def test_the_page_of_a_reproduction(tracker: Tracker) -> None:
    """Means over its settings, a table, the report, and figures over seeds where there are several."""
    other = replace(ROW, name="another", exit=exiting(0.92, 1.5, latency_saving=0.625, speedup=2.0), ann_accuracy=None)
    result = document(ROW, other, FAILED, saving=0.5)
    folder = tracker.home / "results" / result.run
    folder.mkdir(parents=True)
    (folder / "report.html").write_text("<p>report</p>")
    parent = tracker.parent("smoke", 13, {}, "whole")
    tracker.finish_parent(parent, result)
    run = client(tracker).get_run(parent)
    assert run.data.metrics["headline/mean_steps"] == 2.0 and run.data.metrics["headline/steps_saved_percent"] == 50
    assert run.data.metrics["headline/ann_accuracy_percent"] == 96, "of the one that has it"
    text = run.data.tags["mlflow.note.content"]
    assert text.startswith("**50 % fewer steps on average over 2 settings") and f"| {ROW.name} |" in text
    rows = {row["setting"]: row for row in table(tracker, parent, "settings")}
    assert set(rows) == {ROW.name, "another", FAILED.name} and rows[FAILED.name]["error"] == FAILED.error
    assert rows["another"]["mean_steps"] == 1.5
    assert "report.html" in {file.path for file in client(tracker).list_artifacts(parent)}
    assert "seeds" not in text
    second = replace(result, run="2-smoke-seed14", seed=14, settings=(ROW, replace(other, snn_accuracy=0.9), FAILED))
    of_second = tracker.parent("smoke", 14, {}, "second")
    tracker.finish_parent(of_second, second)
    both = [replace(result, seed=13), second]
    tracker.over_seeds([(one, {}) for one in both], over_seeds(both))
    for identifier in (parent, of_second):
        assert "Over 2 seeds" in client(tracker).get_run(identifier).data.tags["mlflow.note.content"]
        assert {row["name"] for row in table(tracker, identifier, "over_seeds")} == set(rows)


def test_the_page_of_a_sweep(tracker: Tracker) -> None:
    points = with_front([point(2.0, 0.95, 3.0, 0.99), point(4.0, 0.94, 5.0, 0.999), point(8.0, 0.96, 6.0, 0.9)])
    assert [one.on_front for one in points if isinstance(one, SweepPoint)] == [True, False, True], "by calibration figures"
    result = SweepResult(run="alpha", profile="smoke", seed=0, environment=ENVIRONMENT, failed=0, points=points)
    parent = tracker.parent("smoke", 0, {}, "sweep alpha", "sweep")
    tracker.finish_parent(parent, result)
    run = client(tracker).get_run(parent)
    assert (run.data.metrics["headline/points"], run.data.metrics["headline/front_points"]) == (3, 2)
    text = run.data.tags["mlflow.note.content"]
    assert "alpha=2 | 95.00 @ 3.00 | 99.00 @ 3.50" in text and "alpha=4" not in text
    assert [row["alpha"] for row in table(tracker, parent, "front")] == [2.0, 8.0]
    assert {"pareto_front.png", "pareto_front.svg"} <= {file.path for file in client(tracker).list_artifacts(parent)}


def point(alpha: float, calibration: float, steps: float, test: float) -> SweepPoint:
    return SweepPoint(
        setting=ROW.name,
        values={"alpha": alpha},
        error=None,
        ann_accuracy=None,
        snn_accuracy=0.9,
        accuracy=test,
        mean_steps=steps + 0.5,
        calibration_accuracy=calibration,
        calibration_mean_steps=steps,
        stages={},
        artefacts={},
    )


def test_an_experiment_has_its_views(tracker: Tracker) -> None:
    tracker.parent("smoke", 15, {}, "views")
    experiment = client(tracker).get_experiment_by_name("dynconf-smoke")
    for view in OF_PROFILES:
        content = json.loads(experiment.tags[f"mlflow.sharedViewState.{view.key}"])
        columns = json.loads(content["state"])["selectedColumns"]
        assert content["name"] == view.name
        assert view.charts or columns[:2] == ["tags.`seed`", "params.`time_steps`"], "what tells runs apart stands first"
        assert view.address(experiment.experiment_id) in experiment.tags["mlflow.note.content"]


def test_a_tag_of_an_experiment_that_another_process_sets_at_the_same_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    set_tag = MlflowClient.set_experiment_tag

    def late(self: MlflowClient, experiment: str, tag: str, value: str) -> None:
        set_tag(self, experiment, tag, value)
        raise MlflowException("UNIQUE constraint failed")

    def failing(self: MlflowClient, experiment: str, tag: str, value: str) -> None:
        raise MlflowException("disk full")

    tracker = Tracker(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, "set_experiment_tag", late)
        tracker.parent("smoke", 0, {}, "both")
        patched.setattr(MlflowClient, "set_experiment_tag", failing)
        with pytest.raises(TrackingUnavailable, match="disk full"):
            tracker.parent("quick", 0, {}, "neither")


def test_the_address_of_a_run(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tracker.parent("smoke", 10, {}, "address")
    assert tracker.run_url(run) is None, "a database has no pages"
    experiment = client(tracker).get_run(run).info.experiment_id
    monkeypatch.setattr(tracker, "uri", "https://someone:geheim@lab.example/mlflow/")
    assert tracker.run_url(run) == f"https://lab.example/mlflow/#/experiments/{experiment}/runs/{run}"


def test_only_finite_numbers_become_metrics() -> None:
    assert metrics_of(Shown({"x": float("inf"), "y": float("nan"), "z": None, "steps": 4}, {"c": (float("nan"), 2.0)})) == [
        ("headline/steps", 4.0, 0),
        ("curve/c", 2.0, 2),
    ]
    assert setting_shown(ROW).headline["spikes_saved_percent"] == round(100 * (1 - 13 / 30), 4)
    none = setting_shown(replace(ROW, spikes_per_inference=None, ann_accuracy=None, baselines=())).headline
    assert (none["spikes_saved_percent"], none["ann_accuracy_percent"], none["steps_saved_iso_accuracy_percent"]) == (None,) * 3
