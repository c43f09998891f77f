"""MLflow's database in the home: made by one, whole or not at all; set aside when damaged; at home where the home is."""

import logging
import os
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from processes import ended, killed_at, started
from result_cases import run_result, setting_result

from dynconf_core.files import set_aside
from dynconf_core.results.types import SettingResult
from dynconf_tasks import databases
from dynconf_tasks.tracking.database import tracking_uri
from dynconf_tasks.tracking.logged import Child, Origin, child_of
from dynconf_tasks.tracking.tracker import Tracker, TrackingUnavailable

ROW = setting_result()


@pytest.fixture(autouse=True)
def without_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="module", autouse=True)
def imported() -> None:
    """Importing MLflow takes seconds; the processes started here inherit it."""
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401


@pytest.fixture(scope="module")
def logged_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a reproduction, to be copied; making the database takes seconds."""
    before = os.environ.pop("MLFLOW_TRACKING_URI", None)
    home = tmp_path_factory.mktemp("a home, 50% #1? [red]")
    log(home, 0)
    if before is not None:
        os.environ["MLFLOW_TRACKING_URI"] = before
    return home


@pytest.fixture
def home(logged_home: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(logged_home, tmp_path / "home"))


def client(home: Path) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=tracking_uri(home))


def child(row: SettingResult, folder: Path) -> Child:
    file = folder / "rule.json"
    file.write_text("{}")
    return replace(child_of(row, Origin(Path("nowhere"), "smoke", 0)), files=(file,))


def log(home: Path, seed: int) -> str:
    """Log a reproduction of one setting; returns the run of the setting."""
    tracker = Tracker(home)
    parent = tracker.parent("smoke", seed, {}, f"seed {seed}")
    made = tracker.child(parent, child(ROW, home))
    tracker.finish_parent(parent, run_result(ROW))
    return made


def runs(home: Path) -> list[Any]:
    experiment = client(home).get_experiment_by_name("dynconf-smoke")
    return list(client(home).search_runs([experiment.experiment_id])) if experiment else []


def aside(home: Path) -> list[str]:
    """The databases set aside, without the files beside them."""
    return [path.name for path in home.glob("mlflow.db.damaged-*") if not path.name.endswith(databases.SIDECARS)]


def test_what_sqlite_keeps_beside_a_database_goes_with_it(tmp_path: Path) -> None:
    """A new database would be changed by the journal of an old one."""
    for ending in ("", "-journal", "-wal", "-shm"):
        (tmp_path / f"mlflow.db{ending}").write_text(ending)
    name = set_aside(tmp_path / "mlflow.db", databases.SIDECARS).name
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        f"{name}{ending}": ending for ending in ("", "-journal", "-wal", "-shm")
    }


def test_a_process_killed_while_it_makes_the_database_leaves_nothing_that_hurts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """At some moment, and at the last; then four processes at once on the home: each of them logs."""
    process = started(lambda: Tracker(tmp_path))
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".mlflow.db.new*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    process.kill()
    assert ended(process) == -signal.SIGKILL and not (tmp_path / "mlflow.db").exists()
    killed_at("mlflow.made", lambda: Tracker(tmp_path))
    assert not (tmp_path / "mlflow.db").exists() and (tmp_path / ".mlflow.db.new").is_file()
    four = [started(lambda seed=seed: log(tmp_path, seed)) for seed in range(4)]  # type: ignore[misc]
    assert [ended(one) for one in four] == [0, 0, 0, 0]
    assert sorted(run.info.status for run in runs(tmp_path)) == ["FINISHED"] * 8
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"mlflow.db", "mlartifacts", "claims", "rule.json"} and not caplog.records


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def overwritten(path: Path) -> None:
    path.write_bytes(b"not a database " * 999)


def truncated(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def scribbled(path: Path) -> None:
    """Damage the pages of one table, the first page of the file excepted."""
    with path.open("r+b") as file:
        for page in range(8, path.stat().st_size // 4096):
            file.seek(page * 4096)
            file.write(b"\xff" * 100)


def without_runs(path: Path) -> None:
    """As after a death in the middle of the migrations."""
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("DELETE FROM runs")
        database.execute("DROP TABLE trace_info")
        database.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")


def without_tables(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE experiments (name TEXT)")


@pytest.mark.parametrize("damage", [emptied, overwritten, truncated, scribbled, without_runs, without_tables])
def test_a_damaged_database_is_set_aside(damage: Callable[[Path], None], home: Path, caplog: pytest.LogCaptureFixture) -> None:
    damage(home / "mlflow.db")
    with caplog.at_level(logging.WARNING):
        log(home, 1)
    (name,) = aside(home)
    (warning,) = [record.getMessage() for record in caplog.records if record.name.startswith("dynconf")]
    assert name in warning and str(home / "mlflow.db") in warning
    assert [run.info.status for run in runs(home)] == ["FINISHED", "FINISHED"]


def test_a_database_of_another_version_with_runs_is_left_alone(home: Path) -> None:
    with closing(sqlite3.connect(home / "mlflow.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
    with pytest.raises(TrackingUnavailable, match=r"another version of MLflow.*mlflow db upgrade"):
        Tracker(home)
    assert not aside(home)
    with closing(sqlite3.connect(home / "mlflow.db")) as database:
        assert database.execute("SELECT count(*) FROM runs").fetchone() == (2,)


def test_a_database_that_another_process_has_locked_is_left_alone(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(databases, "BUSY", 0.3)
    start = time.monotonic()
    with closing(sqlite3.connect(home / "mlflow.db", isolation_level=None)) as other:
        for kind in ("IMMEDIATE", "EXCLUSIVE"):
            other.execute(f"BEGIN {kind}")
            with pytest.raises(TrackingUnavailable, match=r"locked.*dynconf resend --home"):
                Tracker(home)
            other.execute("ROLLBACK")
    assert time.monotonic() - start < 5 and not aside(home) and not caplog.records
    log(home, 1)


@pytest.mark.parametrize("kept", [True, False])
def test_a_copied_home_is_at_home(logged_home: Path, tmp_path: Path, kept: bool) -> None:
    """Whether the old home is still there or not: nothing is written there, and old files are read in the new place."""
    old, new = tmp_path / "old home", tmp_path / "nëw%20home"
    shutil.copytree(logged_home, old)
    first = log(old, 1)
    shutil.copytree(old, new)
    before = sorted(old.rglob("*"))
    if not kept:
        shutil.rmtree(old)
    second = log(new, 2)
    assert sorted(old.rglob("*")) == (before if kept else [])
    for run in (first, second):
        place = Path(client(new).download_artifacts(run, "rule.json", str(tmp_path)))
        assert place.read_text() == "{}"
        assert client(new).get_run(run).info.artifact_uri.startswith((new / "mlartifacts").as_uri() + "/")
    assert len(list((new / "mlartifacts").rglob("rule.json"))) == 3


def test_a_home_under_another_name_keeps_its_locations(home: Path, tmp_path: Path) -> None:
    log(home, 1)
    before = {run.info.artifact_uri for run in runs(home)}
    (tmp_path / "link").symlink_to(home)
    log(tmp_path / "link", 2)
    assert before < {run.info.artifact_uri for run in runs(home)}
    assert all(run.info.artifact_uri.startswith(home.as_uri()) for run in runs(home))
