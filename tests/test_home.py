"""What runs in a home, what is stale, and what killed processes left; the commands status and verify."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from commands import Command, command
from homes import CLAIMING, RUNNING, aged, odd, process

from dynconf_core.home.claims import abandoned, claims, held
from dynconf_core.home.leftovers import leftovers, remove
from dynconf_core.home.running import ended, note_progress, running, runs, stale
from dynconf_core.home.sizes import size_of, size_text, sizes
from dynconf_core.store.claim import claim
from dynconf_core.store.owner import Owner
from dynconf_tasks.listening import Counted, observer, tell

ELSEWHERE = {"owner": "another-host/17/1700000000", "command": "reproduce elsewhere", "since": "then", "results": None}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def dynconf(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    monkeypatch.setenv("DYNCONF_HOME", str(home))
    return command(monkeypatch, capsys)


def elsewhere(home: Path) -> Path:
    """A running file of another host."""
    file = home / "running" / "another-host-17-0.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(ELSEWHERE))
    return file


def test_a_run_is_shown_while_it_lasts(home: Path) -> None:
    assert runs(home) == []
    with running(home, "reproduce", home / "results" / "x"):
        (run,) = runs(home)
        assert (run.owner, run.command, run.results) == (Owner.this(), "reproduce", str(home / "results" / "x"))
        assert abs(run.began - time.time()) < 60 and stale(home) == []
        with running(home, "setting"):
            assert [one.command for one in runs(home)] == ["reproduce"], "one process, one file"
        assert len(runs(home)) == 1
    assert runs(home) == [] and list((home / "running").iterdir()) == []


def test_a_run_that_fails_is_not_shown_any_more(home: Path) -> None:
    with pytest.raises(ZeroDivisionError), running(home, "reproduce"):
        raise ZeroDivisionError
    assert runs(home) == []


def test_a_home_that_cannot_be_written_does_not_stop_a_run(home: Path) -> None:
    home.write_text("a file")
    with running(home, "reproduce"):
        pass
    assert home.read_text() == "a file"


def test_a_killed_run_is_stale_and_one_of_another_host_is_not(home: Path) -> None:
    with process(RUNNING, home) as started:
        elsewhere(home)
        assert stale(home) == []
        started.kill()
        started.wait()
        (run,) = stale(home)
        assert run.owner is not None and run.owner.pid == started.pid and run.command == "reproduce of a test"
    assert [one.command for one in runs(home)].count("reproduce elsewhere") == 1


def test_another_process_with_the_same_number_is_not_the_owner() -> None:
    this = Owner.this()
    assert not ended(this) and not ended(Owner("another-host", this.pid, 0))
    assert ended(Owner(this.host, this.pid, this.started - 3600))


def test_a_process_of_another_container_is_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have the host's name, and its process ids mean nothing here."""
    here = Owner.this()
    with process("") as started:
        real = os.readlink
        namespace = "pid:[4026539999]"
        monkeypatch.setattr(os, "readlink", lambda path: namespace if path == "/proc/self/ns/pid" else real(path))
        within = Owner.of(started.pid)
        assert within.host == f"{here.host}+4026539999" and within.alive() and Owner.parse(str(within)) == within
        assert here.alive() is None
        monkeypatch.undo()
        assert within.alive() is None and here.alive()
        started.kill()
        started.wait()
    assert within.alive() is None


def test_the_start_of_a_process_is_counted_from_the_boot() -> None:
    """A clock that is set anew while a run lasts must not make its process another one."""
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    with process("") as started:
        since_boot = Owner.of(started.pid).started / os.sysconf("SC_CLK_TCK")
    assert 0 <= since_boot - uptime < 60


def test_a_damaged_running_file_is_stale(home: Path) -> None:
    elsewhere(home).write_text("{")
    assert [run.owner for run in stale(home)] == [None]


def test_claims_show_who_holds_and_who_waits(home: Path) -> None:
    waited = threading.Event()
    with process(CLAIMING, home, "k" * 64) as started:

        def wait() -> None:
            with claim(home, "k" * 64, "the same", lambda holder: waited.set()):
                pass

        thread = threading.Thread(target=wait)
        thread.start()
        assert waited.wait(20)
        (one,) = claims(home)
        assert one.owner is not None and one.owner.pid == started.pid
        assert (one.name, one.what, one.held) == ("k" * 64, "train of a test", True)
        assert one.waiting == (Owner.this(),)
        assert held(home) == {"k" * 64} and abandoned(home, ended) == []
        started.kill()
        thread.join(20)
        assert not thread.is_alive()
    assert claims(home) == [] and list((home / "claims").iterdir()) == []


def test_a_killed_holder_leaves_an_abandoned_claim(home: Path) -> None:
    with process(CLAIMING, home, "k" * 64) as started:
        started.kill()
        started.wait()
    (one,) = claims(home)
    assert not one.held and held(home) == set()
    found = abandoned(home, ended)
    assert {path.name for path in found} == {f"{'k' * 64}.lock", f"{'k' * 64}.json"}
    with claim(home, "k" * 64, "taken over"):
        assert not any(remove(path) for path in found)
        assert held(home) == {"k" * 64} and claims(home)[0].what == "taken over"
    assert claims(home) == []


TEMPORARY = (
    "results/run/.results.json-1234",
    "results/.latest-1234",
    "results/run/.results.json.host-12-0a1b2c3d.tmp",
    "work/key/.epoch.pt.1234",
    "work/key/.epoch.pt.0123456789abcdef",
    "sweeps/grid/.results.csv-99",
    "running/.host-12-0a1b2c3d.json",
    ".writable-x_1yz2ab",
    ".clock-x_1yz2ab",
)
KEPT = ("results/run/results.json", "work/key/epoch.pt", ".gitignore", "results/run/.DS_Store", "data/.x-1234", "mlflow.db")


def test_temporary_files_of_dead_processes_are_left_over(home: Path) -> None:
    for name in (*TEMPORARY, *KEPT):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text("x")
        aged(home / name, 1 / 24)
    (home / "results" / "latest").symlink_to("run", target_is_directory=True)
    (home / "results" / "empty").mkdir()
    found = {str(path.relative_to(home)) for path in leftovers(home)}
    assert found == set(TEMPORARY), "a folder without results is young"
    aged(home / "results" / "empty", 1)
    assert {str(path.relative_to(home)) for path in leftovers(home)} == {*TEMPORARY, "results/empty"}
    with running(home, "a run that began after them"):
        assert len(leftovers(home)) == len(TEMPORARY) + 1
        for run in runs(home):
            aged(run.file, 2)
        assert leftovers(home) == [], "the run may be writing them"
    assert all(remove(path) for path in leftovers(home))
    assert leftovers(home) == [] and all((home / name).is_file() for name in KEPT)


def test_temporary_folders_of_living_writers_are_none(home: Path) -> None:
    code = """
import sys
from pathlib import Path
from dynconf_core.store.artefacts import Store
from dynconf_core.store.keys import stage_key
writing = Store(Path(sys.argv[1]) / "artefacts").create(stage_key("train", {}, {}, "c0de"), {})
writing.__enter__()
"""
    with process(code, home) as started:
        (folder,) = (home / "artefacts" / ".tmp").iterdir()
        aged(folder, 30)
        assert leftovers(home) == []
        started.kill()
        started.wait()
        assert leftovers(home) == [folder]
    aged(folder, 0)
    assert leftovers(home) == [], "a young one may not be locked yet"


def test_status(home: Path, dynconf: Command) -> None:
    assert dynconf("status").code == 2
    odd(home, "train", 1)
    assert "Nothing runs." in dynconf("status").out
    with process(RUNNING, home) as run, process(CLAIMING, home, "key") as holder:
        file = elsewhere(home)
        answer = dynconf("status")
        assert f"running: reproduce of a test (process {run.pid} on {Owner.this().host}, since " in answer.out
        assert f"at work: train of a test (process {holder.pid} on " in answer.out
        assert "on another host: reproduce elsewhere (process 17 on another-host" in answer.out
        assert "stale" not in answer.out and "Size without data sets: " in answer.out
        for one in (run, holder):
            one.kill()
            one.wait()
        answer = dynconf("status")
        assert "stale: reproduce of a test" in answer.out and "stale: claim on train of a test" in answer.out
        assert f"dynconf reconcile --home {home}" in answer.out and "running:" not in answer.out
        content = json.loads(dynconf("status", "--json").out)
        assert {entry["command"]: entry["state"] for entry in content["runs"]} == {
            "reproduce of a test": "ended",
            "reproduce elsewhere": "on another host",
        }
        assert content["schema"] == 2 and content["sizes"]["artefacts"] > 0
        assert [(entry["name"], entry["state"]) for entry in content["claims"]] == [("key", "ended")]
    assert file.is_file()


def test_status_shows_how_far_a_run_is(home: Path, dynconf: Command) -> None:
    with running(home, "dynconf sweep"):
        (before,) = runs(home)
        tell(Counted(12, 5, 2, 0))
        stage = observer("cifar10-vgg16-qffs time_steps=4", "collect_test")
        stage.started()
        stage(30, 60, "497 of 994 images")
        observer("other", "train").finished("cached", 0.0)
        (run,) = runs(home)
        assert run.began == before.began, "a run began once, however often it says how far it is"
        text = dynconf("status").out
        assert "5 of 12 done, 2 of them by others" in text and "time_steps=4 collect test" in text and "other" not in text[300:]
        (entry,) = json.loads(dynconf("status", "--json").out)["runs"]
        under_way = [one["stage"] for one in entry["progress"]["stages"] if one["name"] == "cifar10-vgg16-qffs time_steps=4"]
        assert (entry["progress"]["points"], under_way) == (12, ["collect_test"])
        stage.finished("ran", 1.0)
        assert "collect test" not in dynconf("status").out
        note_progress({"points": 3, "done": 1, "at": "2026-01-01T00:00:00Z", "stages": []})
        assert "it said so" in dynconf("status").out, "as a run that hangs, or of another host, does"
    assert runs(home) == []


@pytest.mark.parametrize("progress", [7, {"points": "x", "stages": [{}, 3]}, {"stages": "none", "at": [1]}])
def test_what_a_stranger_writes_as_progress_does_no_harm(home: Path, dynconf: Command, progress: object) -> None:
    elsewhere(home).write_text(json.dumps({**ELSEWHERE, "progress": progress}))
    assert "reproduce elsewhere" in dynconf("status").out


def test_status_is_quick(home: Path) -> None:
    odd(home, "train", 1)
    code = (
        "import sys; sys.argv = ['dynconf', 'status', '--json']\n"
        "from dynconf_flows.command.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'prefect', 'mlflow', 'optuna'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, "DYNCONF_HOME": str(home)}
    )
    assert json.loads(done.stdout)["runs"] == [] and done.stderr.strip() == "[]"


def test_sizes(home: Path, tmp_path: Path) -> None:
    (home / "a" / "b").mkdir(parents=True)
    (home / "a" / "b" / "c").write_bytes(bytes(1000))
    (home / "mlflow.db").write_bytes(bytes(10))
    (home / "data").mkdir()
    (home / "data" / "large").write_bytes(bytes(5000))
    (home / "a" / "link").symlink_to(home / "data")
    link = (home / "a" / "link").lstat().st_size
    assert sizes(home) == {"a": 1000 + link, "mlflow.db": 10} and size_of(home / "nothing") == 0
    assert [size_text(size) for size in (0, 999, 1000, 2_340_000, 5 * 10**12)] == [
        "0 bytes",
        "999 bytes",
        "1.0 kB",
        "2.3 MB",
        "5.0 TB",
    ]


def test_verify(home: Path, dynconf: Command) -> None:
    assert dynconf("verify").code == 2
    made = [odd(home, "train", number) for number in range(3)]
    answer = dynconf("verify")
    assert answer.code == 0 and "3 artefacts, " in answer.out and "all whole" in answer.out
    (made[1].folder / "file").write_text("TRAIN 1")
    answer = dynconf("verify")
    assert answer.code == 1 and f"damaged: {made[1].folder / 'file'} does not have the sha256" in answer.out
    (made[2].folder / "manifest.json").unlink()
    answer = dynconf("verify", "--json")
    content = json.loads(answer.out)
    assert (answer.code, content["artefacts"], len(content["damaged"])) == (1, 3, 2) and content["size"] > 0
    assert [entry["path"] for entry in content["damaged"]] == sorted(str(one.folder) for one in made[1:])
