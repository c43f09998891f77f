"""The eight settings of the paper: a network on a data set, a conversion scheme, and the paper's figures.

A setting of your own is a ``Setting`` object in your own file, which you name as ``package.module:OBJECT`` instead of a
setting's name; a package registers its settings in the entry-point group ``dynconf.settings``; a further setting of the project
is one more entry of ``SETTINGS``. Only tasks, flows and commands read this file, not the code that computes: a new entry does
not invalidate finished stages.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from dynconf_core.arguments import instance, mapping
from dynconf_core.data.dataset import DATASETS
from dynconf_core.errors import InputError
from dynconf_core.experiment.plan import Published
from dynconf_core.experiment.recipe import Recipe
from dynconf_core.registry import Registry, no_instance_of, unknown
from dynconf_core.schemes.field import Value
from dynconf_core.wording import an


@dataclass(frozen=True)
class Setting:
    """A setting, independent of the profile.

    Names are those of the registries, or ``package.module:attribute``.

    Attributes:
        name: the setting's name in tables and folders.
        dataset: a name in ``dynconf_core.data.dataset.DATASETS``, or the path of your own data.
        architecture: a name in ``dynconf_core.networks.architecture.ARCHITECTURES``.
        method: the conversion method, a name in ``dynconf_core.schemes.scheme.SCHEMES``.
        published: the paper's figures.
        recipes: by profile, recipes that replace the profile's own or supply a missing one.
        scheme: parameters of the scheme that apply in every profile, such as ``{"levels": 8}``.
        time_steps: T in every profile; None takes the scheme's value.
        width: factor on the channels in every profile; None takes the profile's value.
        normalisation: the data set whose normalisation the network expects, if not ``dataset``.
        stand_ins: whether a profile may replace ``dataset`` by a smaller data set.
        family: the family of data sets, such as "cifar10", whose recipes and parameters are taken; None: that of ``dataset``.

    Raises:
        InputError: for a name that cannot be used as a file name, or a recipe that is not a ``Recipe``.
    """

    name: str
    dataset: str
    architecture: str
    method: str
    published: Published | None = None
    recipes: Mapping[str, Recipe] = field(default_factory=dict)
    scheme: Mapping[str, Value] = field(default_factory=dict)
    time_steps: int | None = None
    width: float | None = None
    normalisation: str | None = None
    stand_ins: bool = True
    family: str | None = None

    def __post_init__(self) -> None:
        for name in ("name", "dataset", "architecture", "method"):
            instance(name, getattr(self, name), str, "give a name as text, see Setting")
        for name in ("recipes", "scheme"):
            object.__setattr__(self, name, mapping(name, getattr(self, name)))
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,199}", self.name):
            raise InputError(
                f"setting {self.name!r}: files bear its name; take at most 200 letters, digits, and - _ + . between them."
            )
        for profile, recipe in self.recipes.items():
            if not isinstance(recipe, Recipe):
                raise InputError(f"setting {self.name!r}: recipes[{profile!r}] is {an(recipe)}: give a Recipe.")


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
        Setting("cifar100-vgg16-qcfs", "cifar100", "vgg16", "qcfs", scheme={"levels": 8}),
        Setting("cifar100-vgg16-qffs", "cifar100", "vgg16", "qffs"),
        Setting("cifar100-resnet18-qcfs", "cifar100", "resnet18", "qcfs", scheme={"levels": 8}),
        Setting("cifar100-resnet18-qffs", "cifar100", "resnet18", "qffs"),
    )
}
"""Settings beyond the paper's, run only by name: a pretrained CIFAR ResNet-20 (give its ``--checkpoint``), and CIFAR-100.

L is 8 for CIFAR-100: published conversions take 4 or 8 there, and among a hundred classes finer activations are worth their
steps."""
UNNAMED: dict[tuple[str, str], Published] = {
    ("cifar10", "qffs"): Published(PAPER, "2", time_steps=4, mean_steps=2.52, net_named=False),
    ("imagenet", "qcfs"): Published(PAPER, "2", mean_steps=49.5, net_named=False),
}
"""Figures of the paper whose network no available source names, by data set and method."""


INSTALLED: Registry[Setting] = Registry("setting", "dynconf.settings", {}, no_instance_of(Setting))
"""Those of other packages."""


def names() -> tuple[str, ...]:
    """Every setting that has a name here: the paper's eight, further ones, those of installed packages."""
    return tuple(dict.fromkeys((*SETTINGS, *FURTHER, *INSTALLED.names())))


def setting(name: str) -> Setting:
    """The setting called ``name``, which may be ``package.module:OBJECT``.

    ``PATH@NAME`` is the setting ``NAME`` on data of one's own.

    Raises:
        InputError: for an unknown name, or an object that is not a setting.
    """
    path, on, base = name.rpartition("@")
    if on:
        return _on_own_data(setting(base), path)
    known = {**SETTINGS, **FURTHER}
    if name in known:
        return known[name]
    if ":" not in name and name not in INSTALLED.names():
        raise InputError(unknown("setting", name, names()))
    found = INSTALLED.get(name)
    if ":" not in name and found.name != name:
        raise InputError(f"setting {name!r} of {INSTALLED.origin(name)} calls itself {found.name!r}: give it one name.")
    return found


def _on_own_data(base: Setting, path: str) -> Setting:
    """The network, scheme and recipe of a setting, on other images."""
    plain = re.sub(r"[^A-Za-z0-9_.+-]+", "-", os.path.basename(os.path.abspath(path)).removesuffix(".npz")).strip("-.") or "own"
    return replace(
        base,
        name=f"{plain}-{base.architecture}-{base.method}".replace(":", "-"),
        dataset=path,
        published=None,
        normalisation=None,
        stand_ins=False,
        family=base.family or DATASETS.get(base.dataset).family,
    )


def paper_time_steps(chosen: Setting) -> int | None:
    """T in the paper, for this setting or a network of its family; None if no available source states it."""
    row = chosen.published or UNNAMED.get((chosen.dataset, chosen.method))
    return None if row is None else row.time_steps
