"""Artefacts that differ in their code alone: explain says so, adopt takes them over, and every record tells."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from commands import Command, command
from stage_cases import SETTING, TINY, run_stage, tiny_job

from dynconf_core.experiment import stages as stage_module
from dynconf_core.experiment.job import Handle, Job
from dynconf_core.experiment.stages import STAGES
from dynconf_core.store.artefacts import Store

NAMES = [one.name for one in STAGES]
OPTIONS = [word for name, value in TINY.items() for word in ("--set", f"{name}={value}")]


@pytest.fixture
def dynconf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    monkeypatch.setenv("DYNCONF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "200")
    for name in ("DYNCONF_DATA", "MLFLOW_TRACKING_URI", "PREFECT_API_URL"):
        monkeypatch.delenv(name, raising=False)
    return command(monkeypatch, capsys)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return tiny_job(tmp_path / "home")


@pytest.fixture
def old(job: Job, monkeypatch: pytest.MonkeyPatch) -> dict[str, Handle]:
    """Artefacts of all stages, made by code with another fingerprint; a file each, as adopting looks at no content."""
    store, done = Store(job.context.artefacts), {}
    with monkeypatch.context() as patch:
        patch.setattr(stage_module, "code_fingerprint", lambda modules: "0" * 64)
        for one in STAGES:
            key = one.key(job, {role: done[name] for role, name in one.inputs.items()})
            with (new := store.create(key, {"setting": SETTING, "facts": {"of": one.name}})) as folder:
                (folder / "part").mkdir()
                (folder / "part" / "file").write_text(one.name)
            done[one.name] = Handle(one.name, key.key, new.created.digest, "ran")
    return done


def told(dynconf: Command, *words: str) -> dict[str, tuple[str, str]]:
    """Outcome and reason of each stage that a command prints as JSON."""
    answer = dynconf(words[0], SETTING, *OPTIONS, *words[1:], "--json")
    assert answer.code == 0, answer
    return {one["stage"]: (one["outcome"], one["reason"]) for one in json.loads(answer.out)["stages"]}


def test_explain_names_the_way(dynconf: Command, old: dict[str, Handle]) -> None:
    first, *others = told(dynconf, "explain").values()
    assert first[0] == "miss" and "only differs in the code" in first[1]
    assert f"`dynconf adopt {SETTING} --stage train` with the same options" in first[1]
    assert {outcome for outcome, _ in others} == {"miss"}


def test_all_stages_are_taken_over_one_after_the_other(dynconf: Command, job: Job, old: dict[str, Handle]) -> None:
    found = told(dynconf, "adopt")
    assert [(name, outcome) for name, (outcome, _) in found.items()] == [(name, "adopted") for name in NAMES]
    store, handles = Store(job.context.artefacts), {}
    for name in NAMES:
        handles[name] = run_stage(name, job, handles)
        assert handles[name].outcome == "adopted", "this is what the results say"
        assert handles[name].digest == old[name].digest and handles[name].key != old[name].key
        artefact = store.get(handles[name].key)
        assert artefact is not None and artefact.file("part/file").read_text() == name
        provenance: Any = artefact.manifest["provenance"]
        assert provenance["facts"] == {"of": name} and provenance["setting"] == SETTING
        (adoption,) = provenance["adopted"]
        assert (adoption["from"], adoption["code"]) == (old[name].key, "0" * 64) and adoption["at"].startswith("20")
        assert store.get(old[name].key) is not None, "the old one stays"
    hits = told(dynconf, "explain")
    assert all(outcome == "hit" and reason.endswith(", adopted") for outcome, reason in hits.values())
    assert {outcome for outcome, _ in told(dynconf, "adopt").values()} == {"hit"}, "once is enough"


def test_only_the_named_stages_are_taken_over(dynconf: Command, old: dict[str, Handle]) -> None:
    found = told(dynconf, "adopt", "--stage", "train", "--stage", "search")
    assert found["train"][0] == "adopted"
    assert found["convert"][0] == "miss" and "--stage convert" in found["convert"][1]
    assert {found[name][0] for name in NAMES[2:]} == {"miss"}


def test_an_artefact_is_taken_over_a_second_time_with_its_history(
    job: Job, old: dict[str, Handle], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, key = Store(job.context.artefacts), STAGES[0].key(job, {})
    first = store.of_other_code(key)
    assert first is not None
    store.adopt(first, key)
    monkeypatch.setattr(stage_module, "code_fingerprint", lambda modules: "1" * 64)
    newer = STAGES[0].key(job, {})
    found = store.of_other_code(newer)
    assert found is not None and found.key == key.key
    again: Any = store.adopt(found, newer).manifest["provenance"]["adopted"]
    assert [one["from"] for one in again] == [old["train"].key, key.key]


@pytest.mark.parametrize("what", ["another field", "another input", "damage"])
def test_nothing_else_is_taken_over(what: str, dynconf: Command, job: Job, old: dict[str, Handle]) -> None:
    if what == "another field":
        answer = dynconf("adopt", SETTING, *OPTIONS[2:], "--json")
        assert json.loads(answer.out)["stages"][0]["reason"].startswith(
            "differs from the most similar artefact in config.recipe"
        )
        return
    if what == "another input":
        assert told(dynconf, "adopt", "--stage", "convert")["convert"][0] == "miss"
        return
    job.context.file(old["train"], "part/file").write_text("other")
    assert told(dynconf, "adopt")["train"][0] == "miss"


def test_an_unknown_stage_is_refused(dynconf: Command) -> None:
    answer = dynconf("adopt", SETTING, "--stage", "trian")
    words = "--stage trian is unknown: choose among train, fine_tune, convert"
    assert answer.code == 2 and words in " ".join(answer.error.split())
