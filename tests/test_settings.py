"""The settings, the profiles, and the fields that may be overridden."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from dynconf_core.data.augment import AUGMENTATIONS
from dynconf_core.data.dataset import DATASETS
from dynconf_core.errors import InputError
from dynconf_core.experiment.overrides import OF_FINE_TUNING, applied, check_used, known_fields, parse, typed
from dynconf_core.experiment.plan import Plan
from dynconf_core.experiment.points import checked_sweep
from dynconf_core.experiment.profiles import PROFILES, profile, resolve
from dynconf_core.experiment.recipe import OPTIONS, Recipe, augmentations
from dynconf_core.experiment.request import Request, checked
from dynconf_core.experiment.settings import FURTHER, SETTINGS, UNNAMED, Setting, setting
from dynconf_core.machine import device
from dynconf_core.networks.architecture import ARCHITECTURES, STEMS
from dynconf_core.schemes.network import described

EIGHT = [
    "cifar10-vgg16-qcfs",
    "cifar10-vgg16-qffs",
    "cifar10-resnet18-qcfs",
    "cifar10-resnet18-qffs",
    "imagenet-vgg16-qcfs",
    "imagenet-vgg16-qffs",
    "imagenet-resnet50-qcfs",
    "imagenet-resnet50-qffs",
]


def test_the_eight_settings() -> None:
    assert list(SETTINGS) == EIGHT
    for name, entry in SETTINGS.items():
        assert name == entry.name == f"{entry.dataset}-{entry.architecture}-{entry.method}"


def test_published_figures() -> None:
    """As the sources state them; a figure that no source ties to a network stands beside no network."""
    rows = {name: entry.published for name, entry in SETTINGS.items() if entry.published is not None}
    figures = {
        name: (row.ann_accuracy, row.snn_accuracy, row.time_steps, row.exit_accuracy, row.mean_steps)
        for name, row in rows.items()
    }
    assert figures == {
        "cifar10-resnet18-qcfs": (0.9379, 0.9427, 27, 0.9427, 11.51),
        "imagenet-vgg16-qffs": (None, 0.7252, 4, 0.7252, 2.86),
        "imagenet-resnet50-qffs": (None, 0.7317, 6, 0.7317, 4.42),
    }
    assert all(row.label == "S" and row.net_named for row in rows.values())
    assert [(row.label, row.net_named, row.mean_steps) for row in UNNAMED.values()] == [("2", False, 2.52), ("2", False, 49.5)]


@pytest.mark.parametrize("name", EIGHT)
@pytest.mark.parametrize("profile_name", list(PROFILES))
def test_every_plan_is_whole(name: str, profile_name: str) -> None:
    plan = resolve(name, profile_name, seed=3)
    assert (plan.setting, plan.profile, plan.seed) == (name, profile_name, 3)
    assert list(plan.scheme.network()) == (["levels"] if plan.method == "qcfs" else ["bits"])
    assert plan.data.name in DATASETS.names() and plan.data.stem in STEMS and plan.architecture in ARCHITECTURES.names()
    assert set(plan.recipe.augmentation) <= set(AUGMENTATIONS)
    (number,) = plan.scheme.network().values()
    assert plan.time_steps >= (number if plan.method == "qcfs" else 2**number - 1)
    assert json.loads(json.dumps(plan.as_dict()))["data"]["resolution"] == plan.data.resolution
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.seed = 4  # type: ignore[misc]


@pytest.mark.parametrize("name", EIGHT)
def test_smoke_networks_build(name: str) -> None:
    """The description of a plan is what makes a network, and goes through JSON unchanged."""
    plan = resolve(name, "smoke")
    description = json.loads(json.dumps(plan.network()))
    network = described(description, seed=0).eval()
    side = plan.data.resolution
    with torch.inference_mode():
        assert network(torch.zeros(1, 3, side, side)).shape == (1, 10)


@pytest.mark.parametrize(
    ("profile_name", "dataset", "method", "expected"),
    [
        # L or bits, T, width, data, side, calibration, classes
        ("smoke", "cifar10", "qcfs", (4, 32, 1 / 8, "digits", 32, 300, 10)),
        ("smoke", "cifar10", "qffs", (2, 8, 1 / 8, "digits", 32, 300, 10)),
        ("smoke", "imagenet", "qcfs", (4, 32, 1 / 8, "digits", 48, 300, 10)),
        ("smoke", "imagenet", "qffs", (2, 8, 1 / 8, "digits", 48, 300, 10)),
        ("quick", "cifar10", "qcfs", (4, 32, 1 / 4, "cifar10", 32, 5000, 10)),
        ("quick", "imagenet", "qffs", (2, 8, 1 / 4, "imagenette", 64, 1000, 10)),
        ("paper", "cifar10", "qcfs", (4, 32, 1, "cifar10", 32, 5000, 10)),
        ("paper", "cifar10", "qffs", (2, 8, 1, "cifar10", 32, 5000, 10)),
        ("paper", "imagenet", "qcfs", (8, 64, 1, "imagenet", 224, 10000, 1000)),
        ("paper", "imagenet", "qffs", (2, 8, 1, "imagenet", 224, 10000, 1000)),
    ],
)
def test_profiles(profile_name: str, dataset: str, method: str, expected: tuple[Any, ...]) -> None:
    plan = resolve(f"{dataset}-vgg16-{method}", profile_name)
    data = plan.data
    (number,) = plan.scheme.network().values()
    found = (number, plan.time_steps, plan.width, data.name, data.resolution, data.calibration, data.classes)
    assert found == expected


def test_stand_ins_are_named() -> None:
    names = {(p, s): resolve(s, p).data.stands_in_for for p in PROFILES for s in EIGHT}
    assert {names["smoke", s] for s in EIGHT[:4]} == {"CIFAR-10"} and {names["smoke", s] for s in EIGHT[4:]} == {"ImageNet"}
    assert {names["quick", s] for s in EIGHT[:4]} == {None} and {names["quick", s] for s in EIGHT[4:]} == {"ImageNet"}
    assert {names["paper", s] for s in EIGHT} == {None}


def test_recipes() -> None:
    """The paper's recipe at the paper's start; the short ones start lambda at 4; a ResNet-50 gets more updates."""
    full = resolve("cifar10-resnet18-qcfs", "paper").recipe
    assert (full.epochs, full.learning_rate, full.momentum, full.weight_decay, full.initial_threshold) == (
        300,
        0.1,
        0.9,
        5e-4,
        8,
    )
    assert full.augmentation == ("crop", "flip", "autoaugment", "cutout")
    assert resolve("imagenet-resnet50-qcfs", "paper").recipe.weight_decay == 1e-4
    short = {name: resolve(name, "smoke").recipe for name in EIGHT}
    assert {recipe.initial_threshold for recipe in short.values()} == {4.0}
    assert [short[name].epochs for name in EIGHT[::2]] == [8, 6, 8, 12]
    assert [short[name].batch_size for name in EIGHT[::2]] == [32, 32, 32, 25]
    assert {resolve(name, "quick").recipe.epochs for name in EIGHT} == {15}


def of(**changes: Any) -> Setting:
    """A setting that is none of the eight."""
    return Setting(**{"name": "mine", "dataset": "cifar10", "architecture": "vgg16", "method": "qcfs", **changes})


@pytest.mark.parametrize(("profile_name", "epochs", "decay"), [("smoke", 8, 5e-4), ("quick", 15, 5e-4), ("paper", 120, 1e-4)])
def test_a_ninth_setting_gets_the_recipe_of_its_data(profile_name: str, epochs: int, decay: float) -> None:
    """A ResNet-34 on ImageNet is trained as ImageNet networks are, in every profile."""
    plan = resolve(of(name="imagenet-resnet34-qcfs", dataset="imagenet", architecture="resnet34"), profile_name)
    assert (plan.recipe.epochs, plan.recipe.weight_decay, plan.data.stem) == (epochs, decay, "imagenet")
    assert not {"autoaugment", "cutout"} & set(plan.recipe.augmentation)


def test_a_setting_of_ones_own() -> None:
    """Its recipe, its scheme's numbers, its T and its width go before the profile's."""
    recipe = Recipe(epochs=2, batch_size=10, learning_rate=0.1, augmentation=(), initial_threshold=2.0)
    plan = resolve(of(recipes={"quick": recipe}, scheme={"levels": 6}, time_steps=12, width=0.5), "quick")
    assert (plan.recipe, plan.scheme.network(), plan.time_steps, plan.width) == (recipe, {"levels": 6}, 12, 0.5)
    assert resolve(of(recipes={"quick": recipe}), "smoke").recipe.epochs == 8
    by_name = Request(settings=("dynconf_core.experiment.settings:LATER",))
    with pytest.raises(InputError, match="has no 'LATER'"):
        by_name.plans()


def test_a_setting_that_the_paper_has_not() -> None:
    """It is run where it is named, on the data that it was trained on, whatever the profile."""
    assert not set(FURTHER) & set(SETTINGS) and len(Request().plans()) == 8
    plan = resolve("cifar10-resnet20-post-training", "smoke")
    assert (plan.data.name, plan.data.normalisation, plan.width, plan.scheme_fields()) == (
        "cifar10",
        "imagenet",
        1,
        {"levels": 15},
    )


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: setting("cifar10-vgg16-qcf"),
            r"setting 'cifar10-vgg16-qcf' is unknown \(did you mean 'cifar10-vgg16-qcfs'\?\): choose",
        ),
        (lambda: setting("zzz"), r"setting 'zzz' is unknown: choose one of cifar10-vgg16-qcfs, .*imagenet-resnet50-qffs"),
        (lambda: setting("nowhere_at_all:SETTING"), "setting 'nowhere_at_all:SETTING': there is no module nowhere_at_all"),
        (lambda: setting("dynconf_core.errors:NOTHING"), "module dynconf_core.errors has no 'NOTHING'"),
        (lambda: setting("dynconf_core.errors:InputError"), "is a class: name an object of the class .*Setting"),
        (
            lambda: resolve(of(dataset="cifar1000"), "smoke"),
            "data set 'cifar1000' is unknown .*: choose one of digits, cifar10",
        ),
        (lambda: resolve(of(architecture="resnet35"), "smoke"), "architecture 'resnet35' is unknown .*: choose one of vgg16"),
        (lambda: resolve(of(method="qfss"), "smoke"), "conversion scheme 'qfss' is unknown .*: choose one of qcfs, qffs"),
        (lambda: resolve(of(scheme={"bits": 2}), "smoke"), "setting 'mine': field of qcfs 'bits' is unknown: .*levels"),
        (
            lambda: resolve(of(dataset="imagenet", architecture="resnet20"), "paper"),
            "profile paper has no recipe for resnet20 on",
        ),
        (
            lambda: resolve(of(dataset="digits"), "quick"),
            "for vgg16 on digits. There are recipes for vgg16 on cifar10",
        ),
        (lambda: profile("smoky"), r"profile 'smoky' is unknown \(did you mean 'smoke'\?\): choose one of smoke, quick, paper"),
        (lambda: resolve("cifar10-vgg16-qcfs", "quik"), "did you mean 'quick'"),
        (lambda: resolve("cifar10-vgg16-qcfs", "smoke", -1), "seed=-1: give a whole number"),
        (lambda: resolve("cifar10-vgg16-qcfs", "smoke", 2**31), "seed=2147483648"),
    ],
)
def test_unknown_names(call: Callable[[], object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        call()


# Overrides


def number(plan: Plan, name: str) -> Any:
    """A number of the plan's scheme; None where it has no such field."""
    return plan.scheme_fields().get(name)


def read(texts: list[str]) -> dict[str, Any]:
    """The values that the command line's assignments set."""
    return {name: typed(name, given) for name, given in parse(texts).items()}


def qcfs() -> Plan:
    return resolve("cifar10-resnet18-qcfs", "smoke")


def qffs() -> Plan:
    return resolve("cifar10-resnet18-qffs", "smoke")


@pytest.mark.parametrize(
    ("text", "expected", "get"),
    [
        ("time_steps=16", 16, lambda p: p.time_steps),
        ("levels=8", 8, lambda p: number(p, "levels")),
        ("bits=3", 3, lambda p: number(p, "bits")),
        ("initial_potential=0.25", 0.25, lambda p: number(p, "initial_potential")),
        ("epochs=2", 2, lambda p: p.recipe.epochs),
        ("width=0.25", 0.25, lambda p: p.width),
        ("batch_size=64", 64, lambda p: p.recipe.batch_size),
        ("learning_rate=1e-2", 0.01, lambda p: p.recipe.learning_rate),
        ("warm_up=0.05", 0.05, lambda p: p.recipe.warm_up),
        ("initial_threshold=6", 6.0, lambda p: p.recipe.initial_threshold),
        ("momentum=0.8", 0.8, lambda p: p.recipe.momentum),
        ("weight_decay=0", 0.0, lambda p: p.recipe.weight_decay),
        ("nesterov=true", True, lambda p: p.recipe.nesterov),
        ("label_smoothing=0.1", 0.1, lambda p: p.recipe.label_smoothing),
        ("averaging=0.999", 0.999, lambda p: p.recipe.averaging),
        ("zero_gamma=true", True, lambda p: p.recipe.zero_gamma),
        ("decay_thresholds=false", False, lambda p: p.recipe.decay_thresholds),
        ("decay_norms=false", False, lambda p: p.recipe.decay_norms),
        ("threshold_percentile=99.9", 99.9, lambda p: p.recipe.threshold_percentile),
        ("finer_start=4", 4, lambda p: p.recipe.finer_start),
        ("noise=0.5", 0.5, lambda p: p.recipe.noise),
        ("rcs=0.01", 0.01, lambda p: p.recipe.rcs),
        ("fixed_point=false", False, lambda p: p.fixed_point),
        (" fixed_point = False ", False, lambda p: p.fixed_point),
        ("rule=max_softmax", "max_softmax", lambda p: p.search.rule),
        ("smoothing=mean", "mean", lambda p: p.search.smoothing),
        (" alpha = 30 ", 30.0, lambda p: p.search.alpha),
        ("max_drop=0.005", 0.005, lambda p: p.search.max_drop),
    ],
)
def test_every_field(text: str, expected: object, get: Callable[[Plan], object]) -> None:
    """Read with its type, and put where it belongs and nowhere else."""
    values = read([text])
    (name,) = values
    assert values[name] == expected and type(values[name]) is type(expected)
    plan = qffs() if name == "bits" else qcfs()
    changed = applied(plan, values)
    assert get(changed) == expected

    def flat(content: dict[str, Any]) -> dict[str, Any]:
        return {
            k: v for key, part in content.items() for k, v in (flat(part) if isinstance(part, dict) else {key: part}).items()
        }

    before, after = flat(plan.as_dict()), flat(changed.as_dict())
    assert {key for key in before if before[key] != after[key]} <= {name}
    assert typed(name, expected) == expected


def test_every_field_is_tested() -> None:
    assert set(known_fields()) == {
        *("time_steps", "levels", "bits", "fixed_point", "initial_potential", "epochs", "width", "batch_size"),
        *("learning_rate", "warm_up", "initial_threshold", "rule", "smoothing", "alpha", "max_drop", "readout"),
        *("augmentation", "momentum", "weight_decay", *OPTIONS),
        *OF_FINE_TUNING,  # in tests/test_fine_tuning_stage.py
    }


@pytest.mark.parametrize(
    "text",
    [
        *("time_steps=0", "time_steps=4097", "time_steps=1.5", "time_steps=many", "time_steps=", "time_steps=True"),
        *("levels=0", "levels=257", "bits=0", "bits=9", "epochs=0", "epochs=-1", "epochs=10001", "epochs=" + "9" * 400),
        *("width=0", "width=-1", "width=5", "width=nan", "width=inf", "batch_size=1", "batch_size=65537"),
        *("learning_rate=0", "learning_rate=11", "learning_rate=nan", "rule=luck", "smoothing=median", "smoothing="),
        *(
            "alpha=0",
            "alpha=-3",
            "alpha=inf",
            "fixed_point=no",
            "fixed_point=0",
            "fixed_point=",
            "max_drop=-0.1",
            "max_drop=1.1",
            "max_drop=x",
        ),
        *("initial_potential=1", "initial_potential=-0.1", "initial_potential=nan"),
        *("warm_up=-0.1", "warm_up=2", "initial_threshold=0", "initial_threshold=inf"),
    ],
)
def test_values_that_cannot_work(text: str) -> None:
    """The message names the field, the value and what is needed."""
    name, _, given = text.partition("=")
    with pytest.raises(InputError) as caught:
        read([text])
    assert str(caught.value).startswith(f"{name}={given}: needs {known_fields()[name].wants}")


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["time_step=3"], "field 'time_step' is unknown .did you mean 'time_steps'.*: choose one of time_steps, width"),
        (["T=16"], "field 'T' is called time_steps: write time_steps=16"),
        (["t=16"], "field 't' is called time_steps"),
        (["L=8"], "field 'L' is called levels: write levels=8"),
        (["l=8"], "field 'l' is called levels"),
        (["time_steps"], "--set time_steps: write field=value, such as"),
        (["=3"], "field '' is unknown"),
        (["epochs=3", "epochs=4"], "--set epochs is given twice"),
    ],
)
def test_assignments_that_cannot_work(texts: list[str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        read(texts)


def test_fields_that_a_setting_lacks() -> None:
    """levels go to the QCFS settings of a choice, bits to the QFFS ones; alone with the others they are a mistake."""
    values = read(["levels=8", "bits=3", "time_steps=5"])
    one, other = applied(qcfs(), values), applied(qffs(), values)
    assert (number(one, "levels"), number(one, "bits"), one.time_steps) == (8, None, 5)
    assert (number(other, "levels"), number(other, "bits"), other.time_steps) == (None, 3, 5)
    check_used([qcfs(), qffs()], values)
    with pytest.raises(InputError, match=r"field 'bits' belongs to none of the chosen settings \(cifar10-resnet18-qcfs\)"):
        check_used([qcfs()], values)
    with pytest.raises(InputError, match="field 'levels' belongs to none"):
        check_used([qffs()], values)


def test_parsed_in_order_and_empty() -> None:
    assert parse([]) == {} and list(parse(["epochs=1", "alpha=2"])) == ["epochs", "alpha"]
    assert applied(qcfs(), {}) == qcfs()


# Devices


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert device("auto") == device("cpu") == torch.device("cpu")
    with pytest.raises(
        InputError, match=r"device='cuda' is not available \(CUDA devices on this machine: 0\): use --device cpu"
    ):
        device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert device("auto") == torch.device("cuda") and device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(InputError, match=r"device='cuda:2' is not available \(CUDA devices on this machine: 2"):
        device("cuda:2")


@pytest.mark.parametrize("name", ["gpu", "", "cuda:", "meta", "mps"])
def test_unknown_devices(name: str) -> None:
    with pytest.raises(InputError, match=f"device='{name}'"):
        device(name)


@pytest.mark.parametrize(
    ("overrides", "grid", "study"),
    [
        ({"fine_tune_steps": 2, "fine_tune_rate": 0.1}, {"fine_tune_epochs": "0,1"}, {}),
        ({"fine_tune_epochs": 1}, {"fine_tune_steps": "2,4"}, {}),
        ({"fine_tune_distilled": 1}, {}, {"fine_tune_epochs": "0..2"}),
        ({"alpha": 3}, {"rule": "patience,max_softmax"}, {}),
        ({}, {"smoothing": "sum,mean"}, {"alpha": "1..10"}),
        ({"smoothing": "sum", "alpha": 3, "rule": "best"}, {}, {}),
        ({"decay_norms": "false"}, {}, {}),
    ],
)
def test_a_field_has_to_matter_at_one_point(
    overrides: Mapping[str, Any], grid: Mapping[str, str], study: Mapping[str, str], tmp_path: Path
) -> None:
    """The others are in test_cli."""
    asked = Request(settings=("cifar10-resnet18-qcfs",), overrides=overrides, home=str(tmp_path))
    swept = [(texts, {}) if texts is grid else ({}, texts) for texts in (grid, study) if texts]
    for given in swept:
        assert checked_sweep(asked, *given, trials=2).asked.request is asked
    if not swept:
        assert checked(asked).request is asked


@pytest.mark.parametrize(
    ("grid", "study", "told"),
    [
        ({}, {"finer_start": "1..8"}, "finer_start needs a power of two from 1 to 64; list its values, finer_start=1,2,4,8."),
        ({"noise": "0.5,0.50"}, {}, "noise=0.5,0.50: 0.5 is given twice"),
        ({}, {"levels": "2,4,2"}, "levels=2,4,2: 2 is given twice"),
        ({"zero_gamma": "false,true"}, {}, "the network has no residual blocks"),
    ],
)
def test_all_points_of_a_sweep_are_checked(
    grid: Mapping[str, str], study: Mapping[str, str], told: str, tmp_path: Path
) -> None:
    asked = Request(settings=("cifar10-vgg16-qcfs",), home=str(tmp_path))
    with pytest.raises(InputError, match=re.escape(told)):
        checked_sweep(asked, grid, study, trials=2)


@pytest.mark.parametrize(
    ("setting", "fields", "told"),
    [
        ("cifar10-resnet18-qcfs", {"zero_gamma": "true", "initial_weights": "w.pt"}, "zero_gamma=true changes nothing beside"),
        ("cifar10-resnet18-qffs", {"threshold_percentile": 50, "initial_weights": "w.pt"}, "belongs to none of the chosen"),
        ("cifar10-resnet20-post-training", {"decay_thresholds": "false"}, "are not learned but found from calibration images"),
        ("cifar10-resnet18-qcfs", {"augmentation": "crop+crop"}, "augmentation=crop+crop: needs none, or some of crop"),
    ],
)
def test_what_would_change_nothing_is_refused(setting: str, fields: Mapping[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=re.escape(told)):
        checked(Request(settings=(setting,), overrides=fields, home=str(tmp_path)))


def test_augmentations_have_one_order() -> None:
    assert augmentations("cutout+flip+crop") == ("crop", "flip", "cutout") and augmentations("none") == ()


def test_thresholds_of_a_file_start_at_no_other_value(tmp_path: Path) -> None:
    fields = {"initial_weights": str(tmp_path / "weights.pt"), "initial_threshold": 2}
    with pytest.raises(InputError, match=r"initial_threshold=2 changes nothing beside initial_weights.*_percentile"):
        checked(Request(settings=("cifar10-resnet18-qcfs",), overrides=fields, home=str(tmp_path)))
