"""Classifying pixels with an SNN and its rule, and putting both into MLflow's registry."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Thread
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from commands import Command, command
from homes import VGG
from measures_from_outside import ShareOfVotes
from served_homes import RUN, TIME_STEPS, Case, case, images, make_home

from dynconf_core import Classifier, ImageFacts, InputError, Rule, Smoothing
from dynconf_core.data.class_names import class_names
from dynconf_core.data.images import Normalisation
from dynconf_core.serving import pixels_of


@pytest.fixture(scope="module")
def known() -> Case:
    return case()


@pytest.fixture(scope="module")
def whole(known: Case, empty_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home with one finished setting, whose model is registered once as ``dynconf-SETTING``."""
    from dynconf_tasks.serving.register import register

    os.environ.pop("MLFLOW_TRACKING_URI", None)
    home = make_home(Path(shutil.copytree(empty_home, tmp_path_factory.mktemp("served") / "home")), known)
    (made,) = register(home, home / "data", "latest", alias="champion")
    assert (made.setting, made.version, made.new) == (VGG, "1", True)
    assert made.uri == f"models:/dynconf-{VGG}@champion"
    yield home


@pytest.fixture
def called(whole: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    monkeypatch.setenv("DYNCONF_HOME", str(whole))
    return command(monkeypatch, capsys, "register")


def client(home: Path) -> Any:
    from mlflow import MlflowClient

    from dynconf_tasks.tracking.database import tracking_uri

    return MlflowClient(tracking_uri=tracking_uri(home))


def test_answers_are_those_of_collected_traces(known: Case) -> None:
    assert len(set(known.steps.tolist())) > 1
    exits = known.classifier(images().pixels)
    assert exits.predictions.tolist() == known.classes.tolist()
    assert exits.steps.tolist() == known.steps.tolist()
    summed = np.cumsum(known.traces.logits.astype(np.float64), axis=1)[np.arange(24), known.steps - 1]
    assert np.array_equal(exits.logits, summed)
    assert known.traces.spikes is not None
    assert exits.spikes.tolist() == [int(row[:step].sum()) for row, step in zip(known.traces.spikes, known.steps, strict=True)]


@pytest.mark.parametrize("count", [1, 3, 1, 24, 2, 5, 1])
def test_answers_do_not_depend_on_the_batch(known: Case, count: int) -> None:
    assert known.classifier(images(count).pixels).steps.tolist() == known.steps[:count].tolist()


def test_both_layouts_and_lists_are_the_same_images(known: Case) -> None:
    pixels = images(4).pixels.numpy()
    last = np.moveaxis(pixels, 1, -1)
    forms = (pixels, last, torch.from_numpy(pixels), last.tolist(), pixels.astype(np.int64))
    assert all(torch.equal(pixels_of(form, (3, 32, 32)), torch.from_numpy(pixels)) for form in forms)


def test_confidence_is_the_softmax_at_the_exit(known: Case) -> None:
    exits = known.classifier(images(6).pixels)
    softmax = torch.from_numpy(exits.logits).softmax(-1).amax(-1).numpy()
    assert np.allclose(known.classifier.confidence(exits), softmax, rtol=1e-12)


def test_without_exit_every_image_takes_all_steps(known: Case) -> None:
    assert set(known.classifier.without_exit()(images(3).pixels).steps.tolist()) == {TIME_STEPS}


def test_threads_take_turns(known: Case) -> None:
    found: dict[int, list[int]] = {}

    def answer(count: int) -> None:
        found[count] = known.classifier(images(count).pixels).steps.tolist()

    threads = [Thread(target=answer, args=(count,)) for count in (1, 7, 16, 24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {count: known.steps[:count].tolist() for count in (1, 7, 16, 24)}


def ragged() -> list[Any]:
    rows = np.zeros((2, 32, 32, 3), int).tolist()
    rows[1] = rows[1][:-1]
    return list(rows)


BAD: dict[str, tuple[Any, str]] = {
    "empty": ([], "empty"),
    "one image": (np.zeros((32, 32, 3), np.uint8), "a batch of one"),
    "another size": (np.zeros((1, 28, 28, 3), np.uint8), "resize"),
    "grey": (np.zeros((1, 32, 32, 1), np.uint8), "repeat a grey image"),
    "alpha": (np.zeros((1, 32, 32, 4), np.uint8), "alpha channel"),
    "normalised": (np.zeros((1, 32, 32, 3), np.float32), "decimals"),
    "whole decimals": (np.ones((1, 32, 32, 3)), "decimals"),
    "nan": (np.full((1, 32, 32, 3), np.nan), "NaN"),
    "256": (np.full((1, 32, 32, 3), 256), "from 256 to 256"),
    "negative": (np.full((1, 32, 32, 3), -1), "from -1 to -1"),
    "beyond 64 bits": ([[[[2**70] * 3] * 32] * 32], "beyond 64 bits"),
    "truth values": (np.ones((1, 32, 32, 3), bool), "truth values"),
    "text": ([[["0"]]], "text"),
    "nothing": (None, "mixed types"),
    "ragged": (ragged(), "differ in length"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_are_no_images_is_refused_with_the_reason(known: Case, what: str) -> None:
    given, reason = BAD[what]
    with pytest.raises(InputError, match=reason):
        known.classifier(given)


def test_a_saved_classifier_answers_the_same(known: Case, tmp_path: Path) -> None:
    known.classifier.save(tmp_path / "folder")
    loaded = Classifier.load(tmp_path / "folder")
    assert loaded.facts == known.classifier.facts
    assert loaded(images(8).pixels).steps.tolist() == known.steps[:8].tolist()


@pytest.mark.parametrize(
    ("field", "value"),
    [("time_steps", 0), ("mean", [0.5, 0.5]), ("mean", "grey"), ("std", [0, 1, 1]), ("classes", "abc"), ("schema", 1)],
)
def test_facts_that_cannot_be_right_are_refused(tmp_path: Path, field: str, value: object) -> None:
    entry = ImageFacts(4, Normalisation((0.5,) * 3, (0.25,) * 3)).as_json()
    (tmp_path / "input.json").write_text(json.dumps({**entry, field: value}))
    with pytest.raises(InputError, match=field):
        ImageFacts.load(tmp_path / "input.json")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"time_steps": 0}, "time_steps=0: an SNN needs at least one"),
        ({"time_steps": -4}, "time_steps=-4: an SNN"),
        ({"time_steps": "4"}, "time_steps='4': give the number of time steps"),
        ({"normalisation": 0.5}, "normalisation=0.5: give a Normalisation"),
        ({"classes": "cat"}, "classes='cat': give the names of the classes in order, or None"),
        ({"classes": (1, 2)}, "classes is a tuple: give the names"),
        ({"origin": "here"}, "origin='here': give a dictionary"),
    ],
)
def test_facts_are_checked_when_they_are_made(change: dict[str, Any], words: str) -> None:
    facts = ImageFacts(4, Normalisation((0.5,), (0.25,)), ("a", "b"))
    with pytest.raises(InputError, match=words):
        replace(facts, **change)


def test_parts_that_do_not_fit_are_refused(known: Case) -> None:
    with pytest.raises(InputError, match="2 names of classes"):
        Classifier(known.classifier.snn, known.classifier.rule, replace(known.classifier.facts, classes=("a", "b")))
    with pytest.raises(InputError, match="exact for at most 8"):
        Classifier(known.classifier.snn, known.classifier.rule, replace(known.classifier.facts, time_steps=9))


def test_names_of_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("n02", "n01"):
        (tmp_path / "imagenet" / "train" / name).mkdir(parents=True)
    assert class_names("imagenet", tmp_path, 2) == ("n01", "n02")
    assert class_names("imagenet", tmp_path, 1000) is None
    cifar = class_names("cifar10", tmp_path, 10)
    assert cifar is not None and cifar[3] == "cat"
    assert class_names("my_package.images:MINE", tmp_path, 10) is None
    module = ModuleType("images_of_mine")
    module.CLASS_NAMES = ("dot", "dash")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "images_of_mine", module)
    assert class_names("images_of_mine:MINE", tmp_path, 2) == ("dot", "dash")
    assert class_names("images_of_mine:MINE", tmp_path, 3) is None


def test_registering_again_adds_no_version(called: Command, whole: Path) -> None:
    answer = called("latest", "--json")
    assert answer.code == 0, answer.error
    (model,) = json.loads(answer.out)["models"]
    assert (model["version"], model["new"]) == ("1", False)
    assert len(client(whole).search_model_versions(f"name = 'dynconf-{VGG}'")) == 1


def test_it_prints_the_uri_and_the_command_that_serves_it(called: Command, whole: Path) -> None:
    answer = called(RUN, "--setting", VGG, "--alias", "champion")
    assert answer.code == 0, answer.error
    assert f"models:/dynconf-{VGG}@champion  version 1" in answer.out
    assert "95.37 % with 10.25 of 8 time steps on the test images" in answer.out
    assert f"from the run {RUN}, seed 0" in answer.out and "Note" not in answer.out
    assert f"mlflow models serve -m models:/dynconf-{VGG}@champion --env-manager local" in answer.out
    assert f"MLFLOW_TRACKING_URI=sqlite+pysqlite:///{whole}/mlflow.db" in answer.out


def test_a_version_says_where_it_comes_from(whole: Path) -> None:
    version = client(whole).get_model_version_by_alias(f"dynconf-{VGG}", "champion")
    assert version.description.startswith("95.37 % with 10.25 of 8 time steps")
    assert "A stand-in" in version.description and "instead of CIFAR-10" in version.description
    assert {name: version.tags[name] for name in ("setting", "profile", "seed", "dataset", "width")} == {
        "setting": VGG,
        "profile": "smoke",
        "seed": "0",
        "dataset": "digits",
        "width": "0.125",
    }


def test_overrides_are_said(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    from dynconf_core.results.files import write_results
    from dynconf_core.results.records import read
    from dynconf_core.results.types import RunResult

    home = Path(shutil.copytree(whole, tmp_path / "home"))
    result = read(RunResult, home / "results" / "latest" / "results.json")
    write_results(home, replace(result, run="another", overrides={"time_steps": 8, "fixed_point": False}))
    answer = command(monkeypatch, capsys, "register")("another", "--home", home, "--name", "another")
    assert answer.code == 0, answer.error
    assert "from the run another, seed 0" in answer.out and "with time_steps=8, fixed_point=false" in answer.out
    version = client(home).get_model_version("another", "1")
    assert "With overrides: time_steps=8, fixed_point=false." in version.description


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["elsewhere"], f"choose latest, or one of {RUN}"),
        (["latest", "--setting", "mine"], f"choose from {VGG}"),
        (["latest", "--alias", "v1"], "keeps latest, v1"),
        (["latest", "--alias", "a b"], "write letters"),
        (["latest", "--name", "a/b"], "no slash"),
        (["0" * 32], "has no run"),
    ],
)
def test_what_cannot_be_registered(called: Command, arguments: list[str], reason: str) -> None:
    answer = called(*arguments)
    assert answer.code == 2
    assert reason in answer.error


def test_a_missing_artefact_is_named(known: Case, whole: Path, tmp_path: Path) -> None:
    from dynconf_tasks.serving.register import register

    home = Path(shutil.copytree(whole, tmp_path / "home"))
    shutil.rmtree(home / "artefacts" / "convert")
    with pytest.raises(InputError, match=f"{VGG}: the artefact of stage convert is not in {home}"):
        register(home, home / "data", "latest")


def test_the_model_of_a_run_in_mlflow(known: Case, whole: Path, tmp_path: Path) -> None:
    """It is logged in the run, once, and registered from there, also by the run's id."""
    from dynconf_core.results.records import read
    from dynconf_core.results.types import RunResult
    from dynconf_core.store.artefacts import Store
    from dynconf_tasks.serving.of_run import log_model
    from dynconf_tasks.serving.register import register
    from dynconf_tasks.tracking.logged import Origin, child_of
    from dynconf_tasks.tracking.tracker import Tracker

    home = Path(shutil.copytree(whole, tmp_path / "home"))
    (row,) = read(RunResult, home / "results" / "latest" / "results.json").finished
    store, tracker = Store(home / "artefacts"), Tracker(home)
    run = tracker.child(tracker.parent("smoke", 0, {}, "smoke, seed 0"), child_of(row, Origin(home, "smoke", 0), None))
    first, second = (log_model(tracker.uri, run, row.name, row.artefacts, store, home / "data") for _ in range(2))
    assert first is not None and first == second
    logged = client(home).get_logged_model(first)
    assert (logged.source_run_id, logged.status) == (run, "READY")
    assert [one.model_id for one in client(home).get_run(run).outputs.model_outputs] == [first]
    (made,) = register(home, home / "data", run, name="mine")
    assert (made.run, made.seed, made.overrides) == (RUN, 0, {})
    version = client(home).get_model_version("mine", made.version)
    assert (version.run_id, version.source) == (run, f"models:/{first}")


LOADED = """
import sys, json
sys.modules.update(dict.fromkeys(("prefect", "optuna", "dynconf_tasks", "dynconf_flows")))  # as if they were not installed
import numpy as np, mlflow.pyfunc
model = mlflow.pyfunc.load_model(sys.argv[1])
found = model.predict(np.load(sys.argv[2]))
print(json.dumps([found["class"].tolist(), found["steps"].tolist()]))
"""


def test_a_model_loads_with_the_library_alone_where_its_home_is_gone(known: Case, whole: Path, tmp_path: Path) -> None:
    """And holds no pickle. Its home was moved before, which the registry follows."""
    from dynconf_tasks.tracking.database import prepare

    home = tmp_path / "moved"
    shutil.copytree(whole, home)
    prepare(home, print)
    place = Path(client(home).get_model_version_download_uri(f"dynconf-{VGG}", "1").removeprefix("file://"))
    assert place.is_relative_to(home)
    shutil.copytree(place, tmp_path / "model")
    shutil.rmtree(home)
    assert not [path for path in (tmp_path / "model").rglob("*") if path.suffix in (".pkl", ".pickle")]
    assert "torch==" in (tmp_path / "model" / "requirements.txt").read_text()
    np.save(tmp_path / "images.npy", np.moveaxis(images().pixels.numpy(), 1, -1))
    command = [sys.executable, "-c", LOADED, str(tmp_path / "model"), str(tmp_path / "images.npy")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [known.classes.tolist(), known.steps.tolist()]


def test_a_rule_with_code_of_ones_own_is_no_model(known: Case, empty_home: Path, tmp_path: Path) -> None:
    from dynconf_tasks.serving.register import register

    own = Classifier(known.classifier.snn, Rule(ShareOfVotes(), Smoothing("sum", 1.0), 0.5), known.classifier.facts)
    home = make_home(Path(shutil.copytree(empty_home, tmp_path / "home")), replace(known, classifier=own))
    with pytest.raises(InputError, match="imports no code from outside"):
        register(home, home / "data", "latest")
