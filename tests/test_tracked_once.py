"""Two processes that log the same, and processes that die while they log: one parent, one finished child, nothing running."""

import errno
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from processes import ended, killed_at, started
from result_cases import ENVIRONMENT, failed_setting, run_result, setting_result

from dynconf_core.failing import failing
from dynconf_core.results.types import FailedPoint, SweepPoint, SweepResult
from dynconf_core.store.owner import Owner
from dynconf_tasks.tracking.database import tracking_uri
from dynconf_tasks.tracking.family import DIGEST, PARENT, recorded
from dynconf_tasks.tracking.logged import Child, Origin, child_of
from dynconf_tasks.tracking.owners import OWNER
from dynconf_tasks.tracking.tracker import Tracker, TrackingUnavailable

ROW = setting_result(accuracy_at_t=(0.5,) * 300)
ORIGIN = Origin(Path("nowhere"), "smoke", 0)
CHILD = replace(child_of(ROW, ORIGIN), digest="d1")
POINTS = tuple(
    SweepPoint(
        setting=ROW.name,
        values={"time_steps": steps},
        error=None,
        ann_accuracy=0.9,
        snn_accuracy=0.9,
        accuracy=0.9,
        mean_steps=steps / 2,
        calibration_accuracy=0.9,
        calibration_mean_steps=steps / 2,
        stages={},
        artefacts={},
    )
    for steps in (4, 8)
)
SWEEP = SweepResult(run="smoke-time_steps-01234567", profile="smoke", seed=0, environment=ENVIRONMENT, failed=0, points=POINTS)


@pytest.fixture(autouse=True)
def without_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with MLflow's database, to be copied."""
    home = tmp_path_factory.mktemp("empty")
    before = os.environ.pop("MLFLOW_TRACKING_URI", None)
    Tracker(home)
    if before is not None:
        os.environ["MLFLOW_TRACKING_URI"] = before
    return home


@pytest.fixture
def home(empty: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(empty, tmp_path / "home"))


def logged(home: Path, child: Child = CHILD) -> None:
    """One reproduction of one setting, from its parent's start to its end."""
    tracker = Tracker(home)
    parent = tracker.parent("smoke", 0, {}, "smoke, seed 0")
    tracker.child(parent, child)
    tracker.finish_parent(parent, run_result(ROW))


def swept(home: Path) -> None:
    tracker = Tracker(home)
    parent = tracker.parent("smoke", 0, {"time_steps": "4,8"}, f"sweep {SWEEP.run}", "sweep")
    for point in POINTS:
        tracker.child(parent, child_of(point, replace(ORIGIN, point=point.values)))
    tracker.finish_parent(parent, SWEEP)


def runs(home: Path, deleted: bool = False) -> tuple[list[Any], list[Any]]:
    """The parents and the children."""
    from mlflow import MlflowClient
    from mlflow.entities import ViewType

    client = MlflowClient(tracking_uri=tracking_uri(home))
    experiment = client.get_experiment_by_name("dynconf-smoke")
    assert experiment is not None
    view = ViewType.DELETED_ONLY if deleted else ViewType.ACTIVE_ONLY
    found = list(client.search_runs([experiment.experiment_id], run_view_type=view))
    return [run for run in found if PARENT not in run.data.tags], [run for run in found if PARENT in run.data.tags]


def states(found: list[Any]) -> list[str]:
    return [run.info.status for run in found]


@pytest.mark.parametrize("work", [logged, swept])
def test_processes_that_log_the_same_at_once(work: Callable[[Path], None], home: Path) -> None:
    together = [started(lambda: work(home)) for _ in range(4)]
    assert [ended(process) for process in together] == [0] * 4
    parents, children = runs(home)
    assert states(parents) == ["FINISHED"]
    assert states(children) == ["FINISHED"] * (1 if work is logged else 2)
    assert runs(home, deleted=True) == ([], []), "nobody deletes what another has logged"
    if work is logged:
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=tracking_uri(home))
        assert len(client.get_metric_history(children[0].info.run_id, "curve/accuracy_percent")) == 300
    else:
        assert {run.data.tags["point"] for run in children} == {'{"time_steps": 4}', '{"time_steps": 8}'}
        assert sorted(run.data.metrics["headline/mean_steps"] for run in children) == [2.0, 4.0]


@pytest.mark.parametrize("point", ["track.created", "track.logged"])
def test_a_process_killed_while_it_logs(point: str, home: Path) -> None:
    killed_at(point, lambda: logged(home))
    parents, children = runs(home)
    assert states(parents) == states(children) == ["RUNNING"], "as it left them"
    logged(home)
    again, finished = runs(home)
    assert [run.info.run_id for run in again] == [run.info.run_id for run in parents]
    assert states(again) == states(finished) == ["FINISHED"]
    assert finished[0].data.metrics["headline/mean_steps"] == ROW.exit.mean_steps


@pytest.mark.parametrize("fault", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("point", ["track.created", "track.logged"])
def test_a_child_whose_logging_fails_does_not_stay_running(fault: BaseException, point: str, home: Path) -> None:
    def fail(name: str) -> None:
        if name == point:
            raise fault

    with failing(fail), pytest.raises((TrackingUnavailable, KeyboardInterrupt)):
        logged(home)
    _, children = runs(home)
    assert states(children) == ["KILLED"]
    logged(home)
    assert [states(found) for found in runs(home)] == [["FINISHED"], ["FINISHED"]]


def test_a_child_that_another_living_process_logs_is_left_alone(home: Path) -> None:
    """As with a tracking server that homes share: another evaluation is logged beside it, not in its place."""
    other = started(lambda: time.sleep(60))
    assert other.pid is not None
    tracker = Tracker(home)
    parent = tracker.parent("smoke", 0, {}, "smoke, seed 0")
    first = tracker.child(parent, CHILD)
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=tracker.uri)
    client.set_tag(first, OWNER, str(Owner.of(other.pid)))
    client.update_run(first, status="RUNNING")
    second = tracker.child(parent, replace(CHILD, digest="d2"))
    assert {run.info.run_id for run in runs(home)[1]} == {first, second}
    other.kill()
    other.join()
    assert tracker.child(parent, replace(CHILD, digest="d2")) == second
    assert {run.info.run_id for run in runs(home)[1]} == {second}


def test_a_parent_ends_with_the_last_of_its_processes(home: Path) -> None:
    def open_and_wait() -> None:
        Tracker(home).parent("smoke", 0, {}, "smoke, seed 0")
        (home / "opened").touch()
        time.sleep(60)

    other = started(open_and_wait)
    while not (home / "opened").exists():
        assert other.is_alive()
        time.sleep(0.05)
    logged(home)
    (parent,), _ = runs(home)
    assert parent.info.status == "RUNNING", "the other process works on it"
    other.kill()
    other.join()
    logged(home)
    (parent,), _ = runs(home)
    assert parent.info.status == "FINISHED"


def test_abandoned_runs_are_ended_and_others_are_not(home: Path) -> None:
    killed_at("track.logged", lambda: logged(home))
    tracker = Tracker(home)
    mine = tracker.parent("smoke", 1, {}, "smoke, seed 1")
    assert sorted(tracker.end_abandoned(lambda owner: owner.alive() is False)) == sorted([CHILD.setting, "smoke, seed 0"])
    assert tracker.end_abandoned(lambda owner: owner.alive() is False) == []
    parents, children = runs(home)
    assert {run.info.run_id: run.info.status for run in parents}[mine] == "RUNNING"
    assert sorted(states(parents)) == ["KILLED", "RUNNING"] and states(children) == ["KILLED"]


def test_a_failed_point_and_an_interrupted_sweep(home: Path) -> None:
    tracker = Tracker(home)
    parent = tracker.parent("smoke", 0, {}, f"sweep {SWEEP.run}", "sweep")
    failed = FailedPoint(setting=ROW.name, values={"time_steps": 8}, error="train: no", artefacts={})
    for point in (POINTS[0], failed):
        tracker.child(parent, child_of(point, replace(ORIGIN, point=point.values)))
    tracker.finish_parent(parent, replace(SWEEP, points=(POINTS[0], failed), failed=1))
    (above,), children = runs(home)
    assert above.info.status == "FAILED"
    assert (above.data.metrics["headline/points"], above.data.metrics["headline/failed_points"]) == (2, 1)
    assert sorted(states(children)) == ["FAILED", "FINISHED"]
    tracker.parent("smoke", 0, {}, f"sweep {SWEEP.run}", "sweep")
    tracker.finish_parent(parent, SWEEP, interrupted=True)
    assert states(runs(home)[0]) == ["KILLED"]
    assert {recorded(run)[DIGEST] for run in children} == {recorded(run)[DIGEST] for run in runs(home)[1]}


def test_a_reproduction_and_a_sweep_of_the_same_name_are_two(home: Path) -> None:
    tracker = Tracker(home)
    assert tracker.parent("smoke", 0, {}, "x") != tracker.parent("smoke", 0, {}, "x", "sweep")
    assert tracker.parent("smoke", 0, {}, "x", "sweep") != tracker.parent("smoke", 0, {}, "y", "sweep")


def test_a_failed_setting_is_logged_once(home: Path) -> None:
    tracker = Tracker(home)
    parent = tracker.parent("smoke", 0, {}, "smoke, seed 0")
    failed = child_of(failed_setting(ROW.name, "convert: no"), ORIGIN)
    assert tracker.child(parent, failed) == tracker.child(parent, failed)
    assert tracker.child(parent, replace(failed, digest="another error")) not in {"", failed.digest}
    assert states(runs(home)[1]) == ["FAILED"]


@pytest.fixture
def shared(empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of another machine, which shares the tracking server with ``home``, but no claims."""
    database = tmp_path / "shared.db"
    shutil.copy(empty / "mlflow.db", database)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{database}")
    monkeypatch.setenv("MLFLOW_ARTIFACT_ROOT", str(tmp_path / "artefacts"))
    (tmp_path / "other").mkdir()
    return tmp_path / "other"


def test_parents_that_two_machines_made_at_once_become_one(home: Path, shared: Path) -> None:
    """Each looks before the other has made its own; both then log below the older one, also with the id of the younger."""
    from mlflow import MlflowClient

    here, there = Tracker(home), Tracker(shared)
    first = here.parent("smoke", 0, {}, "smoke, seed 0")
    here.child(first, CHILD)
    client = MlflowClient(tracking_uri=here.uri)
    before = client.get_run(first)
    twin = client.create_run(before.info.experiment_id, tags=dict(before.data.tags), start_time=before.info.start_time + 1)
    other = replace(CHILD, setting="another")
    for child in (CHILD, other):
        again = there.child(first, child)
        client.set_tag(again, PARENT, twin.info.run_id)
    client.update_run(twin.info.run_id, status="RUNNING")
    assert there.parent("smoke", 0, {}, "smoke, seed 0") == first
    assert client.get_run(twin.info.run_id).info.lifecycle_stage == "deleted"
    there.child(twin.info.run_id, replace(CHILD, setting="third"))
    there.finish_parent(twin.info.run_id, run_result(ROW))
    (parent,), children = runs(home)
    assert (parent.info.run_id, parent.info.status) == (first, "FINISHED")
    assert {run.data.tags[PARENT] for run in children} == {first}
    assert sorted(run.info.run_name for run in children) == sorted([CHILD.setting, "another", "third"])


def test_what_a_dead_participant_leaves_is_ended_and_nothing_else(home: Path) -> None:
    """As where a participant on another machine died, of which only its owner is known."""
    from mlflow import MlflowClient

    tracker = Tracker(home)
    parent = tracker.parent("smoke", 0, {}, "smoke, seed 0")
    dead, slow = Owner("another-host", 7, 1), Owner("another-host", 8, 2)
    mine, its, slows = (tracker.child(parent, replace(CHILD, setting=name)) for name in ("mine", "its", "slow's"))
    client = MlflowClient(tracking_uri=tracker.uri)
    client.set_tag(parent, OWNER, f"{Owner.this()} {dead} {slow}")
    for run, owner in ((its, dead), (slows, slow)):
        client.set_tag(run, OWNER, str(owner))
        client.update_run(run, status="RUNNING")
    assert tracker.end_dead(parent, lambda owner: owner == dead) == ["its"]
    assert [client.get_run(run).info.status for run in (mine, its, slows)] == ["FINISHED", "KILLED", "RUNNING"]
    assert client.get_run(parent).data.tags[OWNER] == f"{Owner.this()} {slow}"
    tracker.finish_parent(parent, run_result(ROW))
    assert client.get_run(parent).info.status == "RUNNING", "the slow one still works on it"
    assert tracker.end_dead(parent, lambda owner: owner == slow) == ["slow's", "smoke, seed 0"]
    assert client.get_run(parent).info.status == "FINISHED", "as the one that finished said"


def test_an_interruption_does_not_overwrite_what_another_participant_has_finished(home: Path) -> None:
    from mlflow import MlflowClient

    other = started(lambda: time.sleep(60))
    assert other.pid is not None
    tracker = Tracker(home)
    client = MlflowClient(tracking_uri=tracker.uri)
    for interrupted_first, expected in ((False, "FINISHED"), (True, "KILLED")):
        parent = tracker.parent("smoke", 0, {}, "smoke, seed 0")
        client.set_tag(parent, OWNER, f"{Owner.this()} {Owner.of(other.pid)}")
        tracker.finish_parent(parent, run_result(ROW), interrupted=interrupted_first)
        assert client.get_run(parent).info.status == "RUNNING"
        client.set_tag(parent, OWNER, str(Owner.this()))  # as the other one's finish_parent sees it
        tracker.finish_parent(parent, run_result(failed_setting(ROW.name, "x")), interrupted=True)
        assert client.get_run(parent).info.status == expected
    other.kill()
    other.join()
    logged(home)
    logged(home)
    assert states(runs(home)[0]) == ["FINISHED"]


def test_once_everything_is_settled_nothing_stays_running(home: Path) -> None:
    """Also what a participant on another machine left, whose death nobody can see; its child was logged again by another."""
    from mlflow import MlflowClient

    tracker = Tracker(home)
    client = MlflowClient(tracking_uri=tracker.uri)
    parent = tracker.parent("smoke", 0, {}, "smoke, seed 0")
    client.set_tag(parent, OWNER, f"{Owner.this()} another-host/7/1")
    left = [tracker.child(parent, replace(CHILD, setting=name)) for name in ("again", "lost")]
    for run in left:
        client.set_tag(run, OWNER, "another-host/7/1")
        client.update_run(run, status="RUNNING")
    again = tracker.child(parent, replace(CHILD, setting="again"))
    tracker.finish_parent(parent, run_result(ROW))
    assert client.get_run(parent).info.status == "RUNNING"
    tracker.finish_parent(parent, run_result(ROW), settled=True)
    (above,), children = runs(home)
    assert above.info.status == "FINISHED"
    assert {run.info.run_id: run.info.status for run in children} == {again: "FINISHED", left[1]: "KILLED"}


def test_a_flow_that_raises_leaves_no_parent_running(home: Path) -> None:
    from dynconf_flows.parent_run import ParentRun

    with pytest.raises(ZeroDivisionError), ParentRun.started(home, "smoke", 0, {}, "smoke, seed 0"):
        assert [run.info.status for run in runs(home)[0]] == ["RUNNING"]
        raise ZeroDivisionError
    assert [run.info.status for run in runs(home)[0]] == ["KILLED"]
