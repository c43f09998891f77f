"""What nothing reaches is removed, and nothing that is reached, young, claimed or used by a living process."""

import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from commands import Command, command
from homes import CLAIMING, RUNNING, aged, chain, odd, process, used
from result_cases import ENVIRONMENT, failed_setting, run_result

from dynconf_core.errors import InputError
from dynconf_core.failing import failing
from dynconf_core.home.rubbish import Rubbish, remove, rubbish
from dynconf_core.home.running import running, runs
from dynconf_core.home.verification import content
from dynconf_core.results.records import json_text, to_json
from dynconf_core.results.types import FailedPoint, RunResult, SweepResult
from dynconf_core.store.artefacts import Artefact, Store
from dynconf_core.store.claim import claim
from dynconf_core.store.use import undisturbed

OLD = 30


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def dynconf(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    monkeypatch.setenv("DYNCONF_HOME", str(home))
    return command(monkeypatch, capsys)


def paths(found: list[Rubbish]) -> set[Path]:
    return {item.path for item in found}


def old(*made: Artefact) -> None:
    for one in made:
        used(one, OLD)


def results(home: Path, *made: Artefact, room: str = "results") -> Path:
    """A results.json that names these artefacts."""
    path = home / room / "run" / "results.json"
    path.parent.mkdir(parents=True)
    keys = {one.stage: one.key for one in made}
    point = FailedPoint(setting="x", values={}, error="train: no", artefacts=keys)
    content: RunResult | SweepResult = run_result(replace(failed_setting("x", "train: no"), artefacts=keys))
    if room == "sweeps":
        content = SweepResult(run="run", profile="smoke", seed=0, environment=ENVIRONMENT, failed=1, points=(point,))
    path.write_text(json_text(to_json(content)))
    return path


def test_what_nothing_reaches_goes_once_it_is_old(home: Path) -> None:
    one, young = odd(home, "train", 1), odd(home, "train", 2)
    old(one)
    used(young, 6)
    assert paths(rubbish(home, 7)) == {one.folder}
    assert paths(rubbish(home, 5)) == {one.folder, young.folder}
    assert [item.size for item in rubbish(home, 7)] == [sum(path.stat().st_size for path in one.folder.iterdir())]
    assert paths(remove(home, rubbish(home, 7))) == {one.folder}
    assert not one.folder.exists() and young.folder.is_dir()
    assert list((home / "artefacts" / ".tmp").iterdir()) == [] and list((home / "claims").iterdir()) == []


def test_what_was_used_in_the_last_hour_stays_in_any_case(home: Path) -> None:
    made = odd(home, "train", 1)
    assert rubbish(home, 0) == []
    used(made, 2 / 24)
    assert paths(rubbish(home, 0)) == {made.folder}
    assert Store(home / "artefacts").get(made.key) is not None
    assert rubbish(home, 0) == [], "it has just been used"


@pytest.mark.parametrize("room", ["results", "sweeps"])
def test_results_keep_their_artefacts_and_all_they_were_made_from(home: Path, room: str) -> None:
    train = odd(home, "train", 1)
    convert = odd(home, "convert", 1, {"train": train.digest})
    traces = odd(home, "collect_test", 1, {"train": train.digest, "convert": convert.digest})
    other = odd(home, "convert", 2, {"train": train.digest})
    old(train, convert, traces, other)
    file = results(home, traces, room=room)
    assert paths(rubbish(home, 7)) == {other.folder}
    file.unlink()
    aged(file.parent, 0)
    assert paths(rubbish(home, 7)) == {train.folder, convert.folder, traces.folder, other.folder}


@pytest.mark.parametrize("content", ["{", "[]", "", '{"schema": 2}', '{"schema": 2, "settings": null}', '{"schema": 1}'])
def test_results_that_cannot_be_read_stop_everything(home: Path, content: str) -> None:
    made = odd(home, "train", 1)
    old(made)
    results(home, made).write_text(content)
    with pytest.raises(InputError, match=r"results\.json.*artefacts that it needs are therefore unknown: repair"):
        rubbish(home, 7)


def test_a_young_artefact_keeps_what_it_was_made_from(home: Path) -> None:
    train = odd(home, "train", 1)
    odd(home, "convert", 1, {"train": train.digest})
    old(train)
    assert rubbish(home, 7) == []


def test_what_a_setting_would_find_now_stays(home: Path) -> None:
    current, former = chain(home), chain(home, code="former")
    elsewhere = chain(home, data="the data set is not there now")
    old(*current.values(), *former.values(), *elsewhere.values())
    assert paths(rubbish(home, 7)) == {made.folder for made in former.values()}


def test_a_damaged_artefact_goes_before_its_time(home: Path) -> None:
    current = chain(home)
    (current["train"].folder / "file").write_text("short")
    flipped = current["convert"].folder / "file"
    flipped.write_bytes(bytes([flipped.read_bytes()[0] ^ 1]) + flipped.read_bytes()[1:])
    assert rubbish(home, 7) == [], "used in the last hour"
    for made in current.values():
        used(made, 1)
    assert paths(rubbish(home, 7)) == {current["train"].folder}, "only its size is looked at"
    found = rubbish(home, 7, content)
    assert paths(found) == {current["train"].folder, current["convert"].folder}
    assert "sha256" in found[1].why or "sha256" in found[0].why
    assert len(remove(home, found)) == 2 and Store(home / "artefacts").get(current["convert"].key) is None


USING = (
    RUNNING
    + """
from dynconf_core.results.records import json_text, to_json
from dynconf_core.results.types import FailedPoint, RunResult, SweepResult
from dynconf_core.store.artefacts import Store
assert Store(Path(sys.argv[1]) / "artefacts").get(sys.argv[2]) is not None
"""
)


def test_what_a_running_process_uses_stays(home: Path) -> None:
    """The run began three days ago and used one of two old artefacts two days ago."""
    mine, other = odd(home, "train", 1), odd(home, "train", 2)
    old(mine, other)
    with process(USING, home, mine.key) as started:
        used(mine, 2)
        (run,) = runs(home)
        aged(run.file, 3)
        found = rubbish(home, 0)
        assert paths(found) == {other.folder} and paths(remove(home, found)) == {other.folder}
        assert mine.folder.is_dir()
        started.kill()
        started.wait()
        assert mine.folder in paths(rubbish(home, 0)), "killed"


def test_what_another_host_runs_counts_as_alive(home: Path) -> None:
    made = odd(home, "train", 1)
    with running(home, "reproduce"):
        (run,) = runs(home)
        written = run.file.read_text()
    run.file.write_text(written.replace(str(run.owner), "another-host/1/1"))
    used(made, 2)
    aged(run.file, 3)
    assert rubbish(home, 0) == []
    run.file.unlink()
    assert paths(rubbish(home, 0)) == {made.folder}


def test_what_is_used_or_claimed_after_it_was_judged_stays(home: Path) -> None:
    one, two, three = (odd(home, "train", number) for number in range(3))
    old(one, two, three)
    found = rubbish(home, 7)
    assert len(found) == 3
    assert Store(home / "artefacts").get(one.key) is not None
    with process(CLAIMING, home, two.key):
        assert paths(remove(home, found)) == {three.folder}
        assert two.folder.is_dir() and one.folder.is_dir()
        used(one, OLD)
        assert paths(rubbish(home, 7)) == {one.folder}, "the other is claimed"


def test_a_reader_finds_all_or_nothing(home: Path) -> None:
    """Between the judgement and the removal another process takes the artefact: it is either kept or missed, never half."""
    store = Store(home / "artefacts")
    for number in range(20):
        made = odd(home, "train", number)
        old(made)
        found = rubbish(home, 7)
        if number % 2:
            assert store.get(made.key) is not None
        gone = remove(home, found)
        assert (store.get(made.key) is None) == bool(gone) == (number % 2 == 0)


def test_a_reader_waits_until_the_removal_is_decided(home: Path) -> None:
    made = odd(home, "train", 1)
    store, found = Store(home / "artefacts"), threading.Event()

    def read() -> None:
        store.get(made.key)
        found.set()

    with undisturbed(store.root):
        thread = threading.Thread(target=read)
        thread.start()
        assert not found.wait(0.3)
        made.folder.rename(home / "elsewhere")
    thread.join(10)
    assert found.is_set() and store.get(made.key) is None


class Killed(BaseException):
    """Stands in for a kill."""


def test_a_removal_that_is_killed_leaves_what_the_next_one_removes(home: Path) -> None:
    made = odd(home, "train", 1)
    old(made)

    def die(point: str) -> None:
        if point == "gc.aside":
            raise Killed

    with pytest.raises(Killed), failing(die):
        remove(home, rubbish(home, 7))
    (left,) = (home / "artefacts" / ".tmp").iterdir()
    assert Store(home / "artefacts").get(made.key) is None and rubbish(home, 7) == []
    aged(left, 1)
    assert paths(rubbish(home, 7)) == {left} == paths(remove(home, rubbish(home, 7)))


def test_work_folders(home: Path) -> None:
    made = odd(home, "train", 1)
    names = {"done": made.key, "old": "a" * 64, "young": "b" * 64, "claimed": "c" * 64}
    folders = {what: home / "work" / name for what, name in names.items()}
    for what, folder in folders.items():
        folder.mkdir(parents=True)
        (folder / "epoch.pt").write_text("state")
        if what in ("old", "claimed"):
            aged(folder / "epoch.pt", OLD)
            aged(folder, OLD)
    with claim(home, "c" * 64, "train"):
        found = rubbish(home, 7)
        assert paths(found) == {folders["done"], folders["old"]}
        (folders["old"] / "epoch.pt").write_text("a run goes on from here")
        assert paths(remove(home, found)) == {folders["done"]}
    assert folders["old"].is_dir() and paths(rubbish(home, 7)) == {folders["claimed"]}


def test_old_logs_and_files_set_aside(home: Path) -> None:
    names = ("mlflow.db.damaged-20261126", "prefect/prefect.db.damaged-1", "prefect/server.log", "logs/child.log")
    for name in (*names, "mlflow.db", "prefect/prefect.db"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text("x")
    assert rubbish(home, 7) == []
    for name in (*names, "mlflow.db", "prefect/prefect.db"):
        aged(home / name, OLD)
    assert paths(rubbish(home, 7)) == {home / name for name in names}
    assert len(remove(home, rubbish(home, 7))) == 4 and (home / "mlflow.db").is_file()


def test_the_command_shows_first_and_removes_when_told(home: Path, dynconf: Command) -> None:
    assert dynconf("gc").code == 2
    made, kept = [odd(home, "train", number) for number in range(12)], chain(home)
    old(*made, *kept.values())
    answer = dynconf("gc")
    assert answer.code == 0 and "unreached artefact: 12, " in answer.out and "and 2 more" in answer.out
    assert "12 would be removed" in answer.out and all(one.folder.is_dir() for one in made)
    document = json.loads(dynconf("gc", "--json").out)
    assert {item["path"] for item in document["items"]} == {str(one.folder) for one in made}
    assert document["size"] == sum(item["size"] for item in document["items"]) > 0
    assert not any(item["removed"] for item in document["items"])
    answer = dynconf("gc", "--delete")
    assert "Removed 12 of 12" in answer.out and not any(one.folder.exists() for one in made)
    assert all(Store(home / "artefacts").get(one.key) for one in kept.values())
    assert "Nothing to remove." in dynconf("gc", "--keep-days", "0").out
