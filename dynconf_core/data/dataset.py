"""The definition of a data set, and the registries of data sets and of their downloads.

A data set of your own is a path (``own.py``), or a ``DataSet`` object in one file, named as ``package.module:OBJECT``.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dynconf_core.arguments import whole
from dynconf_core.data.images import Images, Normalisation, Split
from dynconf_core.errors import InputError
from dynconf_core.registry import Registry, loaded, no_instance_of


class Load(Protocol):
    """Reads one split."""

    def __call__(self, root: Path, split: Split, /, *, resolution: int, calibration: int) -> Images:
        """One split at ``resolution`` pixels from the folder ``root``; ``calibration`` training images are held out."""


@dataclass(frozen=True)
class DataSet:
    """Images and labels in three splits, and everything a profile needs to know about them.

    Attributes:
        title: the name shown in tables.
        family: of data sets that share their recipes, such as "cifar10".
        classes: number of classes C.
        resolution: side in pixels at which the images are used.
        train, test: official numbers of images.
        calibration: how many training images are held out to choose rules and thresholds.
        stem: how networks for it begin, one of ``dynconf_core.networks.architecture.STEMS``.
        normalisation: of the network's input.
        check: raises ``InputError`` unless the files under a folder are present and complete, as far as can be seen in seconds.
        digest: a hexadecimal digest that identifies the content of a folder.
        load: reads a split.
        downloaded: whether the images are files in the data folder, and so may be missing.
        sample: the shape of a sample; None for colour images, ``(3, resolution, resolution)``.

    Raises:
        InputError: for impossible numbers.
    """

    title: str
    family: str
    classes: int
    resolution: int
    train: int
    test: int
    calibration: int
    stem: str
    normalisation: Normalisation
    check: Callable[[Path], None]
    digest: Callable[[Path], str]
    load: Load
    downloaded: bool = True
    sample: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        for name, least in (("classes", 2), ("resolution", 1), ("train", 1), ("test", 1), ("calibration", 1)):
            if whole(f"data set {self.title!r}: {name}", getattr(self, name)) < least:
                raise InputError(f"data set {self.title!r}: {name}={getattr(self, name)}: give at least {least}.")
        if self.calibration >= self.train:
            raise InputError(
                f"data set {self.title!r}: calibration={self.calibration} of train={self.train} training images leaves none to "
                "train with: hold out fewer."
            )

    def images(self, split: Split, root: Path = Path()) -> Images:
        """A split, "train", "calibration" or "test"; ``root`` is the folder of the data sets where there is one."""
        return self.load(root, split, resolution=self.resolution, calibration=self.calibration)


OWN = "dynconf_core.data.own:own_data"
"""What reads data by their path; text, so that only stages on such data depend on its code."""


class DataSets(Registry[DataSet]):
    """Data sets by name, or by the path of one's own."""

    def is_path(self, name: str) -> bool:
        """Whether ``name`` is a path: no known name, and it has a ``/``, ends in ``.npz``, or exists."""
        if not isinstance(name, str) or name in self.names():
            return False
        return "/" in name or name.endswith(".npz") or (":" not in name and os.path.exists(name))

    def get(self, name: str) -> DataSet:
        """See ``Registry.get``; the data set at a path is read."""
        if not self.is_path(name):
            return super().get(name)
        found: DataSet = loaded(self.kind, OWN)(name)  # type: ignore[operator]
        return found

    def origin(self, name: str) -> str:
        """See ``Registry.origin``."""
        if self.is_path(name):
            return OWN
        try:
            return super().origin(name)
        except InputError as error:
            if name in self.names():
                raise
            raise InputError(f"{str(error).rstrip('.')}, or the path of your own data.") from None


DATASETS = DataSets(
    "data set",
    "dynconf.data_sets",
    {
        "digits": "dynconf_core.data.digits:DIGITS",
        "cifar10": "dynconf_core.data.cifar10:CIFAR10",
        "cifar100": "dynconf_core.data.cifar100:CIFAR100",
        "imagenette": "dynconf_core.data.imagenette:IMAGENETTE",
        "imagenet": "dynconf_core.data.imagenet:IMAGENET",
    },
    no_instance_of(DataSet),
)


class Fetch(Protocol):
    """Downloads a data set."""

    def __call__(self, root: Path, /, *, say: Callable[[str], None]) -> object:
        """Download it into ``root`` and verify it; ``say`` receives one plain sentence at a time."""


FETCHERS: Registry[Fetch] = Registry(
    "data set that can be fetched",
    "dynconf.fetchers",
    {
        "cifar10": "dynconf_core.data.fetch_cifar10:fetch_cifar10",
        "cifar100": "dynconf_core.data.fetch_cifar100:fetch_cifar100",
        "imagenette": "dynconf_core.data.fetch_imagenette:fetch_imagenette",
    },
)
"""Separate from ``DATASETS``: how the images were downloaded does not change a result, so no stage's code reaches it."""
