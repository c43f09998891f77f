"""What an installed package brings through entry points is used by name; what it does wrong is said before a run begins."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import processes
import pytest

HOUSE = Path(__file__).parent / "open_house"
ENTRY_POINTS = """
[dynconf.measures]
running_gap = running_gap:RunningGap
[dynconf.neurons]
resting = resting:Resting
[dynconf.schemes]
acme-thirds = thirds:Thirds
twice = thirds:Thirds
[dynconf.architectures]
acme-small = small_network:SMALL
[dynconf.data_sets]
acme-stripes = stripes:STRIPES
[dynconf.settings]
acme = acme:ACME
other-name = acme:ACME
"""
BROKEN = """
[dynconf.schemes]
twice = somewhere:Else
broken = acme_broken:Scheme
[dynconf.architectures]
broken = acme_broken:NETWORK
[dynconf.settings]
broken = acme_broken:SETTING
"""
SETTINGS = """
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import nn

from dynconf_core.confidence.measure import ConfidenceMeasure
from dynconf_core.experiment.recipe import Recipe
from dynconf_core.experiment.settings import Setting
from dynconf_core.networks.architecture import Architecture
from dynconf_core.schemes.qcfs import QCFSScheme
from small_network import SMALL
from stripes import STRIPES, load
from thirds import Thirds, ThirdsActivation

RECIPE = Recipe(epochs=6, batch_size=20, learning_rate=0.1, augmentation=("flip",), initial_threshold=1.0)


def setting(name="acme", dataset="acme-stripes", architecture="acme-small", method="acme-thirds", recipe=RECIPE, **further):
    return Setting(name, dataset, architecture, method, recipes={"smoke": recipe}, **further)


ACME = setting()
NUMBER = setting(scheme={"top": 100.0})
TWICE = setting(method="twice")


def __getattr__(name):
    if name == "AUGMENTATION":  # refused when it is made, as this whole module would be
        return setting(recipe=replace(RECIPE, augmentation=("cutot",)))
    raise AttributeError(name)


class Branching(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, images):
        logits = self.inner(images)
        return logits if logits.sum() > 0 else 2 * logits


BRANCHING = Architecture(lambda **given: Branching(SMALL.make(**given)))
UNTRACED = setting(architecture="acme:BRANCHING")
SEVEN = Architecture(lambda **given: SMALL.make(**{**given, "classes": 7}))
CLASSES = setting(architecture="acme:SEVEN")


def one_channel(root, split, *, resolution, calibration):
    images = load(root, split, resolution=resolution, calibration=calibration)
    return replace(images, pixels=images.pixels[:, :1])


def nothing(root, split, *, resolution, calibration):
    raise FileNotFoundError(2, "No such file", "stripes.bin")


GREY, LOST, MORE = replace(STRIPES, load=one_channel), replace(STRIPES, load=nothing), replace(STRIPES, train=5000)
CHANNEL, MISSING, COUNT = (setting(dataset=f"acme:{name}") for name in ("GREY", "LOST", "MORE"))


@dataclass(frozen=True)
class Typo(Thirds):
    def conversion(self, time_steps):
        return {"tresholds": "learned"}


@dataclass(frozen=True)
class Other(Thirds):
    neurons: ClassVar[str] = "signed"


OPTION, NEURONS, NO_SCHEME = setting(method="acme:Typo"), setting(method="acme:Other"), setting(method="acme:RECIPE")


class Wrong(ConfidenceMeasure):
    name = "wrong"

    def step(self, outputs, state):
        return outputs.accumulated.max(dim=1).values, state


class Nan(Wrong):
    def step(self, outputs, state):
        return outputs.accumulated.max(dim=1).values * float("nan"), state


class Shape(Wrong):
    def step(self, outputs, state):
        return outputs.accumulated, state


class Single(Wrong):
    def step(self, outputs, state):
        return outputs.accumulated.max(dim=1).values.float(), state


class Labels(Wrong):
    def step(self, outputs, state):
        return outputs.labels, state


class Device(Wrong):
    def initial(self, samples, classes, device="cpu"):
        return (torch.zeros(samples),)


class Rows(Wrong):
    def initial(self, samples, classes, device="cpu"):
        return (torch.zeros(1, device=device),)


class Mixing(Wrong):
    def step(self, outputs, state):
        return outputs.accumulated.max(dim=1).values - outputs.accumulated.mean(), state


class Faster(Wrong):
    def scores(self, traces, smoothing=None):
        return super().scores(traces) + 1e-9


class Argument(Wrong):
    def __init__(self, given):
        self.given = given
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which two packages were installed, of which the second is broken."""
    folder = Path(shutil.copytree(HOUSE, tmp_path_factory.mktemp("installed") / "site"))
    (folder / "acme.py").write_text(SETTINGS)
    (folder / "acme_broken.py").write_text("raise RuntimeError('not today')\n")
    for name, points in (("acme", ENTRY_POINTS), ("acme_broken", BROKEN)):
        about = folder / f"{name}-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text(points)
    return folder


@pytest.fixture(autouse=True)
def without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DYNCONF_HOME", raising=False)


def run(site: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Python in a process of its own."""
    paths = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": paths, **variables}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=site.parent, env=environment, capture_output=True, text=True, timeout=240)


def dynconf(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return processes.dynconf(*arguments, cwd=site.parent, path=[site])


def test_an_installed_setting_is_run_by_name(site: Path, prefect_server: str) -> None:
    asked = ("reproduce", "--setting", "acme", "--set", "rule=running_gap", "--set", "top=1.5", "--json")
    done = run(site, "-m", "dynconf_flows.command.main", *asked, PREFECT_API_URL=prefect_server)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["settings"]
    assert (row["name"], row["data"]["name"], row["method"]) == ("acme", "acme-stripes", "acme-thirds")
    assert (row["network"]["architecture"], row["scheme"]) == ("acme-small", {"top": 1.5})
    assert row["exit"]["rule"]["measure"] == "running_gap" and "source" not in row["exit"]["rule"]
    assert "running_gap" in json.dumps(row["comparison"])
    done = dynconf(site, "export", "--out", "published")
    assert done.returncode == 0, done.stderr
    with (site.parent / "published" / "results.csv").open() as file:
        (line,) = csv.DictReader(file)
    assert (line["name"], line["scheme_top"]) == ("acme", "1.5")
    done = dynconf(site, "compare", "published")
    assert done.returncode == 0 and "running_gap" in done.stdout, done.stderr


def test_the_list_of_settings_has_those_of_packages(site: Path) -> None:
    """And says of a broken one why it cannot be used."""
    done = dynconf(site, "settings", "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)["settings"]
    assert {"cifar10-vgg16-qcfs", "cifar10-resnet20-post-training", "acme"} < set(found)
    assert found["acme"]["smoke"]["architecture"] == "acme-small" and "quick" not in found["acme"]
    assert "not today" in found["broken"]["error"] and "calls itself 'acme'" in found["other-name"]["error"]
    table = dynconf(site, "settings")
    assert table.returncode == 0 and "acme-small" not in table.stdout and "acme-stripes 16" in table.stdout, table.stderr


def test_the_form_knows_settings_and_fields_of_packages(site: Path) -> None:
    code = (
        "from pydantic import TypeAdapter; from dynconf_tasks.parameters import Overrides, SettingName\n"
        "TypeAdapter(SettingName).validate_python('acme'); TypeAdapter(Overrides).validate_python({'top': 1.5})"
    )
    done = run(site, "-c", code)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--setting", "acne"), "setting 'acne' is unknown (did you mean 'acme'?)"),
        (("--setting", "acme", "--set", "tpo=1"), "field 'tpo' is unknown (did you mean 'top'?)"),
        (("--setting", "broken"), "module acme_broken cannot be imported: RuntimeError: not today"),
        (("--setting", "../acme:ACME"), "write it as package.module:NAME"),
        (("--setting", "acme:TWICE"), "'twice' is given by several packages: write the one you mean"),
        (("--setting", "acme:NO_SCHEME"), "'acme:RECIPE' is no dataclass"),
        (("--setting", "acme:NUMBER"), "top=100.0: needs a number from 0.1 to 10"),
        (("--setting", "acme:AUGMENTATION"), "augmentation 'cutot' is unknown (did you mean 'cutout'?)"),
        (("--setting", "acme:UNTRACED"), "Branching cannot be traced"),
        (("--setting", "acme:CLASSES"), "gives (1, 7) for one image: logits (1, 3) are needed"),
        (("--setting", "acme:CHANNEL"), "the images have 1 channel "),
        (("--setting", "acme:MISSING"), "'acme:LOST' cannot be read: [Errno 2] No such file: 'stripes.bin'"),
        (("--setting", "acme:COUNT"), "300 images train; by its entry, train less calibration, 4940 do"),
        (("--setting", "acme:OPTION"), "conversion has no option 'tresholds'"),
        (("--setting", "acme:NEURONS"), "neurons='signed', but its activations become 'resting'"),
        (("--setting", "acme", "--set", "rule=acme:Nan"), "step gives nan as a score"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_started(site: Path, arguments: tuple[str, ...], words: str) -> None:
    done = dynconf(site, "reproduce", *arguments, "--home", "untouched")
    message = " ".join(done.stderr.split())
    assert done.returncode == 2 and words in message and "Traceback" not in message, done.stderr
    assert not (site.parent / "untouched" / "artefacts").exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Wrong", None),
        ("Nan", "step gives nan as a score"),
        ("Shape", r"step gives torch.float64 \(5, 4\) as scores"),
        ("Single", r"step gives torch.float32 \(5,\) as scores"),
        ("Labels", "has no attribute 'labels'"),
        ("Device", "state on the device that it is given"),
        ("Rows", "one row a sample"),
        ("Mixing", "depends on the others in its batch"),
        ("Faster", "differ from those of step"),
        ("Argument", "cannot be made without arguments"),
    ],
)
def test_a_measure_is_tried(site: Path, monkeypatch: pytest.MonkeyPatch, name: str, words: str | None) -> None:
    from dynconf_core.confidence.measure import MEASURES, measure_of
    from dynconf_core.confidence.trial import check_measure
    from dynconf_core.errors import InputError

    MEASURES.names()  # looks for what is installed once in a process: not while these packages are in reach
    monkeypatch.syspath_prepend(str(site))
    if words is None:
        check_measure(measure_of(f"acme:{name}"))
        return
    with pytest.raises(InputError, match=words):
        check_measure(measure_of(f"acme:{name}"))


@pytest.mark.parametrize("name", ["../../x", "/abs", "..", "", "a:b", "a b", "-x"])
def test_a_setting_has_a_name_that_files_can_bear(name: str) -> None:
    from dynconf_core.errors import InputError
    from dynconf_core.experiment.settings import Setting

    with pytest.raises(InputError, match="files bear its name"):
        Setting(name, "digits", "vgg16", "qcfs")
