"""Profiles, which define the scale of a run, and the resolution of a setting into a plan."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

from dynconf_core.data.dataset import DATASETS
from dynconf_core.errors import InputError
from dynconf_core.experiment.plan import Data, Plan, Search
from dynconf_core.experiment.recipe import Recipe
from dynconf_core.experiment.settings import Setting, paper_time_steps, setting
from dynconf_core.networks.architecture import ARCHITECTURES, STEMS
from dynconf_core.registry import unknown
from dynconf_core.schemes.scheme import SCHEMES, ConversionScheme


@dataclass(frozen=True)
class StandIn:
    """A small data set that replaces a larger one; networks keep the stem for the larger one."""

    dataset: str
    resolution: int


@dataclass(frozen=True)
class Profile:
    """The scale at which settings are run.

    Attributes:
        name, summary: as ``dynconf settings`` shows them.
        width: factor on the number of channels of every network.
        stand_ins: stand-ins by the family of data sets they replace.
        recipes: recipes by (family of the data set, architecture). There is no default, since another network's recipe would
            silently train this one badly.
        jobs: the number of settings run in parallel.
        threads: torch threads per setting, on which the last digits of figures depend; None uses all.
    """

    name: str
    summary: str
    width: float
    stand_ins: Mapping[str, StandIn]
    recipes: Mapping[tuple[str, str], Recipe]
    jobs: int
    threads: int | None = None


_SHORT = Recipe(epochs=8, batch_size=32, learning_rate=0.1, augmentation=(), initial_threshold=4.0)
_QUICK = Recipe(epochs=15, batch_size=128, learning_rate=0.1, augmentation=("crop", "flip"), initial_threshold=4.0)
_QUICK_LARGE = replace(_QUICK, batch_size=64)
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
_CIFAR_NETWORKS = ("vgg16", "resnet18", "resnet34", "resnet50", "resnet20", "resnet32", "resnet44", "resnet56", "resnet110")
_IMAGENET_NETWORKS = ("vgg16", "resnet18", "resnet34", "resnet50")

PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile(
            "smoke",
            "handwritten digits, an eighth of the width; minutes on a laptop",
            1 / 8,
            {"cifar10": StandIn("digits", 32), "imagenet": StandIn("digits", 48)},
            {
                **{("cifar10", name): _SHORT for name in _CIFAR_NETWORKS},
                **{("imagenet", name): _SHORT for name in _IMAGENET_NETWORKS},
                ("cifar10", "resnet18"): replace(_SHORT, epochs=6),
                ("imagenet", "resnet50"): replace(_SHORT, epochs=12, batch_size=25),
            },
            jobs=2,
            threads=1,
        ),
        Profile(
            "quick",
            "real CIFAR-10, Imagenette at 64 px for ImageNet, a quarter of the width; an hour or two on two cores",
            1 / 4,
            {"imagenet": StandIn("imagenette", 64)},
            {
                **{("cifar10", name): _QUICK for name in _CIFAR_NETWORKS},
                **{("imagenet", name): _QUICK_LARGE for name in _IMAGENET_NETWORKS},
            },
            jobs=1,
        ),
        Profile(
            "paper",
            "CIFAR-10 and ImageNet, full width, the sources' recipes; GPUs",
            1.0,
            {},
            {
                **{("cifar10", name): _CIFAR for name in _CIFAR_NETWORKS},
                **{("imagenet", name): _IMAGENET for name in _IMAGENET_NETWORKS},
            },
            jobs=1,
        ),
    )
}


def profile(name: str) -> Profile:
    """The profile called ``name``.

    Raises:
        InputError: for an unknown name.
    """
    if name not in PROFILES:
        raise InputError(unknown("profile", name, tuple(PROFILES)))
    return PROFILES[name]


def resolve(asked: str | Setting, profile_name: str, seed: int = 0) -> Plan:
    """The plan of a setting, given by name or as an object, in a profile.

    Raises:
        InputError: for an unknown name (of a setting, profile, data set, architecture or scheme), a network without a recipe, a
            parameter that the scheme does not have, or a seed below 0 or above 2^31 - 1.
    """
    chosen = asked if isinstance(asked, Setting) else setting(asked)
    how = profile(profile_name)
    for name in chosen.recipes:
        if name not in PROFILES:
            raise InputError(f"setting {chosen.name!r} has a recipe for it: " + unknown("profile", name, tuple(PROFILES)))
    if not 0 <= seed < 2**31:
        raise InputError(f"seed={seed}: give a whole number from 0 to 2147483647.")
    family = chosen.family or DATASETS.get(chosen.dataset).family
    ARCHITECTURES.origin(chosen.architecture)  # raises for an unknown name; to get it would import torch
    scheme, time_steps = _preset(chosen.method, how.name, family)
    return Plan(
        setting=chosen.name,
        profile=how.name,
        data=_data(chosen, how),
        architecture=chosen.architecture,
        width=how.width if chosen.width is None else chosen.width,
        method=chosen.method,
        scheme=_with_numbers(scheme, chosen),
        time_steps=time_steps if chosen.time_steps is None else chosen.time_steps,
        recipe=_recipe(chosen, how, family),
        search=Search(),
        seed=seed,
        published=chosen.published,
        paper_time_steps=paper_time_steps(chosen),
    )


def plans(name: str) -> dict[str, Plan]:
    """What each profile makes of a setting, by profile; those that have no recipe for it are left out.

    Raises:
        InputError: where none makes anything of it, with the reason of the first.
    """
    found, reasons = {}, []
    for profile_name in PROFILES:
        try:
            found[profile_name] = resolve(name, profile_name)
        except InputError as error:
            reasons.append(error)
    if not found:
        raise reasons[0]
    return found


def _preset(method: str, profile_name: str, family: str) -> tuple[ConversionScheme, int]:
    try:
        scheme, time_steps = SCHEMES.get(method).preset(profile_name, family)
    except InputError:
        raise
    except Exception as error:  # somebody else's code raises nearly anything
        raise InputError(
            f"conversion scheme {method!r}: preset({profile_name!r}, {family!r}) must give the scheme and T, and raises "
            f"{type(error).__name__}: {error}."
        ) from error
    return scheme, time_steps


def _data(chosen: Setting, how: Profile) -> Data:
    meant = DATASETS.get(chosen.dataset)
    stand_in = how.stand_ins.get(meant.family) if chosen.stand_ins else None
    name, resolution = (chosen.dataset, meant.resolution) if stand_in is None else (stand_in.dataset, stand_in.resolution)
    used = DATASETS.get(name)
    if meant.stem not in STEMS:
        raise InputError(f"data set {chosen.dataset!r}: " + unknown("stem", meant.stem, STEMS))
    if chosen.normalisation is not None:
        DATASETS.get(chosen.normalisation)
    if used.sample is not None and len(used.sample) == 3 and used.sample[1] != used.sample[2]:
        raise InputError(
            f"data set {name!r} has images of {used.sample[1]} x {used.sample[2]} pixels: a setting takes squares; bring them "
            "to one, own_data(..., size=...)."
        )
    own = DATASETS.is_path(name)
    return Data(
        name=os.path.basename(os.path.abspath(name)) if own else name,
        stands_in_for=None if stand_in is None else meant.title,
        resolution=resolution,
        train=used.train - used.calibration,
        calibration=used.calibration,
        classes=used.classes,
        stem=meant.stem,
        normalisation=chosen.normalisation,
        path=os.path.abspath(name) if own else None,
        sample=used.sample,
        expects=used.normalisation if own else None,
    )


def _recipe(chosen: Setting, how: Profile, family: str) -> Recipe:
    if how.name in chosen.recipes:
        return chosen.recipes[how.name]
    found = how.recipes.get((family, chosen.architecture))
    if found is None:
        there = ", ".join(f"{architecture} on {data}" for data, architecture in how.recipes)
        raise InputError(
            f"setting {chosen.name!r}: profile {how.name} has no recipe for {chosen.architecture} on {family}. There are "
            f"recipes for {there}. Give the setting one of its own: Setting(..., recipes={{{how.name!r}: Recipe(...)}})."
        )
    return found


def _with_numbers(scheme: ConversionScheme, chosen: Setting) -> ConversionScheme:
    """The scheme with the setting's own parameters."""
    known = [field.name for field in fields(scheme)]  # type: ignore[arg-type]
    for name in chosen.scheme:
        if name not in known:
            raise InputError(f"setting {chosen.name!r}: " + unknown(f"field of {chosen.method}", name, tuple(known)))
    return replace(scheme, **chosen.scheme)  # type: ignore[type-var]
