"""A stage is a function of its key: in any process and environment, made by several at once, after any interruption."""

from __future__ import annotations

import json
import pickle
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from stage_cases import Forked, events, process, run_stage, run_stages, tiny_job
from study_cases import made

from dynconf_core.experiment.job import Handle
from dynconf_core.experiment.stages import STAGES
from dynconf_core.failing import failing
from dynconf_core.training.epochs import Diverged
from dynconf_tasks.trials import Trial, read_trials

NAMES = [one.name for one in STAGES]
ELSEWHERE = {"PYTHONHASHSEED": "5", "OMP_NUM_THREADS": "2", "LC_ALL": "C", "TZ": "Asia/Tokyo", "PYTHONUTF8": "0"}


class Killed(BaseException):
    pass


class Die:
    """A hook that raises at the ``at``-th passage of a point."""

    def __init__(self, point: str, at: int = 1) -> None:
        self.point, self.at, self.passed = point, at, 0

    def __call__(self, name: str) -> None:
        self.passed += name == self.point
        if name == self.point and self.passed == self.at:
            raise Killed


# All stages, in processes


@dataclass(frozen=True)
class Homes:
    """Two homes in a folder, ``one`` and ``two``, and what was told when their artefacts were made."""

    folder: Path
    told: dict[str, list[dict[str, Any]]]

    def digests(self, home: str = "one") -> list[dict[str, str]]:
        """Those of all stages, for each process."""
        return [event["digests"] for event in self.told[home] if event["event"] == "done"]


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Homes]:
    """All stages by one process in a home of its own, and by two at once, in another environment, in another home."""
    folder = tmp_path_factory.mktemp("homes")
    running = {
        "one": process(folder / "one", cwd=folder, PYTHONHASHSEED="6", LANG="C.UTF-8"),
        "two": process(folder / "two", cwd=Path("/"), FORKS="2", **ELSEWHERE),
    }
    try:
        yield Homes(folder, {home: events(one) for home, one in running.items()})
    finally:
        for one in running.values():
            one.kill()


def test_two_homes_hold_the_same_bits(homes: Homes) -> None:
    """Under other hash seeds, thread counts, locales, time zones and working folders."""
    (first,) = homes.digests()
    assert list(first) == NAMES
    assert homes.digests("two") == [first, first]


def test_two_processes_make_each_artefact_once_and_both_finish(homes: Homes) -> None:
    for name in NAMES:
        found = [event["outcome"] for event in homes.told["two"] if event["event"] == "finished" and event["stage"] == name]
        assert sorted(found) == ["cached", "ran"]
    for home in ("one", "two"):
        assert not list((homes.folder / home / "work").glob("*")) and not list((homes.folder / home / "claims").glob("*"))


def test_who_waits_says_so_and_takes_over_from_the_dead(homes: Homes, tmp_path: Path) -> None:
    """The first process stops in its first epoch; once it is killed, the second goes on from there, to the same bits."""
    first = Forked(tmp_path, tmp_path / "home", "train", BLOCK_AT="train.epoch")
    while first.event()["event"] != "blocked":
        pass
    second = Forked(tmp_path, tmp_path / "home", "train")
    try:
        waits = second.event()
        assert waits["event"] == "waiting" and f"process {first.process.pid} on " in waits["text"] and "train" in waits["text"]
        killed = time.time()
        first.process.kill()
        took_over = second.event()
        assert took_over["event"] == "started" and took_over["at"] - killed < 5
        told = second.events()
    finally:
        first.end()
        second.end()
    assert told[0] == {"event": "finished", "stage": "train", "outcome": "ran"}
    assert told[-1]["digests"] == {"train": homes.digests()[0]["train"]}


# What an interruption leaves behind, in this process


@pytest.mark.parametrize("point", ["stage.claimed", "train.epoch", "store.placed"])
def test_a_training_that_dies_anywhere_is_finished_by_the_next_run(homes: Homes, point: str, tmp_path: Path) -> None:
    """Also where the dead process left files in the work folder: they never fail a stage, and are gone at its end."""
    given = tiny_job(tmp_path)
    with pytest.raises(Killed), failing(Die(point)):
        run_stage("train", given, {})
    key = STAGES[0].key(given, {}).key
    work = given.context.work / key
    work.mkdir(parents=True, exist_ok=True)
    (work / ".epoch.pt.4711").write_bytes(b"half of it")
    (work / "unknown").mkdir()
    done = run_stage("train", given, {})
    assert done.outcome == ("cached" if point == "store.placed" else "ran")
    assert done.digest == homes.digests()[0]["train"]
    assert not work.exists() and not list((tmp_path / "artefacts" / ".tmp").iterdir())


def test_a_home_at_another_path_has_everything(homes: Homes, tmp_path: Path) -> None:
    """Seen through a link, as from a machine that mounts it elsewhere, and moved to another place."""
    shutil.copytree(homes.folder / "one", tmp_path / "moved")
    (tmp_path / "link").symlink_to("moved", target_is_directory=True)
    for home in (tmp_path / "moved", tmp_path / "link"):
        found = run_stages(tiny_job(home))
        assert {one.outcome for one in found.values()} == {"cached"}
        assert {name: one.digest for name, one in found.items()} == homes.digests()[0]
        sent = cloudpickle.dumps(found)
        assert str(home).encode() not in sent
        received: dict[str, Handle] = pickle.loads(sent)
        assert tiny_job(tmp_path / "link").context.file(received["search"], "rule.json").is_file()


def test_artefacts_name_no_path_of_their_machine(homes: Homes) -> None:
    files = [path for path in (homes.folder / "one" / "artefacts").rglob("*") if path.is_file()]
    assert len(files) > 15
    paths = [str(homes.folder).encode(), str(Path(__file__).parent.parent).encode(), str(Path.home()).encode() + b"/"]
    assert [path for path in files for named in paths if named in path.read_bytes()] == []


def test_a_given_checkpoints_name_is_no_part_of_the_artefact(homes: Homes, tmp_path: Path) -> None:
    (checkpoint,) = (homes.folder / "one" / "artefacts" / "train").glob("*/*/checkpoint.pt")
    found = []
    for name in ("a.pt", "b.pt"):
        shutil.copyfile(checkpoint, tmp_path / name)
        home = tmp_path / f"home of {name}"
        given = replace(tiny_job(home), checkpoint=tmp_path / name)
        found.append(run_stage("train", given, {}))
        manifest = json.loads(given.context.file(found[-1], "manifest.json").read_text())
        assert manifest["provenance"]["facts"]["given"] == name
    assert found[0].key == found[1].key and found[0].digest == found[1].digest and found[0].outcome == "given"


def test_a_training_that_diverges_leaves_no_artefact(tmp_path: Path) -> None:
    """At this rate weight decay multiplies the weights by about -9 a step."""
    given = tiny_job(tmp_path)
    recipe = replace(given.plan.recipe, learning_rate=10.0, weight_decay=1.0, warm_up=0.0, epochs=50)
    given = replace(given, plan=replace(given.plan, recipe=recipe))
    for _ in range(2):
        with pytest.raises(Diverged, match=r"diverged in epoch \d+ of 50 with learning_rate=10:"):
            run_stage("train", given, {})
    assert not list((tmp_path / "artefacts").glob("train/*/*"))


# Searches


@pytest.fixture
def traces(tmp_path: Path) -> Path:
    return made(160, seed=3, time_steps=4, classes=3).save(tmp_path / "traces")


def searched(home: Path, traces: Path, trials: int = 14) -> Handle:
    """The search, with more trials than the sampler draws without looking at the ones before (10)."""
    given, collected = tiny_job(home, trials=trials), Handle("collect_calibration", "0" * 64, "1" * 64, "ran")
    shutil.copytree(traces, given.context.folder(collected), dirs_exist_ok=True)
    return run_stage("search", given, {"collect_calibration": collected})


def rule_of(home: Path, found: Handle) -> bytes:
    return tiny_job(home).context.file(found, "rule.json").read_bytes()


def test_a_search_gives_the_same_bits_after_an_interruption_at_any_trial(tmp_path: Path, traces: Path) -> None:
    whole = searched(tmp_path / "whole", traces)
    rule = rule_of(tmp_path / "whole", whole)
    trials = trials_of(tmp_path, traces)
    assert len({tuple(trial.params.items()) for trial in trials}) == 14, "every trial is another one"
    for at in range(1, 15):
        for point in ("search.trial", "file.written")[: 1 + (at in (1, 12))]:
            home = tmp_path / f"{point} {at}"
            die = Die(point, at)
            with pytest.raises(Killed), failing(die):
                searched(home, traces)
            assert die.passed == at
            after: list[list[Trial]] = []

            def look(name: str, home: Path = home, after: list[list[Trial]] = after) -> None:
                if name == "search.trial":
                    after.append(read_trials(next((home / "work").glob("*/trials.json")))["max_softmax"])

            with failing(look):
                resumed = searched(home, traces)
            assert len(after) == 14 - at + (point == "file.written"), "no trial is computed twice"
            assert not after or after[-1] == trials
            assert resumed.digest == whole.digest and rule_of(home, resumed) == rule
            assert not list((home / "work").iterdir())


def trials_of(tmp_path: Path, traces: Path) -> list[Trial]:
    """The trials of a search that was killed after its last one."""
    with pytest.raises(Killed), failing(Die("search.trial", 14)):
        searched(tmp_path / "killed", traces)
    (file,) = (tmp_path / "killed" / "work").glob("*/trials.json")
    return read_trials(file)["max_softmax"]


@pytest.mark.parametrize("damage", ["nothing", "garbage", "half", "another digit", "another form", "a deep nest"])
def test_damaged_trials_are_set_aside(damage: str, tmp_path: Path, traces: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With a warning that names the file; the search starts afresh."""
    whole = searched(tmp_path / "whole", traces)
    with pytest.raises(Killed), failing(Die("search.trial", 3)):
        searched(tmp_path / "home", traces)
    (file,) = (tmp_path / "home" / "work").glob("*/trials.json")
    content = file.read_bytes()
    file.write_bytes(
        {
            "nothing": b"",
            "garbage": b"\x00\xff" * 20,
            "half": content[: len(content) // 2],
            "another digit": content.replace(b"30.0", b"31.0", 1),
            "another form": b'{"trials": [], "checksum": "0"}',
            "a deep nest": b"[" * 100_000,
        }[damage]
    )
    passed = Die("search.trial", 99)
    with failing(passed):
        assert searched(tmp_path / "home", traces).digest == whole.digest
    assert passed.passed == 14
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert str(file) in warning and "trials.json.damaged" in warning


def test_more_trials_begin_with_the_fewer(tmp_path: Path, traces: Path) -> None:
    """A trial depends on its number and those before it, not on how many are to come."""
    first = [trial.params for trial in trials_of(tmp_path, traces)]
    with pytest.raises(Killed), failing(Die("search.trial", 14)):
        searched(tmp_path / "more", traces, trials=20)
    (file,) = (tmp_path / "more" / "work").glob("*/trials.json")
    assert [trial.params for trial in read_trials(file)["max_softmax"]] == first


def test_four_searches_at_once(homes: Homes, tmp_path: Path) -> None:
    """One makes the rule; all return it, and it is the one of a search alone."""
    shutil.copytree(homes.folder / "one", tmp_path / "home")
    shutil.rmtree(tmp_path / "home" / "artefacts" / "search")
    searching = Forked(tmp_path, tmp_path / "home", *NAMES[:3], "search", FORKS="4")
    told = searching.events()
    searching.end()
    outcomes = [event["outcome"] for event in told if event["event"] == "finished" and event["stage"] == "search"]
    assert sorted(outcomes) == ["cached", "cached", "cached", "ran"]
    digests = [event["digests"]["search"] for event in told if event["event"] == "done"]
    assert digests == [homes.digests()[0]["search"]] * 4
