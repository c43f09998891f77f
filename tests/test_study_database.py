"""Studies in PostgreSQL: heartbeats tell who lives, the server may go away for a while, and other homes are not in the way."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from postgres import Postgres

from dynconf_core.errors import InputError
from dynconf_core.store.owner import Owner
from dynconf_core.store.storage import STORAGE
from dynconf_tasks.study.points import Listed
from dynconf_tasks.study.shared import Code, SharedStudy
from dynconf_tasks.study.storage import GRACE, HEARTBEAT, heartbeat, studies

COUNT = 4


@pytest.fixture
def storage(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> Postgres:
    """The storage, in a database that all tests here share, as homes do."""
    monkeypatch.setenv(STORAGE, postgres.url())
    monkeypatch.setenv(HEARTBEAT, "1s")
    monkeypatch.setenv(GRACE, "3s")
    return postgres


def shared(home: Path, **options: Any) -> SharedStudy:
    points = Listed([{"n": number} for number in range(COUNT)])
    return SharedStudy(home, "a", points, Code("1.0", "abc"), lambda: "run", **options)


def test_the_point_of_a_silent_participant_is_taken_again_and_that_of_a_live_one_is_not(
    storage: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Owner, "this", lambda: Owner("another-host", 7, 7))
        patch.setenv(HEARTBEAT, "100s")
        patch.setenv(GRACE, "5m")
        silent = shared(tmp_path).__enter__()
        assert silent.take() is not None
        patch.setenv(HEARTBEAT, "1s")
        slow = shared(tmp_path).__enter__()
        assert slow.take() is not None
    with shared(tmp_path) as study:
        assert [point.condition for point in study.state()] == ["running", "running", "free", "free"]
        end = time.monotonic() + 20
        while study.state()[0].condition == "running":
            assert time.monotonic() < end, "no heartbeat, and it still counts as alive"
            time.sleep(0.3)
        assert [point.condition for point in study.state()] == ["free", "running", "free", "free"]
        assert [by.owner.host for by in study.dead] == ["another-host"]
        taken = study.take()
        assert taken is not None and (taken.index, taken.attempt) == (0, 2)
    for other in (silent, slow):
        other.__exit__()


def test_points_are_done_by_several_and_the_study_is_found_again(storage: Postgres, tmp_path: Path) -> None:
    done: list[int] = []

    def work() -> None:
        with shared(tmp_path, join=True) as study:
            while (taken := study.take()) is not None:
                done.append(taken.index)
                study.done(taken, [{"n": taken.index}], [0.5, 1.0])

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == list(range(COUNT))
    assert [name for name, _ in studies(tmp_path)] == ["a"]
    with shared(tmp_path, join=True) as study:
        assert [point.rows for point in study.state()] == [[{"n": number}] for number in range(COUNT)]
    with shared(tmp_path) as study:
        assert [point.condition for point in study.state()] == ["free"] * COUNT, "a command of its own begins anew"


def test_homes_that_share_a_database_do_not_share_studies(storage: Postgres, tmp_path: Path) -> None:
    with shared(tmp_path / "a") as one, shared(tmp_path / "b") as other:
        first, second = one.take(), other.take()
        assert first is not None and second is not None and first.index == second.index == 0


def test_a_server_that_comes_back_ends_nothing(storage: Postgres, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with shared(tmp_path) as study:
        taken = study.take()
        assert taken is not None
        storage.stop()
        started = threading.Timer(1.5, storage.start)
        started.start()
        study.done(taken, [{"n": 0}], [0.5, 1.0])
        started.join()
        assert [point.condition for point in study.state()] == ["done", "free", "free", "free"]
    assert "does not answer; trying again" in caplog.text and "secret" not in caplog.text


@pytest.mark.parametrize(
    ("every", "grace", "told"),
    [("soon", "5m", "DYNCONF_HEARTBEAT soon"), ("60s", "2m", "three heartbeats"), ("0.5s", "5m", "at least 1s")],
)
def test_durations_that_cannot_work_are_refused(monkeypatch: pytest.MonkeyPatch, every: str, grace: str, told: str) -> None:
    monkeypatch.setenv(HEARTBEAT, every)
    monkeypatch.setenv(GRACE, grace)
    with pytest.raises(InputError, match=told):
        heartbeat()
