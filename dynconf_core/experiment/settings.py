"""The eight settings of the paper: a network on a data set, converted by a scheme, with the paper's figures beside it.

A setting is data. One of your own is a ``Setting`` object in a file of yours, named as ``package.module:OBJECT`` where a
setting's name is asked for, or put by a package into the entry-point group ``dynconf.settings``; one of the project's own is
one more entry of ``SETTINGS``. Shells (tasks, flows, commands) read
this file; the code that computes never does, so that an entry added here makes no finished stage stale.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dynconf_core.errors import InputError
from dynconf_core.experiment.plan import Published
from dynconf_core.experiment.recipe import Recipe
from dynconf_core.registry import Registry, no_instance_of, unknown


@dataclass(frozen=True)
class Setting:
    """What is run, whatever the profile. Names are those of the registries, or ``package.module:attribute``.

    Attributes:
        name: of the setting, in tables and folders.
        dataset: in ``dynconf_core.data.dataset.DATASETS``.
        architecture: in ``dynconf_core.networks.architecture.ARCHITECTURES``.
        method: the conversion scheme, in ``dynconf_core.schemes.scheme.SCHEMES``.
        published: the paper's figures.
        recipes: profile to recipe, where the profile has none for such a network on such data, or another is wanted.
        scheme: numbers of the scheme that are the same in every profile, such as ``{"levels": 8}``.
        time_steps: T in every profile; None: the scheme's.
        width: factor on the channels in every profile; None: the profile's.
        normalisation: the data set whose normalisation the network expects, where it is not ``dataset``'s own.
        stand_ins: whether a profile may put smaller data in the place of ``dataset``.

    Raises:
        InputError: for a name that could not be that of a file, or a recipe that is none.
    """

    name: str
    dataset: str
    architecture: str
    method: str
    published: Published | None = None
    recipes: Mapping[str, Recipe] = field(default_factory=dict)
    scheme: Mapping[str, Any] = field(default_factory=dict)
    time_steps: int | None = None
    width: float | None = None
    normalisation: str | None = None
    stand_ins: bool = True

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+-]*", self.name):
            raise InputError(f"setting {self.name!r}: files bear its name; take letters, digits, and - _ + . between them.")
        for profile, recipe in self.recipes.items():
            if not isinstance(recipe, Recipe):
                raise InputError(f"setting {self.name!r}: recipes[{profile!r}] is a {type(recipe).__name__}: give a Recipe.")


PAPER = "Li, Jones, Furber, ICCV 2023"
LOG = Published("the authors' released log", "S", 0.9379, 0.9427, 27, 0.9427, 11.51)
SETTINGS: dict[str, Setting] = {
    setting.name: setting
    for setting in (
        Setting("cifar10-vgg16-qcfs", "cifar10", "vgg16", "qcfs"),
        Setting("cifar10-vgg16-qffs", "cifar10", "vgg16", "qffs"),
        Setting("cifar10-resnet18-qcfs", "cifar10", "resnet18", "qcfs", LOG),
        Setting("cifar10-resnet18-qffs", "cifar10", "resnet18", "qffs"),
        Setting("imagenet-vgg16-qcfs", "imagenet", "vgg16", "qcfs"),
        Setting("imagenet-vgg16-qffs", "imagenet", "vgg16", "qffs", Published(PAPER, "S", None, 0.7252, 4, 0.7252, 2.86)),
        Setting("imagenet-resnet50-qcfs", "imagenet", "resnet50", "qcfs"),
        Setting("imagenet-resnet50-qffs", "imagenet", "resnet50", "qffs", Published(PAPER, "S", None, 0.7317, 6, 0.7317, 4.42)),
    )
}
FURTHER: dict[str, Setting] = {
    setting.name: setting
    for setting in (
        Setting(
            "cifar10-resnet20-post-training",
            "cifar10",
            "resnet20",
            "post-training",
            width=1.0,
            normalisation="imagenet",
            stand_ins=False,
        ),
    )
}
"""Settings that the paper has not, run where they are named: a CIFAR ResNet-20 that somebody has trained (``--checkpoint``)."""
UNNAMED: dict[tuple[str, str], Published] = {
    ("cifar10", "qffs"): Published(PAPER, "2", time_steps=4, mean_steps=2.52, net_named=False),
    ("imagenet", "qcfs"): Published(PAPER, "2", mean_steps=49.5, net_named=False),
}
"""Rows of the paper whose network no source at hand names, by data set and method."""


INSTALLED: Registry[Setting] = Registry("setting", "dynconf.settings", {}, no_instance_of(Setting))
"""Those of other packages."""


def names() -> tuple[str, ...]:
    """Every setting that has a name here: the paper's eight, further ones, those of installed packages."""
    return tuple(dict.fromkeys((*SETTINGS, *FURTHER, *INSTALLED.names())))


def setting(name: str) -> Setting:
    """The setting called ``name``, or the one that ``package.module:OBJECT`` names.

    Raises:
        InputError: for an unknown name, with the nearest one, or an object that is no setting.
    """
    known = {**SETTINGS, **FURTHER}
    if name in known:
        return known[name]
    if ":" not in name and name not in INSTALLED.names():
        raise InputError(unknown("setting", name, names()))
    found = INSTALLED.get(name)
    if ":" not in name and found.name != name:
        raise InputError(f"setting {name!r} of {INSTALLED.origin(name)} calls itself {found.name!r}: give it one name.")
    return found


def paper_time_steps(chosen: Setting) -> int | None:
    """The T at which the paper runs this setting, or a network of its family; None where no source at hand says."""
    row = chosen.published or UNNAMED.get((chosen.dataset, chosen.method))
    return None if row is None else row.time_steps
