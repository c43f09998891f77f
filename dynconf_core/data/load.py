"""From a data set's name to its module: ``check(root)``, ``digest(root)`` and ``load(root, split, ...)``.

The module is looked up by name, so that code which names one data set does not depend on the others.
"""

from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from dynconf_core.data.images import Images, Split
from dynconf_core.errors import InputError

DATASETS = ("digits", "cifar10", "imagenette", "imagenet")


class DataSet(Protocol):
    """What each module of a data set offers."""

    def check(self, root: Path) -> None:
        """Raise ``InputError`` unless the files under ``root`` are there and whole, as far as seconds show."""

    def digest(self, root: Path) -> str:
        """A hex digest that names the content."""

    def load(self, root: Path, split: Split, *, resolution: int, calibration: int) -> Images:
        """One split at ``resolution`` pixels; ``calibration`` training images are held out."""


def data_set(name: str) -> DataSet:
    """The data set called ``name``, one of ``DATASETS``.

    Raises:
        InputError: for another name.
    """
    if name not in DATASETS:
        raise InputError(f"data set {name!r} is unknown: choose one of {', '.join(DATASETS)}.")
    return cast(DataSet, import_module(f"dynconf_core.data.{name}"))
