"""Reproductions and sweeps spread over two Prefect workers with checkouts at different paths; one of them is killed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from loopback_cluster import (
    Cluster,
    asked,
    deployed,
    flow_runs,
    mlflow_runs,
    trials,
    unfinished,
    wait_until,
)
from processes import ended, started

from dynconf_tasks.study.storage import studies

SETTINGS = ["cifar10-vgg16-qcfs", "cifar10-vgg16-qffs"]
SHORT = {"epochs": 1, "time_steps": 4, "learning_rate": 0.05}
"""Nothing else on the cluster trains with this learning rate."""
SWEPT = {"seed": "1,2", "alpha": "1,2,4,8"}
POINTS = 8


def command(*arguments: str) -> Callable[[], None]:
    """The command ``dynconf``, for a process of its own."""

    def call() -> None:
        from dynconf_flows.command.entry import main

        sys.argv = ["dynconf", *arguments]
        main()

    return call


def printing(path: Path, *arguments: str) -> Callable[[], None]:
    """The command ``dynconf``, which prints into a file."""

    def call() -> None:
        sys.stdout = path.open("w")
        command(*arguments)()

    return call


def options(fields: Mapping[str, Any], name: str) -> list[str]:
    return [part for field, value in fields.items() for part in (name, f"{field}={value}")]


REPRODUCE = ["reproduce", *options(SHORT, "--set"), *(part for name in SETTINGS for part in ("--setting", name))]
SWEEP = ["sweep", "--setting", SETTINGS[0], *options(SHORT, "--set"), *options(SWEPT, "--grid")]


def table(results: Path) -> list[dict[str, Any]]:
    """The rows of a results.json without what two runs may differ in: which stages ran, and how long they took."""
    rows = json.loads(results.read_text())["settings"]
    return [{name: value for name, value in row.items() if name not in ("stages", "resources")} for row in rows]


def stages(cluster: Cluster, stage: str, setting: str) -> Counter[str]:
    """How often a stage's task has ended in which state, such as Completed, which means made, or Cached."""
    runs = asked(cluster, "task_runs/filter", {"task_runs": {"name": {"any_": [f"{setting} · {stage}"]}}, "limit": 200})
    return Counter(run["state_name"] for run in runs)


def places(cluster: Cluster) -> dict[str, str]:
    """By the flow run of each participant, the part of the cluster that runs it."""
    found = {}
    for run in flow_runs(cluster):
        with suppress(psutil.Error, OSError):
            if run["state_type"] == "RUNNING" and run["infrastructure_pid"]:
                process = psutil.Process(int(str(run["infrastructure_pid"]).rpartition(":")[2]))
                found[run["id"]] = process.environ()["DYNCONF_CLUSTER_PART"]
    return found


def taken(cluster: Cluster, participant: str) -> list[str]:
    """The states of a participant's points, which are its subflows; other participants that it started are no points."""
    body = {"flow_runs": {"id": {"any_": [participant]}}, "limit": 200}
    tasks = {run["id"] for run in asked(cluster, "task_runs/filter", body)}
    return [run["state_type"] for run in flow_runs(cluster) if run["parent_task_run_id"] in tasks and not run["deployment_id"]]


def left_running(cluster: Cluster) -> list[str]:
    """What is still marked as running, or waits, in any of the three databases."""
    open_trials = [
        f"trial {trial.number} of {study}: {trial.state.name}"
        for study, found in trials(cluster).items()
        for trial in found
        if not trial.state.is_finished()
    ]
    running = [
        f"MLflow: {run.info.run_name}"
        for run in mlflow_runs(cluster)
        if run.info.status not in ("FINISHED", "KILLED", "FAILED")
    ]
    return [*unfinished(cluster), *running, *open_trials]


def results_of(home: Path, kind: str) -> set[Path]:
    return {path for path in (home / kind).glob("*/results.json") if not path.parent.is_symlink()}


@dataclass(frozen=True)
class Local:
    """What two commands did that reproduced the same settings at once in one home.

    Attributes:
        home: the home.
        trainings: by setting, how often it was trained.
    """

    home: Path
    trainings: dict[str, int]


@pytest.fixture(scope="module")
def local(running_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Local:
    """On one machine: they use the cluster's servers, but files instead of its storage."""
    home = tmp_path_factory.mktemp("local")
    before = {setting: stages(running_cluster, "train", setting)["Completed"] for setting in SETTINGS}
    environment = {**running_cluster.environment, "DYNCONF_HOME": str(home), "DYNCONF_STORAGE": ""}
    both = [started(command(*REPRODUCE), environment) for _ in range(2)]
    assert [ended(process, 240) for process in both] == [0, 0]
    return Local(home, {name: stages(running_cluster, "train", name)["Completed"] - number for name, number in before.items()})


def test_two_commands_at_once_do_everything_once(local: Local, cluster: Cluster) -> None:
    """One run of the reproduction in MLflow, one below it for each setting, one training; equal tables."""
    runs = mlflow_runs(cluster)
    rate = {"learning_rate": str(SHORT["learning_rate"])}.items()
    (parent,) = [run for run in runs if run.data.tags.get("kind") == "reproduction" and rate <= run.data.params.items()]
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert sorted(run.data.tags["setting"] for run in children) == sorted(SETTINGS)
    assert {run.info.status for run in (parent, *children)} == {"FINISHED"}
    assert local.trainings == {setting: 1 for setting in SETTINGS}
    tables = [table(path) for path in results_of(local.home, "results")]
    assert len(tables[0]) == len(SETTINGS) and all(one == tables[0] for one in tables)
    assert not left_running(cluster)


def test_a_reproduction_spreads_over_two_workers(local: Local, cluster: Cluster) -> None:
    """Both take part, from checkouts at different paths, and the table is that of a run on one machine."""
    before = results_of(cluster.home, "results")
    asked_for = {"settings": SETTINGS, "overrides": SHORT, "participants": 2, "workers": 1}
    first = deployed(cluster, "reproduce/dynconf", asked_for)
    at_work = wait_until(lambda: len(found := places(cluster)) == 2 and found, "two participants")
    assert set(at_work.values()) == {"worker-1", "worker-2"}
    wait_until(lambda: not unfinished(cluster), "the end of all flow runs", 240)
    assert [run["state_type"] for run in flow_runs(cluster) if run["id"] in at_work] == ["COMPLETED"] * 2
    assert all(taken(cluster, participant) for participant in at_work), "each has computed some"
    (results,) = results_of(cluster.home, "results") - before
    assert str(first) in at_work and table(results) == table(results_of(local.home, "results").pop())
    assert not left_running(cluster)


def test_a_sweep_survives_a_killed_worker(cluster: Cluster) -> None:
    """The worker that has started the sweep and everything below it are killed while points run and others are done."""
    asked_for = {"settings": SETTINGS[:1], "overrides": SHORT, "grid": [f"{name}={values}" for name, values in SWEPT.items()]}
    trained, before = stages(cluster, "train", SETTINGS[0])["Completed"], results_of(cluster.home, "sweeps")
    first = str(deployed(cluster, "sweep/dynconf", {**asked_for, "participants": 2, "workers": 1}))
    at_work = wait_until(lambda: len(found := places(cluster)) == 2 and found, "two participants")
    wait_until(
        lambda: {"COMPLETED", "RUNNING"} <= set(taken(cluster, first)) and all(taken(cluster, one) for one in at_work),
        "points done and points at work",
    )
    for process in cluster.processes(at_work[first]):
        process.kill()
    (second,) = set(at_work) - {first}
    wait_until(lambda: not unfinished(cluster), "the end of all flow runs", 240)

    states = {run["id"]: run["state_type"] for run in flow_runs(cluster)}
    assert (states[first], states[second]) == ("CRASHED", "COMPLETED")
    assert "CRASHED" in taken(cluster, first), "the point that it was at"
    (results,) = results_of(cluster.home, "sweeps") - before
    points = json.loads(results.read_text())["points"]
    assert [point["status"] for point in points] == ["ok"] * POINTS
    assert len({json.dumps(point["values"], sort_keys=True) for point in points}) == POINTS
    assert stages(cluster, "train", SETTINGS[0])["Completed"] == trained + 2, "each of two trainings once"
    assert not left_running(cluster)

    figures = [{**point, "stages": None, "resources": None} for point in points]
    assert ended(started(command(*SWEEP), cluster.environment), 240) == 0
    assert {results} == results_of(cluster.home, "sweeps") - before
    again = json.loads(results.read_text())["points"]
    assert {outcome for point in again for outcome in point["stages"].values()} == {"cached"}
    assert [{**point, "stages": None, "resources": None} for point in again] == figures
    assert not left_running(cluster)


@pytest.mark.parametrize("place", ["database", "journal"])
def test_two_shells_share_a_study_and_print_the_same(local: Local, cluster: Cluster, tmp_path: Path, place: str) -> None:
    home, storage = (cluster.home, cluster.environment["DYNCONF_STORAGE"]) if place == "database" else (local.home, "")
    fields = {**SHORT, "levels": 4} if place == "database" else SHORT  # another study
    arguments = ["sweep", "--setting", SETTINGS[0], *options(fields, "--set"), "--study", "alpha=1..100", "--trials", "6"]
    environment = {**cluster.environment, "DYNCONF_HOME": str(home), "DYNCONF_STORAGE": storage}
    printed = [tmp_path / "one", tmp_path / "other"]
    both = [started(printing(path, *arguments, "--join", "--json"), environment) for path in printed]
    assert [ended(process, 240) for process in both] == [0, 0]
    one, other = (json.loads(path.read_text()) for path in printed)
    assert one == other and len(one["points"]) == 6 and one["failed"] == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DYNCONF_STORAGE", storage)
        (found,) = [study.trials for _, study in studies(home) if study.user_attrs["dynconf"]["run"] == one["run"]]
    assert Counter(trial.state.name for trial in found) == {"COMPLETE": 6}
    assert len({trial.user_attrs["by"]["owner"] for trial in found}) == 2, "both took part"


def test_no_password_is_in_any_database_log_or_file_of_the_home(cluster: Cluster) -> None:
    folder = cluster.folder / "cluster"
    passwords = {line.split(":")[3]: line.split(":")[4] for line in (folder / "pgpass").read_text().splitlines()}
    _, _, address = cluster.environment["DYNCONF_STORAGE"].rpartition("@")
    host, _, port = address.partition("/")[0].partition(":")
    (dump,) = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_dump"))[-1:]
    for database in ("prefect", "mlflow", "dynconf"):
        line = [dump, "-h", host, "-p", port, "-U", database, "--inserts", database]
        done = subprocess.run(line, env={"PGPASSFILE": str(folder / "pgpass")}, capture_output=True, text=True, check=True)
        assert done.stdout.count("INSERT INTO") > 10, database
        assert not [user for user, password in passwords.items() if password in done.stdout], database
    files = [path for name in ("logs", "home", "mlflow") for path in (folder / name).rglob("*") if path.is_file()]
    secrets = [password.encode() for password in passwords.values()]
    assert len(files) > 20 and not [path for path in files if any(secret in path.read_bytes() for secret in secrets)]
