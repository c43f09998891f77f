"""The options of a recipe: each does what it says, none changes a recipe that does not name it, all together can be resumed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from training_cases import CPU, RECIPE, equal, pictures, small

from dynconf_core.activations.course import Course
from dynconf_core.activations.lsq import LSQ
from dynconf_core.activations.qcfs import QCFS
from dynconf_core.errors import InputError
from dynconf_core.experiment.job import Job, RunContext
from dynconf_core.experiment.overrides import applied, check_values, typed
from dynconf_core.experiment.plan import Plan
from dynconf_core.experiment.profiles import PROFILES, resolve
from dynconf_core.experiment.recipe import OPTIONS, Recipe, fineness
from dynconf_core.experiment.request import Request, checked
from dynconf_core.experiment.settings import SETTINGS
from dynconf_core.experiment.stages import stage
from dynconf_core.experiment.start import check_start, untrained
from dynconf_core.libraries import torchvision
from dynconf_core.networks.checkpoint import read, save_checkpoint
from dynconf_core.networks.start import copy_weights
from dynconf_core.training.loop import decayed, train

PLAN = resolve("cifar10-resnet18-qcfs", "smoke")
USED: dict[str, Any] = {
    "nesterov": True,
    "label_smoothing": 0.1,
    "averaging": 0.9,
    "decay_thresholds": False,
    "decay_norms": False,
    "finer_start": 4,
    "noise": 0.5,
    "rcs": 0.1,
}
"""All options that the loop acts on."""


def with_options(**changes: Any) -> Recipe:
    return replace(RECIPE, **changes)


def trained(recipe: Recipe, method: str = "qcfs") -> nn.Module:
    network = small(method)
    train(network, pictures(), recipe, seed=5, device=CPU)
    return network


# Names and keys


def test_a_recipe_without_options_has_the_key_it_had() -> None:
    plain = {
        "epochs": 3,
        "batch_size": 8,
        "learning_rate": 0.05,
        "augmentation": ["crop", "flip", "cutout"],
        "initial_threshold": 4.0,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "warm_up": 0.1,
    }
    assert RECIPE.as_dict() == plain and list(RECIPE.as_dict()) == list(plain)
    for profile in PROFILES:
        for name in SETTINGS:
            assert resolve(name, profile).recipe.as_dict().keys() == plain.keys()


def key(recipe: Recipe) -> str:
    return stage("train").key(Job(replace(PLAN, recipe=recipe), RunContext(Path("h"), Path("d")), "d"), {}).key


def test_each_option_is_in_the_key_and_in_what_is_told(tmp_path: Path) -> None:
    file = tmp_path / "w.pt"
    file.write_bytes(b"weights")
    changes = {**USED, "zero_gamma": True, "threshold_percentile": 90.0, "initial_weights": str(file)}
    assert changes.keys() == OPTIONS.keys()
    recipes = [replace(PLAN.recipe, **{name: value}) for name, value in changes.items()]
    assert len({key(recipe) for recipe in [PLAN.recipe, *recipes]}) == 1 + len(changes)
    for recipe, name in zip(recipes, changes, strict=True):
        assert set(recipe.as_dict()) - set(RECIPE.as_dict()) == {name}


def test_initial_weights_count_by_their_content(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a.pt", "b.pt", "c.pt")]
    for file, content in zip(files, (b"one", b"one", b"two"), strict=True):
        file.write_bytes(content)
    first, same, other = (key(replace(PLAN.recipe, initial_weights=str(file))) for file in files)
    assert first == same != other
    told = replace(PLAN.recipe, initial_weights=str(files[0])).as_dict()["initial_weights"]
    assert told == hashlib.sha256(b"one").hexdigest()
    files[0].write_bytes(b"another")
    assert key(replace(PLAN.recipe, initial_weights=str(files[0]))) not in (first, other)
    with pytest.raises(InputError, match=r"initial_weights=.*cannot be read .*No such file"):
        key(replace(PLAN.recipe, initial_weights=str(tmp_path / "none.pt")))


def overridden(**texts: str) -> Plan:
    plan = applied(PLAN, {name: typed(name, text) for name, text in texts.items()})
    check_values(plan)
    return plan


def test_options_are_set_from_text() -> None:
    assert overridden(augmentation="crop+flip").recipe.augmentation == ("crop", "flip")
    assert overridden(augmentation="none").recipe.augmentation == ()
    texts = {name: str(value).lower() for name, value in USED.items()}
    assert overridden(**texts).recipe == replace(PLAN.recipe, **USED)
    assert overridden(momentum="0.8", weight_decay="0", zero_gamma="true").recipe.zero_gamma
    assert overridden(initial_weights="w.pt").recipe.initial_weights == str(Path("w.pt").absolute())


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        ({"augmentation": "crop+blur"}, r"augmentation=crop\+blur: needs none, or some of crop, flip"),
        ({"label_smoothing": "1"}, "label_smoothing=1: needs a fraction"),
        ({"averaging": "1"}, "averaging=1: needs a fraction"),
        ({"finer_start": "3"}, "finer_start=3: needs a power of two"),
        ({"noise": "-1"}, "noise=-1: needs a number of levels"),
        ({"nesterov": "true", "momentum": "0"}, "nesterov=true needs a momentum above 0"),
    ],
)
def test_values_that_cannot_work_are_refused(texts: Mapping[str, str], told: str) -> None:
    with pytest.raises(InputError, match=told):
        overridden(**texts)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"epochs": -1}, "epochs=-1: needs a whole number from 1 to 10000"),
        ({"epochs": 2.0}, "epochs=2.0: needs a whole number"),
        ({"epochs": True}, "epochs=True: needs a whole number"),
        ({"batch_size": "8"}, "batch_size='8': needs a whole number from 2"),
        ({"learning_rate": float("nan")}, "learning_rate=nan: needs a number above 0"),
        ({"learning_rate": 10**400}, "learning_rate=1000.*: needs a number above 0"),
        ({"momentum": 1.0}, "momentum=1.0: needs a fraction from 0 to below 1"),
        ({"nesterov": 1}, "nesterov=1: needs true or false"),
        ({"augmentation": "crop"}, r"augmentation='crop': give a tuple of names"),
        ({"augmentation": ("crop", "flop")}, "augmentation 'flop' is unknown .did you mean 'flip'"),
        ({"augmentation": (3,)}, "augmentation"),
        ({"initial_weights": None}, "initial_weights=None: needs a file of weights"),
        ({"nesterov": True, "momentum": 0}, "nesterov=true needs a momentum above 0: set momentum too"),
    ],
)
def test_a_recipe_is_checked_when_it_is_made(change: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        with_options(**change)
    assert with_options(augmentation=["crop", "flip"]) == with_options(augmentation=("crop", "flip"))


# The loop


@pytest.mark.parametrize("name", USED)
def test_each_option_changes_the_training(name: str) -> None:
    assert not equal(trained(with_options(**{name: USED[name]})), trained(RECIPE))


@pytest.mark.parametrize("method", ["qcfs", "qffs"])
def test_a_run_with_all_options_can_be_resumed(method: str, tmp_path: Path) -> None:
    """To the bit, after any epoch, and again when it is finished."""
    recipe = with_options(**USED, epochs=4)
    whole = trained(recipe, method)
    for first in (1, 3):
        torch.manual_seed(first)
        train(small(method), pictures(), recipe, seed=5, device=CPU, resume=tmp_path / f"{first}", stop_after=first)
        for _ in range(2):
            resumed = small(method, seed=7)
            train(resumed, pictures(), recipe, seed=5, device=CPU, resume=tmp_path / f"{first}")
            assert equal(resumed, whole)
    assert set(read(tmp_path / "1")["average"]) == {"steps", "mean"}


def test_averaged_weights_are_those_of_a_plain_computation() -> None:
    """All parameters, in float64, after every step; the statistics are those of the averaged network, not of the last one."""
    recipe = with_options(augmentation=(), batch_size=27, epochs=5)
    last = small()
    means = [one.detach().double().clone() for one in last.parameters()]
    steps = 0

    def seen(done: int, total: int, text: str) -> None:
        nonlocal steps
        if done == 0:
            return
        steps += 1
        decay = min(0.3, (1 + steps) / (10 + steps))
        for mean, one in zip(means, last.parameters(), strict=True):
            mean.copy_(decay * mean + (1 - decay) * one.detach().double())

    train(last, pictures(), recipe, seed=5, device=CPU, progress=seen)
    averaged = small()
    train(averaged, pictures(), replace(recipe, averaging=0.3), seed=5, device=CPU)
    assert steps == 5
    for mean, one in zip(means, averaged.parameters(), strict=True):
        torch.testing.assert_close(one.detach().double(), mean, rtol=1e-5, atol=1e-6)
    assert not equal(averaged, last)
    images = pictures()
    found = averaged.first(images.normalisation(images.pixels)).detach()
    torch.testing.assert_close(averaged.first_norm.running_mean, found.mean((0, 2, 3)), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(averaged.first_norm.running_var, found.var((0, 2, 3)), rtol=1e-3, atol=1e-4)
    assert not averaged.training and not last.training


class Linear(nn.Module):
    """In float64, so that sums by hand agree."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-0.1, 0.1, 7680, dtype=torch.float64).view(10, 768))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1).double() @ self.weight.T


def test_nesterov_and_label_smoothing_by_hand() -> None:
    data = pictures(4)
    recipe = Recipe(2, 4, 0.1, (), 4.0, warm_up=0.5, weight_decay=0.0, nesterov=True, label_smoothing=0.2)
    inputs = data.normalisation(data.pixels).flatten(1).double()
    weight = Linear().weight.detach().clone().requires_grad_()
    velocity, losses = torch.zeros_like(weight), []
    for rate in (0.1, 0.1):
        log = torch.log_softmax(inputs @ weight.T, 1)
        loss = -(0.8 * log[torch.arange(4), data.labels] + 0.2 * log.mean(1)).mean()
        losses.append(loss.item())
        (gradient,) = torch.autograd.grad(loss, weight)
        velocity = 0.9 * velocity + gradient
        weight.data -= rate * (gradient + 0.9 * velocity)
    network = Linear()
    record = train(network, data, recipe, seed=0, device=CPU)
    torch.testing.assert_close(network.weight.detach(), weight.detach(), rtol=0, atol=1e-12)
    assert record["losses"] == pytest.approx(losses)


def test_what_is_spared_from_weight_decay() -> None:
    network = small()
    names = {id(one): name for name, one in network.named_parameters()}

    def spared(**changes: Any) -> set[str]:
        groups = decayed(network, with_options(**changes))
        every = [names[id(one)] for group in groups for one in group["params"]]
        assert sorted(every) == sorted(names.values())
        assert groups[1]["weight_decay"] == 0 and "weight_decay" not in groups[0]
        return {names[id(one)] for one in groups[1]["params"]}

    thresholds = {"first_fire.threshold", "second_fire.threshold"}
    norms = {f"{which}_norm.{what}" for which in ("first", "second") for what in ("weight", "bias")}
    assert spared(decay_thresholds=False) == thresholds
    assert spared(decay_norms=False) == norms | {"last.bias"}
    assert spared(decay_thresholds=False, decay_norms=False) == thresholds | norms | {"last.bias"}
    assert decayed(network, RECIPE) == [{"params": list(network.parameters())}]


# What activations follow


def test_noise_makes_rounding_right_on_average_in_training_alone() -> None:
    x = torch.full((4, 1, 100, 100), 0.3)  # of a level of 1
    course = Course(8, slice(4, 8))
    course.noise = 0.5
    for layer in (QCFS(4, 4.0), LSQ(2)):
        layer.course = course
        course.seed(3, CPU, compiled=False)
        noisy = layer.train()(x).detach()
        assert set(noisy.unique().tolist()) == {0.0, 1.0} and float(noisy.mean()) == pytest.approx(0.3, abs=0.02)
        assert not layer.eval()(x).any()
    course.seed(3, CPU, compiled=False)
    part = QCFS(4, 4.0)
    part.course = whole = Course(8, slice(0, 8))
    whole.noise, whole.generator = 0.5, torch.Generator().manual_seed(3)
    every = part.train()(x[:1].expand(8, 1, 100, 100))
    mine = QCFS(4, 4.0)
    mine.course = course
    assert torch.equal(mine.train()(x), every[4:]), "a process draws what its share of the batch would have"


def test_more_levels_at_the_start() -> None:
    recipe = with_options(epochs=8, finer_start=4)
    assert [fineness(epoch, recipe) for epoch in range(8)] == [4, 4, 2, 2, 1, 1, 1, 1]
    assert {fineness(epoch, RECIPE) for epoch in range(3)} == {1}
    x = torch.linspace(-1, 6, 500)
    course = Course(1, slice(0, 1))
    course.fineness = 4
    fine = QCFS(4, 4.0)
    fine.course = course
    assert torch.equal(fine(x), QCFS(16, 4.0)(x)) and torch.equal(fine.eval()(x), QCFS(4, 4.0)(x))
    step = LSQ(2)
    step.course = course
    other = LSQ(2)
    assert torch.equal(step(x).unique(), torch.arange(0, 3.25, 0.25)) and torch.equal(step.eval()(x), other(x))


def test_the_regulariser_by_hand() -> None:
    course = Course(2, slice(0, 2))
    course.penalties = []
    first, second = (np.random.default_rng(seed).uniform(0, 2, (2, 3, 4, 4)).astype(np.float32) for seed in (0, 1))
    terms = []
    for y in (first, second):
        course.watch(torch.from_numpy(y))
        terms.append(np.log(y.max() / np.sqrt((y.astype(np.float64) ** 2).mean((2, 3)) + 1e-5)).mean())
    penalty = course.taken()
    assert penalty is not None and float(penalty) == pytest.approx(np.mean(terms), rel=1e-5)
    assert course.taken() is None


def test_what_activations_cannot_follow_is_refused() -> None:
    relu = resolve("cifar10-resnet20-post-training", "smoke")
    only = "only QCFS and LSQ activations can follow this, and the network has none: leave it out of the recipe"
    with pytest.raises(InputError, match=f"setting 'cifar10-resnet20-post-training': noise=0.5: {only}"):
        check_start([replace(relu, recipe=replace(relu.recipe, noise=0.5))])
    with pytest.raises(InputError, match=f": rcs=0.1, finer_start=4: {only}"):
        check_start([replace(relu, recipe=replace(relu.recipe, rcs=0.1, finer_start=4))])


# The start


def test_branches_that_give_nothing_at_first() -> None:
    for name in ("cifar10-resnet18-qcfs", "cifar10-resnet20-post-training"):
        plan = replace(resolve(name, "smoke"), width=1 / 16)
        plain, _ = untrained(plan)
        network, _ = untrained(replace(plan, recipe=replace(plan.recipe, zero_gamma=True)))
        zeros = [one for one, value in network.named_parameters() if value.ndim == 1 and "bias" not in one and not value.any()]
        assert len(zeros) == {"cifar10-resnet18-qcfs": 8, "cifar10-resnet20-post-training": 9}[name]
        assert all(one.endswith(("body.4.weight", "bn2.weight")) for one in zeros)
        changed = [one for one, value in plain.state_dict().items() if not torch.equal(value, network.state_dict()[one])]
        assert changed == [one for one in plain.state_dict() if one in zeros]


def test_branches_that_start_so_anyway_need_no_option() -> None:
    plan = replace(resolve("imagenet-resnet50-qcfs", "smoke"), width=1 / 16)
    with pytest.raises(InputError, match="zero_gamma=true changes nothing: the network's branches start with scale 0 anyway"):
        untrained(replace(plan, recipe=replace(plan.recipe, zero_gamma=True)))


def test_a_network_without_branches_is_refused_before_anything_runs(tmp_path: Path) -> None:
    asked = Request("smoke", ("cifar10-vgg16-qffs",), {"zero_gamma": "true", "width": "0.04"}, home=str(tmp_path))
    with pytest.raises(InputError, match=r"setting 'cifar10-vgg16-qffs': zero_gamma=true: the network has no residual blocks"):
        checked(asked)
    assert checked(replace(asked, settings=("cifar10-resnet18-qffs",))).plans[0].recipe.zero_gamma


def relu_plan() -> Plan:
    """The same network with ReLU."""
    return replace(PLAN, width=1 / 16, method="post-training", scheme=resolve("cifar10-resnet20-post-training", "smoke").scheme)


@pytest.fixture
def relu_file(tmp_path: Path) -> Path:
    network, _ = untrained(relu_plan())
    for index, norm in enumerate(module for module in network.modules() if isinstance(module, nn.BatchNorm2d)):
        assert norm.running_mean is not None
        norm.running_mean.fill_(0.01 * index)
    save_checkpoint(network, {}, tmp_path / "relu.pt")
    return tmp_path / "relu.pt"


def start_from(file: Path, **changes: Any) -> tuple[nn.Module, dict[str, Any]]:
    plan = replace(PLAN, width=1 / 16, **changes)
    return untrained(replace(plan, recipe=replace(plan.recipe, initial_weights=str(file), threshold_percentile=90.0)))


def test_weights_of_a_relu_network_are_copied_and_thresholds_set_from_images(relu_file: Path) -> None:
    network, facts = start_from(relu_file)
    given = read(relu_file)["state_dict"]
    own = network.state_dict()
    assert all(torch.equal(own[name], value) for name, value in given.items())
    kept = [name for name in own if name not in given]
    assert facts == {"initial_weights": {"copied": len(given), "kept": kept}}
    assert len(kept) == 17 and all(name.endswith("threshold") for name in kept)
    recipe = replace(RECIPE, augmentation=(), epochs=1, initial_weights=str(relu_file), learning_rate=1e-9)
    train(network, pictures(), recipe, seed=5, device=CPU, stop_after=1)
    relu, _ = untrained(relu_plan())
    copy_weights(relu, relu_file)
    stem = nn.Sequential(relu.get_submodule("stem.0"), relu.get_submodule("stem.1")).eval()
    images = pictures()
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(5 * 0x9E3779B1 % 2**32))
    inputs = stem(images.normalisation(images.pixels[order[:8]])).detach()
    expected = np.percentile(inputs[inputs > 0].numpy(), 90)
    first = network.get_parameter("stem.2.threshold").detach()
    assert float(first) == pytest.approx(float(expected), rel=0.02)
    assert all(float(module.threshold.detach()) != 4 for module in network.modules() if isinstance(module, QCFS))


def test_thresholds_in_the_file_remain(tmp_path: Path) -> None:
    source, _ = untrained(replace(PLAN, width=1 / 16, seed=3))
    for module in source.modules():
        if isinstance(module, QCFS):
            module.threshold.data.fill_(2.5)
    save_checkpoint(source, {}, tmp_path / "qcfs.pt")
    network, facts = start_from(tmp_path / "qcfs.pt")
    assert equal(network, source) and facts["initial_weights"]["kept"] == []
    assert all(module.initialised for module in network.modules() if isinstance(module, QCFS))


def test_a_head_for_other_classes_keeps_its_random_weights(relu_file: Path) -> None:
    network, facts = start_from(relu_file, data=replace(PLAN.data, classes=7))
    assert {"head.2.weight", "head.2.bias"} <= set(facts["initial_weights"]["kept"])
    assert network.get_parameter("head.2.weight").shape[0] == 7


def test_weights_of_another_network_are_refused(relu_file: Path, tmp_path: Path) -> None:
    before, _ = untrained(replace(PLAN, width=1 / 8))
    after, _ = untrained(replace(PLAN, width=1 / 8))
    with pytest.raises(InputError, match=r"0 of the network's 21 weight matrices are in it.*Was it made for another width"):
        copy_weights(after, relu_file)
    assert equal(before, after)
    asked = Request("smoke", ("cifar10-vgg16-qcfs",), {"initial_weights": str(relu_file)}, home=str(tmp_path))
    with pytest.raises(InputError, match=r"'cifar10-vgg16-qcfs': initial_weights=.*under half: .*another architecture"):
        checked(asked)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_torchvisions_resnets_are_the_same_networks_under_other_names(name: str, tmp_path: Path) -> None:
    theirs = torchvision().models.get_model(name, num_classes=10).eval()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.1, 0.5)
            module.get_buffer("running_mean").normal_(std=0.1)
    theirs.maxpool = nn.AvgPool2d(3, 2, 1)
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    plan = relu_plan()
    data = replace(plan.data, stem="imagenet")
    ours, _ = untrained(replace(plan, architecture=name, width=1.0, data=data))
    assert copy_weights(ours, tmp_path / "theirs.pth").kept == ()
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(ours.eval()(images), theirs(images), rtol=1e-4, atol=1e-4)


def test_torchvisions_vgg_is_the_same_network_under_other_names(tmp_path: Path) -> None:
    """Its convolutions have biases, which ours have not."""
    narrow = [size if size == "M" else size // 16 for size in torchvision().models.vgg.cfgs["D"]]
    features = torchvision().models.vgg.make_layers(narrow, batch_norm=True)
    for index, module in enumerate(features):
        if isinstance(module, nn.MaxPool2d):
            features[index] = nn.AvgPool2d(2)
        elif isinstance(module, nn.BatchNorm2d):
            module.get_buffer("running_mean").normal_(std=0.1)
    head = nn.Sequential(
        nn.Linear(32, 256), nn.ReLU(), nn.Dropout(), nn.Linear(256, 256), nn.ReLU(), nn.Dropout(), nn.Linear(256, 10)
    )
    theirs = nn.ModuleDict({"features": features, "classifier": head}).eval()
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    ours, _ = untrained(replace(relu_plan(), architecture="vgg16", width=1 / 16))
    assert copy_weights(ours, tmp_path / "theirs.pth").kept == ()
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        expected = head(features(images).flatten(1))
        torch.testing.assert_close(ours.eval()(images), expected, rtol=1e-4, atol=1e-5)
