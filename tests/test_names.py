"""Names from files are plain: a stranger's results, manifests and settings lead nowhere else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Command, command_on_traces
from hypothesis import given, settings
from hypothesis import strategies as st
from result_cases import failed_setting, run_result, setting_result

from dynconf_core.confidence.smoothing import PLAIN
from dynconf_core.errors import InputError
from dynconf_core.exit.rule import Rule
from dynconf_core.experiment.settings import Setting
from dynconf_core.names import is_inside, is_plain, plain_name
from dynconf_core.results.export import export
from dynconf_core.results.files import over_seeds
from dynconf_core.results.records import read, to_json
from dynconf_core.results.trace_pairs import pairs
from dynconf_core.results.types import OverSeeds, RunResult, SweepResult
from dynconf_core.store.artefacts import Store
from dynconf_core.store.keys import key_of, stage_key
from dynconf_core.traces.schema import Traces

WRONG = [
    "",
    ".",
    "..",
    "../../x",
    "/abs/x",
    "a/b",
    "a\\b",
    "a\0b",
    "a\nb",
    "\x7f",
    "\x9b31m",
    "a" * 256,
    "é" * 128,
    "\ud800",
    3,
]


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_plain_name(name: Any) -> None:
    assert not is_plain(name)
    with pytest.raises(InputError, match=r"^the name = .*: use a plain name"):
        plain_name(name, "the name")


@pytest.mark.parametrize("name", ["a", "cifar10-vgg16-qcfs", "..a", "a b", "%41", "[red]", "?", "é" * 127, "a" * 255])
def test_what_is_a_plain_name(name: str) -> None:
    assert plain_name(name, "the name") == name


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=st.sampled_from("ab./\\\0\n~ "), max_size=8))
def test_a_path_inside_stays_below_its_folder(path: str) -> None:
    resolved = Path("/base/folder", path.replace("\0", "0")).resolve()
    if is_inside(path):
        assert resolved.is_relative_to("/base/folder") and resolved != Path("/base/folder")
        assert resolved.relative_to("/base/folder").as_posix() == path


def run_as_json(**changes: Any) -> dict[str, Any]:
    content = to_json(run_result(setting_result("one"), failed_setting("two", "train: x")))
    return {**content, **changes}


def place(content: Any, *keys: str | int, value: Any) -> None:
    for key in keys[:-1]:
        content = content[key]
    content[keys[-1]] = value


@pytest.mark.parametrize("name", [name for name in WRONG if name != "\ud800"])
@pytest.mark.parametrize(
    "keys", [("run",), ("settings", 0, "name"), ("settings", 1, "name"), ("settings", 0, "artefacts", "train")], ids=str
)
def test_names_and_keys_in_results(tmp_path: Path, keys: tuple[str | int, ...], name: Any) -> None:
    content = run_as_json()
    place(content, *keys, value=name)
    (tmp_path / "results.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=rf"results\.json, .*{keys[-1]}"):
        read(RunResult, tmp_path / "results.json")


def test_names_in_other_records(tmp_path: Path) -> None:
    content = to_json(over_seeds([run_result(setting_result("one")), run_result(setting_result("one"))]))
    for keys in (("runs", 0), ("settings", 0, "name")):
        changed = json.loads(json.dumps(content))
        place(changed, *keys, value="../x")
        (tmp_path / "over_seeds.json").write_text(json.dumps(changed))
        with pytest.raises(InputError, match=r"over_seeds\.json, .*holds a separator"):
            read(OverSeeds, tmp_path / "over_seeds.json")
    sweep = {"schema": 2, "run": "../x", "profile": "smoke", "seed": 0, "failed": 0, "points": []}
    sweep["environment"] = content_of_environment()
    (tmp_path / "sweep.json").write_text(json.dumps(sweep))
    with pytest.raises(InputError, match=r"sweep\.json, run: '\.\./x' holds a separator"):
        read(SweepResult, tmp_path / "sweep.json")


def content_of_environment() -> Any:
    return run_as_json()["environment"]


def stranger(folder: Path, name: str) -> Path:
    """A results folder whose one setting has this name."""
    folder.mkdir(parents=True)
    content = run_as_json()
    content["settings"] = content["settings"][:1]
    place(content, "settings", 0, "name", value=name)
    (folder / "results.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def dynconf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return command_on_traces(tmp_path / "here", monkeypatch, capsys)


@pytest.mark.parametrize("outside", [True, False], ids=["absolute", "upwards"])
def test_a_strangers_results_write_nowhere(tmp_path: Path, dynconf: Command, outside: bool) -> None:
    target = tmp_path / "outside" / "x"
    folder = stranger(tmp_path / "home" / "results" / "run", str(target) if outside else "../../../../outside/x")
    for arguments in (("analyse", folder), ("export", folder, "--out", tmp_path / "published")):
        answer = dynconf(*arguments)
        assert answer.code == 2 and "settings.0" in answer.error and "separator" in answer.error, answer
    with pytest.raises(InputError, match="separator"):
        export(folder, tmp_path / "published")
    with pytest.raises(InputError, match="separator"):
        list(pairs(folder, None))
    assert not (tmp_path / "outside").exists() and not (tmp_path / "published").exists()


def sample(path: Path) -> Path:
    """Small traces."""
    chance = np.random.default_rng(0)
    return Traces(chance.normal(size=(40, 4, 3)).astype(np.float32), chance.integers(0, 3, 40)).save(path)


def test_links_in_a_strangers_folder(tmp_path: Path, dynconf: Command) -> None:
    """Traces are read through them; nothing is written through them."""
    folder, outside = tmp_path / "results", tmp_path / "outside"
    folder.mkdir()
    outside.mkdir()
    (folder / "a-calibration.npz").symlink_to(sample(outside / "mine.npz"))
    (outside / "rule.json").write_text("mine")
    (folder / "analysis").symlink_to(outside)
    for path in (folder, folder / "a-calibration.npz"):
        assert dynconf("analyse", path, "--no-track").code == 0
    assert {path.name for path in outside.iterdir()} == {"mine.npz", "rule.json"}
    assert {path.name for path in folder.iterdir()} == {"a-calibration.npz", "analysis"}
    (pair,) = pairs(folder, None)
    assert Traces.load(pair.calibration).samples == 40
    made = tmp_path / "made"
    made.mkdir()
    (made / "rule.json").symlink_to(outside / "rule.json")
    Rule("gap", PLAIN, 1.0).save(made / "rule.json")
    assert Rule.load(made / "rule.json").threshold == 1.0 and (outside / "rule.json").read_text() == "mine"


def artefact(root: Path, name: str) -> str:
    """The key of an artefact whose manifest, signed anew, names a file ``name``."""
    key = stage_key("train", {}, {}, "code")
    store = Store(root)
    with store.create(key, {}) as folder:
        (folder / "weights").write_text("x")
    path = root / key.stage / key.key[:2] / key.key / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["checksum"]
    manifest["files"] = {name: manifest["files"]["weights"]}
    manifest["checksum"] = key_of(manifest)
    path.write_text(json.dumps(manifest))
    return key.key


@pytest.mark.parametrize("name", ["../../../../outside", "/etc/hostname", "", "a//b", "./weights", "a/../weights"])
def test_names_in_a_manifest(tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str) -> None:
    (tmp_path / "outside").write_text("x")  # what the manifest promises lies there
    assert Store(tmp_path / "artefacts").get(artefact(tmp_path / "artefacts", name)) is None
    assert "does not name a file of the folder" in caplog.text
    assert Store(tmp_path / "others").get(artefact(tmp_path / "others", "weights")) is not None


@pytest.mark.parametrize("name", ["../x", "/abs/x", "", "a\nb", "a" * 300])
def test_the_name_of_a_setting_of_ones_own(name: str) -> None:
    with pytest.raises(InputError, match="files bear its name"):
        Setting(name, "cifar10", "vgg16", "qcfs")
