"""The eight settings of the paper, and the profiles that say how much of them is run.

A setting is data: a network on a data set, converted by a method, with the paper's figures beside it. A ninth is one more
entry of ``SETTINGS``. A profile resolves a setting into a ``Plan``: every number that a run needs. Shells (tasks, flows,
commands) read this file; the code that computes never does, so that an entry added here makes no finished stage stale.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from dynconf_core.errors import InputError
from dynconf_core.experiment.plan import Data, Plan, Search
from dynconf_core.experiment.recipe import Recipe


@dataclass(frozen=True)
class Published:
    """A row of the paper. Accuracies are fractions; None where no source gives the figure.

    ``label``: "S" a source states it, "2" second-hand. ``net_named`` is False where the source does not name the network,
    so that the row is a footnote of the table and not a row's neighbour.
    """

    source: str
    label: str
    ann_accuracy: float | None = None
    snn_accuracy: float | None = None
    time_steps: int | None = None
    exit_accuracy: float | None = None
    mean_steps: float | None = None
    net_named: bool = True


@dataclass(frozen=True)
class Setting:
    """One of the paper's settings, whatever the profile."""

    name: str
    dataset: str
    architecture: str
    method: str
    published: Published | None = None


T = TypeVar("T")
PAPER = "Li, Jones, Furber, ICCV 2023"
SETTINGS: dict[str, Setting] = {
    setting.name: setting
    for setting in (
        Setting("cifar10-vgg16-qcfs", "cifar10", "vgg16", "qcfs"),
        Setting("cifar10-vgg16-qffs", "cifar10", "vgg16", "qffs"),
        Setting(
            "cifar10-resnet18-qcfs",
            "cifar10",
            "resnet18",
            "qcfs",
            Published("the authors' released log", "S", 0.9379, 0.9427, 27, 0.9427, 11.51),
        ),
        Setting("cifar10-resnet18-qffs", "cifar10", "resnet18", "qffs"),
        Setting("imagenet-vgg16-qcfs", "imagenet", "vgg16", "qcfs"),
        Setting(
            "imagenet-vgg16-qffs",
            "imagenet",
            "vgg16",
            "qffs",
            Published(PAPER, "S", None, 0.7252, 4, 0.7252, 2.86),
        ),
        Setting("imagenet-resnet50-qcfs", "imagenet", "resnet50", "qcfs"),
        Setting(
            "imagenet-resnet50-qffs",
            "imagenet",
            "resnet50",
            "qffs",
            Published(PAPER, "S", None, 0.7317, 6, 0.7317, 4.42),
        ),
    )
}
UNNAMED: dict[tuple[str, str], Published] = {
    ("cifar10", "qffs"): Published(PAPER, "2", time_steps=4, mean_steps=2.52, net_named=False),
    ("imagenet", "qcfs"): Published(PAPER, "2", mean_steps=49.5, net_named=False),
}
"""Rows of the paper whose network no source at hand names, by data set and method."""
FAMILIES = {"cifar10": "CIFAR-10", "imagenet": "ImageNet"}


@dataclass(frozen=True)
class Profile:
    """How much of every setting is run.

    Attributes:
        data: the images of each family ("cifar10", "imagenet").
        width: factor on every network's channels.
        recipes: of each architecture; "" is the one for those not named. Keys are "family/architecture" or "".
        levels: L of QCFS, for each family.
        time_steps: T, for each (method, family).
        jobs: how many settings run side by side.
        threads: of torch for each setting, since figures depend on it in the last digits; None takes all.
    """

    name: str
    summary: str
    data: Mapping[str, Data]
    width: float
    recipes: Mapping[str, Recipe]
    levels: Mapping[str, int]
    qcfs_time_steps: Mapping[str, int]
    jobs: int
    threads: int | None = None
    bits: int = 2
    qffs_time_steps: int = 8


_SHORT = Recipe(epochs=8, batch_size=32, learning_rate=0.1, augmentation=(), initial_threshold=4.0)
_QUICK = Recipe(epochs=15, batch_size=128, learning_rate=0.1, augmentation=("crop", "flip"), initial_threshold=4.0)
_CIFAR = Recipe(
    epochs=300,
    batch_size=128,
    learning_rate=0.1,
    augmentation=("crop", "flip", "autoaugment", "cutout"),
    initial_threshold=8.0,
    warm_up=0.02,
)
_IMAGENET = Recipe(
    epochs=120,
    batch_size=256,
    learning_rate=0.1,
    augmentation=("flip", "jitter"),
    initial_threshold=8.0,
    weight_decay=1e-4,
    warm_up=0.04,
)

PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile(
            "smoke",
            "handwritten digits, an eighth of the width; minutes on a laptop",
            {
                "cifar10": Data("digits", "CIFAR-10", 32, 1000, 300, 10, "cifar"),
                "imagenet": Data("digits", "ImageNet", 48, 1000, 300, 10, "imagenet"),
            },
            1 / 8,
            {
                "": _SHORT,
                "cifar10/resnet18": replace(_SHORT, epochs=6),
                "imagenet/resnet50": replace(_SHORT, epochs=12, batch_size=25),
            },
            {"cifar10": 4, "imagenet": 4},
            {"cifar10": 32, "imagenet": 32},
            jobs=2,
            threads=1,
        ),
        Profile(
            "quick",
            "real CIFAR-10, Imagenette at 64 px for ImageNet, a quarter of the width; an hour or two on two cores",
            {
                "cifar10": Data("cifar10", None, 32, 45000, 5000, 10, "cifar"),
                "imagenet": Data("imagenette", "ImageNet", 64, 8469, 1000, 10, "imagenet"),
            },
            1 / 4,
            {
                "": _QUICK,
                "imagenet/vgg16": replace(_QUICK, batch_size=64),
                "imagenet/resnet50": replace(_QUICK, batch_size=64),
            },
            {"cifar10": 4, "imagenet": 4},
            {"cifar10": 32, "imagenet": 32},
            jobs=1,
        ),
        Profile(
            "paper",
            "CIFAR-10 and ImageNet, full width, the sources' recipes; GPUs",
            {
                "cifar10": Data("cifar10", None, 32, 45000, 5000, 10, "cifar"),
                "imagenet": Data("imagenet", None, 224, 1271167, 10000, 1000, "imagenet"),
            },
            1.0,
            {"": _CIFAR, "imagenet/vgg16": _IMAGENET, "imagenet/resnet50": _IMAGENET},
            {"cifar10": 4, "imagenet": 8},
            {"cifar10": 32, "imagenet": 64},
            jobs=1,
        ),
    )
}


def setting(name: str) -> Setting:
    """The setting called ``name``.

    Raises:
        InputError: for an unknown name, with the nearest one.
    """
    return named("setting", SETTINGS, name)


def paper_time_steps(name: str) -> int | None:
    """The T at which the paper runs this setting, or a network of its family; None where no source at hand says."""
    chosen = setting(name)
    row = chosen.published or UNNAMED.get((chosen.dataset, chosen.method))
    return None if row is None else row.time_steps


def profile(name: str) -> Profile:
    """The profile called ``name``.

    Raises:
        InputError: for an unknown name.
    """
    return named("profile", PROFILES, name)


def resolve(setting_name: str, profile_name: str, seed: int = 0) -> Plan:
    """What a profile makes of a setting.

    Raises:
        InputError: for an unknown name, or a seed that is negative or above 2^31 - 1.
    """
    chosen, how = setting(setting_name), profile(profile_name)
    if not 0 <= seed < 2**31:
        raise InputError(f"seed={seed}: give a whole number from 0 to 2147483647.")
    family = chosen.dataset
    recipe = how.recipes.get(f"{family}/{chosen.architecture}", how.recipes[""])
    qcfs = chosen.method == "qcfs"
    return Plan(
        setting=chosen.name,
        profile=how.name,
        data=how.data[family],
        architecture=chosen.architecture,
        width=how.width,
        method=chosen.method,
        levels=how.levels[family] if qcfs else None,
        bits=None if qcfs else how.bits,
        time_steps=how.qcfs_time_steps[family] if qcfs else how.qffs_time_steps,
        recipe=recipe,
        search=Search(),
        seed=seed,
    )


def named(kind: str, known: Mapping[str, T], name: str) -> T:
    """The entry called ``name``; ``InputError`` for an unknown name, with the nearest one."""
    from difflib import get_close_matches

    if name in known:
        return known[name]
    near = get_close_matches(name, known, n=1, cutoff=0.6)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    raise InputError(f"{kind} {name!r} is unknown{hint}: choose one of {', '.join(known)}.")
