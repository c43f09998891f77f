"""Claims on keys, owners of records, and failure points."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import pytest
from postgres import Postgres

from dynconf_core import failing
from dynconf_core.errors import InputError
from dynconf_core.failing import DIE_AT, POINTS, failure_point
from dynconf_core.store.claim import FOLDER, claim, held, held_among, holder
from dynconf_core.store.identity import identity
from dynconf_core.store.owner import Owner
from dynconf_core.store.storage import STORAGE

HOLD = """
import sys, time
from pathlib import Path
from dynconf_core.store.claim import claim
with claim(Path(sys.argv[1]), "key", "holding"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture(params=["file", "storage"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both kinds of locks, one after the other."""
    monkeypatch.delenv(STORAGE, raising=False)
    if request.param == "storage":
        server: Postgres = request.getfixturevalue("postgres")
        monkeypatch.setenv(STORAGE, server.url())
    return str(request.param)


@pytest.fixture
def server(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> Postgres:
    """The server, with claims in it."""
    monkeypatch.setenv(STORAGE, postgres.url())
    return postgres


def held_by_another(home: Path) -> "subprocess.Popen[str]":
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(home)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_a_claim_is_held_by_one_thread_at_a_time_and_leaves_nothing(tmp_path: Path, kind: str) -> None:
    inside, most = 0, 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(25 if kind == "file" else 5):
            with claim(tmp_path, "key", "counting", lambda who: None):
                inside += 1
                most = max(most, inside)
                time.sleep(0.001)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert list((tmp_path / FOLDER).iterdir()) == [] and not held(tmp_path, "key")


def test_who_waits_is_told_for_whom_and_takes_over_once_the_holder_is_killed(tmp_path: Path, kind: str) -> None:
    process = held_by_another(tmp_path)
    told: list[str] = []
    assert held(tmp_path, "key") and not held(tmp_path, "another")

    def waiting(who: str) -> None:
        told.append(who)
        if len(told) == 3:
            process.kill()

    begin = time.monotonic()
    with claim(tmp_path, "key", "taking over", waiting):
        assert time.monotonic() - begin < 5
        assert held(tmp_path, "key")
        assert [note.name for note in (tmp_path / FOLDER).glob("*.json")] == ["key.json"]
    process.wait()
    assert re.fullmatch(rf"process {process.pid} on {Owner.this().host} \(holding\), since \d\d:\d\d", told[0])
    assert not held(tmp_path, "key")


def test_a_claim_of_another_day_says_which(tmp_path: Path) -> None:
    with claim(tmp_path, "key", "a long training"):
        noon = datetime(2024, 2, 29, 12, 5).timestamp()
        os.utime(tmp_path / FOLDER / "key.json", (noon, noon))
        assert str(holder(tmp_path, "key")).endswith("(a long training), since 2024-02-29 12:05")


def test_an_exception_ends_the_wait(tmp_path: Path, kind: str) -> None:
    process = held_by_another(tmp_path)

    def stop(who: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), claim(tmp_path, "key", "never", stop):
        raise AssertionError("the claim is held by another process")
    assert holder(tmp_path, "key") is not None and held(tmp_path, "key")
    process.kill()
    process.wait()


def test_looking_at_a_claim_does_not_disturb_it(tmp_path: Path, kind: str) -> None:
    with claim(tmp_path, "key", "holding"):
        for _ in range(3):
            assert held(tmp_path, "key") and held_among(tmp_path, ["key", "other"]) == {"key"}
    assert not held(tmp_path, "key")
    assert list((tmp_path / FOLDER).iterdir()) == []
    assert not held(tmp_path / "nowhere", "key") and not (tmp_path / "nowhere").exists()


def test_a_home_at_two_paths_is_one_home(tmp_path: Path, kind: str) -> None:
    """A lock in the storage would otherwise let both in: machines may mount the home at different places."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").symlink_to("a", target_is_directory=True)
    with claim(tmp_path / "a", "key", "holding"):
        assert held(tmp_path / "b", "key")
        assert holder(tmp_path / "b", "key") == holder(tmp_path / "a", "key")
        with pytest.raises(InterruptedError), claim(tmp_path / "b", "key", "never", interrupted):
            pass
        with claim(tmp_path / "c", "key", "another home", interrupted):
            assert held(tmp_path / "c", "key")


def interrupted(who: str) -> None:
    raise InterruptedError(who)


def test_a_home_is_named_once_by_all_that_ask_at_the_same_time(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: identity(tmp_path), range(32)))
    assert len(found) == 1 and identity(tmp_path) in found and identity(tmp_path / "other") not in found
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    next((tmp_path / "identity").iterdir()).write_text("")
    with pytest.raises(InputError, match="is damaged: remove the folder"):
        identity(tmp_path)


def test_a_holder_goes_on_without_the_server_and_who_waits_takes_over(tmp_path: Path, server: Postgres) -> None:
    waits, taken, finish = threading.Event(), threading.Event(), threading.Event()

    def waiter() -> None:
        with claim(tmp_path, "key", "taking over", lambda who: waits.set()):
            taken.set()
            finish.wait(30)

    thread = threading.Thread(target=waiter)
    with claim(tmp_path, "key", "holding"):
        thread.start()
        assert waits.wait(30)
        server.query("select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and granted")
        assert taken.wait(30), "the server gave the lock to the next"
    assert held(tmp_path, "key") and "(taking over)" in str(holder(tmp_path, "key"))
    finish.set()
    thread.join(30)
    assert not held(tmp_path, "key") and list((tmp_path / FOLDER).iterdir()) == []


def test_who_waits_survives_a_restart_of_the_server(tmp_path: Path, server: Postgres) -> None:
    told: list[str] = []
    process = held_by_another(tmp_path)

    def waiting(who: str) -> None:
        told.append(who)
        if len(told) == 1:
            server.stop()
            server.start()

    with claim(tmp_path, "key", "waiting", waiting):
        assert process.poll() is None, "its work goes on, although its lock ended with the connection"
        assert str(holder(tmp_path, "key")).startswith(f"process {os.getpid()} ")
    process.kill()
    process.wait()


def test_a_storage_that_does_not_answer_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STORAGE, "postgresql://anna:s3cret@127.0.0.1:1/points")
    with pytest.raises(InputError, match=r"anna@127\.0\.0\.1:1/points") as refused, claim(tmp_path, "key", "nothing"):
        pass
    assert "s3cret" not in str(refused.value)


def test_claims_in_the_storage_are_not_taken_for_abandoned_without_it(
    tmp_path: Path, server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shell in which the variable is not set sees the note, and whether its process lives."""
    process = held_by_another(tmp_path)
    monkeypatch.delenv(STORAGE)
    assert held(tmp_path, "key")
    process.kill()
    process.wait()
    assert not held(tmp_path, "key")
    note = tmp_path / FOLDER / "key.json"
    note.write_text(note.read_text().replace(Owner.this().host, "another-host"))
    assert held(tmp_path, "key"), "it cannot be judged from here"


def test_the_password_is_in_no_file_of_the_home(tmp_path: Path, server: Postgres) -> None:
    with claim(tmp_path, "key", "holding"):
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert len(files) == 2 and not any("secret" in path.read_text() for path in files)
        ((name,),) = server.query("select application_name from pg_stat_activity where application_name like 'dynconf %'")
        assert name == f"dynconf {Owner.this().host}/{os.getpid()}"[:63]


def test_a_home_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / FOLDER).write_text("a file where the folder belongs")
    with pytest.raises(InputError, match="cannot be written"), claim(tmp_path, "key", "nothing"):
        pass


def test_an_owner_is_alive_until_its_process_ends_and_no_other_process_is_taken_for_it(tmp_path: Path) -> None:
    process = held_by_another(tmp_path)
    owner = Owner.of(process.pid)
    assert owner.alive() is True
    assert Owner(owner.host, owner.pid, owner.started - 60).alive() is False
    assert Owner("elsewhere", owner.pid, owner.started).alive() is None
    process.kill()
    time.sleep(0.2)
    assert owner.alive() is False, "killed, and not yet waited for"
    process.wait()
    assert owner.alive() is False
    assert Owner.parse(str(owner)) == owner
    assert [Owner.parse(text) for text in ("", "host", "host/1", "host/a/1", "host/1/2/3", "/1/2")] == [None] * 6


def test_a_failure_point_calls_the_hook_and_kills_a_child_on_its_count() -> None:
    seen: list[str] = []
    with failing.failing(seen.append):
        failure_point("store.files")
    failure_point("store.files")
    assert seen == ["store.files"]
    code = "from dynconf_core.failing import failure_point as f\nfor n in range(5): print(n, flush=True); f('search.trial')"
    environment = {**os.environ, DIE_AT: "search.trial:3"}
    died = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert (died.returncode, died.stdout.split()) == (-signal.SIGKILL, ["0", "1", "2"])


def test_every_failure_point_in_the_code_is_listed() -> None:
    root = Path(failing.__file__).parents[1]
    files = [path for folder in ("dynconf_core", "tasks", "flows") for path in (root / folder).rglob("*.py")]
    used = {name for path in files for name in re.findall(r'failure_point\("([^"]+)"\)', path.read_text())}
    assert used == set(POINTS)
