"""What a data set is, and the registry of those there are.

One of your own is one file: a ``DataSet`` object, named as ``package.module:OBJECT`` in a ``Setting``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dynconf_core.data.images import Images, Normalisation, Split
from dynconf_core.errors import InputError
from dynconf_core.registry import Registry, no_instance_of


class Load(Protocol):
    """Reads a split."""

    def __call__(self, root: Path, split: Split, /, *, resolution: int, calibration: int) -> Images:
        """One split at ``resolution`` pixels, from the folder ``root``; ``calibration`` training images are held out."""


@dataclass(frozen=True)
class DataSet:
    """Images and labels in three splits, and all that a profile has to know of them.

    Attributes:
        title: as a table shows it.
        family: of data sets for which the same recipes serve, such as "cifar10".
        classes: number of classes C.
        resolution: side in pixels at which it is used.
        train, test: official numbers of images.
        calibration: how many of the training images are held out to choose rules and thresholds.
        stem: how networks for it begin, one of ``dynconf_core.networks.architecture.STEMS``.
        normalisation: of the network's input.
        check: raises ``InputError`` unless the files under a folder are there and whole, as far as seconds show.
        digest: a hex digest that names the content under a folder.
        load: reads a split.
        downloaded: whether the images lie in the data folder, so that they may be missing.

    Raises:
        InputError: for numbers that cannot be.
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

    def __post_init__(self) -> None:
        for name, least in (("classes", 2), ("resolution", 1), ("test", 1), ("calibration", 1)):
            if getattr(self, name) < least:
                raise InputError(f"data set {self.title!r}: {name}={getattr(self, name)}: give at least {least}.")
        if self.calibration >= self.train:
            raise InputError(
                f"data set {self.title!r}: calibration={self.calibration} of train={self.train} training images leaves none to "
                "train with: hold out fewer."
            )


DATASETS: Registry[DataSet] = Registry(
    "data set",
    "dynconf.data_sets",
    {
        "digits": "dynconf_core.data.digits:DIGITS",
        "cifar10": "dynconf_core.data.cifar10:CIFAR10",
        "imagenette": "dynconf_core.data.imagenette:IMAGENETTE",
        "imagenet": "dynconf_core.data.imagenet:IMAGENET",
    },
    no_instance_of(DataSet),
)


class Fetch(Protocol):
    """Brings a data set to disk."""

    def __call__(self, root: Path, /, *, say: Callable[[str], None]) -> object:
        """Download it into ``root`` and verify it; ``say`` is given one plain sentence at a time."""


FETCHERS: Registry[Fetch] = Registry(
    "data set that can be fetched",
    "dynconf.fetchers",
    {
        "cifar10": "dynconf_core.data.fetch_cifar10:fetch_cifar10",
        "imagenette": "dynconf_core.data.fetch_imagenette:fetch_imagenette",
    },
)
"""Apart from ``DATASETS``, since how images come to disk does not change a result: no stage's code reaches it."""
