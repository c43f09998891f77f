"""A home that several machines share: writers on other machines, clocks that differ, and the home at different paths."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from homes import DAY, HOUR, RUNNING, odd, process, used
from postgres import Postgres
from stage_cases import tiny_job

from dynconf_core.experiment.job import Handle
from dynconf_core.files import set_aside, write_text, written
from dynconf_core.home import state
from dynconf_core.home.leftovers import leftovers
from dynconf_core.home.mounts import local_locks
from dynconf_core.home.rubbish import rubbish
from dynconf_core.home.running import ended, runs
from dynconf_core.home.state import state_of
from dynconf_core.store import clock, writer
from dynconf_core.store.artefacts import Store
from dynconf_core.store.keys import stage_key
from dynconf_core.store.owner import Owner
from dynconf_core.store.storage import STORAGE
from dynconf_flows.command.status import lines
from dynconf_tasks.listening import Listener
from dynconf_tasks.stage import run


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture(params=[-2 * HOUR, 2 * HOUR], ids=["behind", "ahead"])
def wrong_clock(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine's clock is two hours off that of the file system."""
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + request.param)


def silent(path: Path, seconds: float) -> None:
    """Let a file or folder have been changed last so many seconds ago by the clock of its file system."""
    os.utime(path, (clock.now(path.parent) - seconds,) * 2)


@contextmanager
def being_written(home: Path, number: int = 0) -> Iterator[Path]:
    """The temporary folder of an artefact that this process writes."""
    folder = home / "artefacts" / ".tmp"
    before = set(folder.glob("*"))
    with Store(home / "artefacts").create(stage_key("train", {"number": number}, {}, "c0de"), {}) as files:
        (files / "weights").write_text("w")
        (new,) = set(folder.glob("*")) - before
        yield new


def written_elsewhere(home: Path) -> Path:
    """The temporary folder of an artefact that another machine writes; its lock is not seen here."""
    with being_written(home) as folder:
        place = Path(shutil.copytree(folder, folder.with_name("train-another-host-x")))
    note = place / writer.FILE
    assert Owner.parse(note.read_text()) == Owner.this()
    note.write_text(note.read_text().replace(Owner.this().host, "another-host"))
    return place


def test_a_writer_on_another_machine_is_not_swept_while_it_gives_signs_of_life(home: Path) -> None:
    place = written_elsewhere(home)
    for hours in (0, 1, 5):
        silent(place, hours * HOUR)
        with being_written(home, hours):
            assert place.is_dir()
        assert leftovers(home) == []
    assert leftovers(home, lambda owner: owner.host == "another-host") == [place], "it is said to be gone"
    silent(place, 7 * HOUR)
    assert leftovers(home) == [place]
    with being_written(home, 7):
        assert not place.exists()


def test_a_writer_gives_signs_of_life(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "BEAT", 0.02)
    with being_written(home) as folder:
        silent(folder, 30 * DAY)
        limit = time.monotonic() + 10
        while clock.now(folder) - folder.stat().st_mtime > 60:
            assert time.monotonic() < limit
            time.sleep(0.01)


@pytest.mark.usefixtures("wrong_clock")
def test_a_wrong_clock_lets_nothing_young_look_old(home: Path) -> None:
    young, old = odd(home, "train", 1), odd(home, "train", 2)
    used(old, 8 + 2 * HOUR / DAY)
    silent(old.folder / "manifest.json", 8 * DAY)
    (home / "work" / "key").mkdir(parents=True)
    for path, seconds in ((home / ".a-1234", 0), (home / ".b-1234", HOUR), (home / "work" / "key", 6.95 * DAY)):
        path.touch()
        silent(path, seconds)
    place = written_elsewhere(home)
    unnamed = place.with_name("its-writer-has-just-begun")
    unnamed.mkdir()
    assert leftovers(home) == [home / ".b-1234"]
    found = {item.path: item.why for item in rubbish(home, 7)}
    assert found.keys() == {old.folder, home / ".b-1234"} and "8 days ago" in found[old.folder]
    with being_written(home, 1):
        assert place.is_dir() and unnamed.is_dir() and Store(home / "artefacts").get(young.key) is not None


@pytest.mark.usefixtures("wrong_clock")
def test_a_run_with_a_wrong_clock_keeps_what_it_writes(home: Path) -> None:
    with process(RUNNING, home):
        (home / ".a-1234").touch()
        (run,) = runs(home)
        assert abs(run.began - clock.now(home)) < 60 and not ended(run.owner or Owner.this())
        assert leftovers(home, grace=0) == []


def makes_once(home: Path, log: Path) -> None:
    """Run a stage that takes a while; what it does when it is made goes to the log."""

    def write(folder: Path, work: Path, listener: Listener) -> dict[str, object]:
        with log.open("a") as stream:
            stream.write(f"{home.name}\n")
        time.sleep(0.3)
        (folder / "checkpoint.pt").write_text("trained")
        return {}

    returned = run("train", tiny_job(home), {}, write)
    found: Handle = returned if isinstance(returned, Handle) else returned.result()
    assert tiny_job(home).context.file(found, "checkpoint.pt").read_text() == "trained"


def test_machines_that_see_the_home_at_other_paths_make_a_stage_once(
    tmp_path: Path, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abc":
        (tmp_path / name).symlink_to("home", target_is_directory=True)
    (tmp_path / "home").mkdir()
    monkeypatch.setenv(STORAGE, postgres.url())
    with ThreadPoolExecutor(3) as pool:
        for made in [pool.submit(makes_once, tmp_path / name, tmp_path / "log") for name in "abc"]:
            made.result(60)
    assert len((tmp_path / "log").read_text().splitlines()) == 1
    assert list((tmp_path / "home" / "claims").iterdir()) == []


def test_a_stage_is_finished_after_its_claim_was_lost(
    home: Path, tmp_path: Path, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process then makes it too, and both have the artefact of the one that was faster."""
    monkeypatch.setenv(STORAGE, postgres.url())
    begun, go_on = threading.Event(), threading.Event()

    def made(text: str, wait: bool) -> Handle:
        def write(folder: Path, work: Path, listener: Listener) -> dict[str, object]:
            write_text(work / "epoch.pt", text)
            if wait:
                begun.set()
                assert go_on.wait(30)
            write_text(work / "epoch.pt", text)
            (folder / "checkpoint.pt").write_text(text)
            return {}

        returned = run("train", tiny_job(home), {}, write)
        return returned if isinstance(returned, Handle) else returned.result()

    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(made, "slow", True)
        assert begun.wait(30)
        postgres.query("select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and granted")
        fast = made("fast", False)
        go_on.set()
        assert slow.result(30) == fast
    assert tiny_job(home).context.file(fast, "checkpoint.pt").read_text() == "fast"
    assert list((home / "work").iterdir()) == list((home / "artefacts" / ".tmp").iterdir()) == []


@pytest.mark.parametrize(
    ("mount", "told"),
    [
        ("nfs4 server:/home rw,vers=4.2,local_lock=none,addr=10.0.0.1", None),
        ("nfs server:/home rw,vers=3,local_lock=none", None),
        ("nfs server:/home rw,vers=3,nolock,local_lock=all", "NFS mounted with nolock"),
        ("nfs server:/home rw,vers=3,local_lock=flock", "NFS mounted with local_lock=flock"),
        ("lustre 10.0.0.1@tcp:/home rw,flock,lazystatfs", None),
        ("lustre 10.0.0.1@tcp:/home rw,localflock", "Lustre mounted with localflock"),
        ("lustre 10.0.0.1@tcp:/home rw,lazystatfs", "Lustre mounted without flock"),
        ("ext4 /dev/sda1 rw,nolock", None),
    ],
)
def test_mounts_with_local_locks_are_told(mount: str, told: str | None, tmp_path: Path) -> None:
    at = os.stat(tmp_path).st_dev
    other = "31 1 0:999 / /scratch rw - nfs server:/scratch rw,nolock\n"
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"{other}36 1 {os.major(at)}:{os.minor(at)} / /home rw,noatime shared:1 - {mount}\n")
    assert local_locks(tmp_path, mounts) == told
    mounts.write_text(other + "broken\n")
    assert local_locks(tmp_path, mounts) is local_locks(tmp_path, tmp_path / "none") is None


def test_the_status_tells_of_local_locks_unless_claims_are_in_the_storage(
    home: Path, monkeypatch: pytest.MonkeyPatch, postgres: Postgres
) -> None:
    home.mkdir()
    assert state_of(home).local_locks is None
    monkeypatch.setattr(state, "local_locks", lambda home: "NFS mounted with nolock")
    found = state_of(home)
    assert any("NFS mounted with nolock" in line for line in lines(found)) and found.to_json()["local_locks"]
    monkeypatch.setenv(STORAGE, postgres.url())
    assert state_of(home).local_locks is None


def test_temporary_names_name_their_machine(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two machines may have processes of the same number."""
    names = []
    for host in ("one", "two"):
        monkeypatch.setattr("socket.gethostname", lambda host=host: host)
        with being_written(home) as folder, written(home / "file") as stream:
            names.append(folder.name)
            names += [path.name for path in home.iterdir() if path.name.startswith(".")]
            stream.write(b"x")
        names.append(set_aside(home / "file").name)
    assert [("one" in name, "two" in name) for name in names] == [(True, False)] * 3 + [(False, True)] * 3


def test_the_clock_of_a_folder_that_cannot_be_written_is_this_machine_s(tmp_path: Path) -> None:
    assert abs(clock.now(tmp_path / "nowhere") - time.time()) < 60
    assert abs(clock.now(tmp_path) - time.time()) < 60 and list(tmp_path.iterdir()) == []
