"""A setting of the project on data of one's own: its plan, keys and training, and networks of other numbers of channels."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dynconf_core import InputError, Recipe, Setting
from dynconf_core.data.digits import raw
from dynconf_core.experiment.images import images_of
from dynconf_core.experiment.job import Handle, RunContext
from dynconf_core.experiment.plan import Plan
from dynconf_core.experiment.profiles import resolve
from dynconf_core.experiment.request import Request, checked
from dynconf_core.experiment.stages import STAGES, job
from dynconf_core.networks.architecture import Architecture, build
from dynconf_core.networks.checkpoint import load_checkpoint
from dynconf_core.schemes.network import described
from dynconf_core.training.run import train_to_file

ASKED = "digits.npz@cifar10-resnet18-qcfs"
COLOURS = Architecture(lambda *, stem, classes, resolution, width, activation: torch.nn.Identity())
HANDLE = Handle("x", "0" * 64, "1" * 64, "ran")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with 200 digits in ``digits.npz``."""
    monkeypatch.chdir(tmp_path)
    values, labels = raw()
    np.savez("digits.npz", images=(values[:200] * (255 / 16)).round().astype(np.uint8), labels=labels[:200])
    return tmp_path


def keys(plan: Plan) -> list[str]:
    made = job(plan, RunContext(Path("home"), Path("data"), "cpu"))
    return [stage.key(made, dict.fromkeys(stage.inputs, HANDLE)).key for stage in STAGES]


def test_the_plan_is_that_of_the_setting_with_other_data(here: Path) -> None:
    plan, plain = resolve(ASKED, "smoke"), resolve("cifar10-resnet18-qcfs", "smoke")
    assert plan.setting == "digits-resnet18-qcfs"
    fields = ("recipe", "scheme", "time_steps", "width")
    assert all(getattr(plan, name) == getattr(plain, name) for name in fields)
    assert (plan.data.name, plan.data.stands_in_for, plan.data.shape) == ("digits.npz", None, (1, 8, 8))
    assert (plan.data.train, plan.data.calibration, plan.data.classes) == (128, 32, 10)
    assert plan.published is None and plan.network()["channels"] == 1 and "channels" not in plain.network()
    assert json.dumps(plan.as_dict())
    own = Setting("mine", "digits.npz", "resnet18", "qcfs", family="cifar10")
    assert replace(resolve(own, "smoke"), setting=plan.setting) == plan
    with pytest.raises(InputError, match=r"no recipe for resnet18 on own digits\.npz"):
        resolve(replace(own, family=None), "smoke")
    (checked_plan,) = checked(Request(settings=(ASKED,)), writes=False).plans
    assert checked_plan == plan


def test_keys_hold_the_content_and_not_the_place(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = keys(resolve(ASKED, "smoke"))
    (tmp_path / "elsewhere").mkdir()
    Path("digits.npz").rename("elsewhere/digits.npz")
    assert keys(resolve("elsewhere/digits.npz@cifar10-resnet18-qcfs", "smoke")) == before
    monkeypatch.chdir(tmp_path / "elsewhere")
    content = dict(np.load("digits.npz"))
    content["images"][0, 0, 0] ^= 1
    np.savez("digits.npz", **content)
    assert [one == other for one, other in zip(keys(resolve(ASKED, "smoke")), before, strict=True)] == [False] * 4 + [True] * 2


@pytest.mark.parametrize("architecture", ["vgg16", "resnet18", "resnet20"])
@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
def test_networks_of_other_numbers_of_channels(architecture: str, stem: str) -> None:
    made = build(architecture, stem, classes=5, resolution=32, width=1 / 16, activation=torch.nn.ReLU, seed=0, channels=2)
    with torch.no_grad():
        assert made.eval()(torch.zeros(1, 2, 32, 32)).shape == (1, 5)


def test_a_network_for_grey_images_is_trained(here: Path) -> None:
    recipe = Recipe(epochs=1, batch_size=32, learning_rate=0.01, augmentation=("crop", "flip"), initial_threshold=4.0)
    asked = Setting("mine", "digits.npz", "resnet20", "qcfs", recipes={"smoke": recipe})
    plan = resolve(asked, "smoke")
    cpu = torch.device("cpu")
    told = train_to_file(plan, data_root=Path(), device=cpu, out=here / "net.pt", resume=here / "resume.pt")
    assert told["network"]["channels"] == 1 and told["data"]["name"] == "digits.npz"
    load_checkpoint(network := described(told["network"], 0), here / "net.pt")
    test = images_of(plan.data, "test", Path())
    with torch.no_grad():
        assert network.eval()(test.normalisation(test.batch(torch.arange(3)))).shape == (3, 10)


def test_what_such_a_setting_cannot_be(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"'none\.npz' does not exist"):
        resolve("none.npz@cifar10-resnet18-qcfs", "smoke")
    np.savez("wide.npz", images=np.zeros((50, 8, 9), np.uint8), labels=np.arange(50) % 2)
    with pytest.raises(InputError, match="8 x 9 pixels: a setting takes squares"):
        resolve("wide.npz@cifar10-resnet18-qcfs", "smoke")
    with pytest.raises(InputError, match="resolution=8: vgg16 needs at least 32"):
        described(resolve("digits.npz@cifar10-vgg16-qcfs", "smoke").network(), 0)
    plan = resolve(ASKED, "smoke")
    with pytest.raises(
        InputError, match=f"'{__name__}:COLOURS' is for 3 channels, the data have 1: give its `make` an argument"
    ):
        described({**plan.network(), "architecture": f"{__name__}:COLOURS"}, 0)
