"""The images for ``dynconf convert``: a known data set or one of the user's own, as the network expects them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dynconf_core.data.images import Images, Normalisation, Split
from dynconf_core.errors import InputError
from dynconf_flows.command.converted_network import Subject

if TYPE_CHECKING:
    from torch import Tensor

PLAIN = Normalisation((0.0,), (1.0,))
"""Pixels in [0, 1], as torchvision's ``ToTensor`` gives them."""
OF_THE_DATA = "data"
"""The ``--normalisation`` that stands for mean and deviation of the training images."""


@dataclass(frozen=True)
class Material:
    """The images to convert with, and to collect traces of.

    Attributes:
        name: the data set's name, or that of the user's file or folder.
        normalisation: of the network's input.
        reason: why this one, in words.
        load: loads a split.
        sizes: numbers of images by split.
        rule: how the splits come about, in words.
        first: the smallest label.
    """

    name: str
    normalisation: Normalisation
    reason: str
    load: Callable[[Split], Images]
    sizes: Mapping[Split, int]
    rule: str
    first: int = 0

    def summary(self, held: Images) -> str:
        """The images in three lines: their shape, classes, splits and normalisation; ``held`` are those that calibrate."""
        import torch

        shape = " x ".join(map(str, held.batch(torch.arange(1)).shape[1:]))
        counts = ", ".join(f"{split} {count}" for split, count in self.sizes.items())
        return (
            f"{self.name}: {sum(self.sizes.values())} samples of {shape}, {held.classes} classes\n"
            f"splits: {counts} ({self.rule})\n"
            f"normalisation: {_shown(self.normalisation)}, {self.reason}"
        )


def material(
    subject: Subject, dataset: str | None, normalisation: str | None, size: int | None, channels: int | None, root: Path
) -> Material:
    """The images of ``--dataset``, with the normalisation of ``--normalisation`` or the one that the network expects.

    Args:
        subject: the network.
        dataset: a data set's name, ``package.module:OBJECT``, or the path of the user's own; None: that of the network.
        normalisation: as ``normalisation_called`` takes it, or "data".
        size: the side in pixels to which the user's own images are brought; None: the network's, or their own.
        channels: 3 repeats the user's own grey images.
        root: the folder of the known data sets.

    Raises:
        InputError: if the data set is missing or damaged, or a value cannot be.
    """
    given = normalisation_called(normalisation) if normalisation != OF_THE_DATA else None
    name = dataset or _usual(subject)
    from dynconf_core.data.dataset import DATASETS

    if DATASETS.is_path(name):
        return _own(subject, name, given, normalisation == OF_THE_DATA, size, channels)
    for option, value in (("--size", size), ("--channels", channels)):
        if value is not None:
            raise InputError(f"{option} {value}: it is for data of your own; {name} are read as they are.")
    return _known(subject, name, given, root)


def some(images: Images, count: int) -> tuple[Tensor, Tensor]:
    """A fixed random choice of normalised images, and their labels."""
    import torch

    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:count]
    return images.normalisation(images.batch(chosen)), images.labels[chosen]


def check_fit(subject: Subject, held: Images, found: Material) -> None:
    """Raise ``InputError`` unless the network takes such images and has their classes."""
    import torch

    from dynconf_core.networks.own_network import check_takes

    published = subject.published
    if published is not None and held.classes != published.classes:
        raise InputError(
            f"--dataset {found.name} has {held.classes} classes, but {subject.name} {published.classes}: name the data that it "
            "was trained on."
        )
    sample = held.normalisation(held.batch(torch.arange(1)))
    classes = check_takes(subject.network, sample, subject.name)
    if held.classes > classes:
        from_one = f" (the labels begin at {found.first}: number the classes from 0)" if found.first > 0 else ""
        raise InputError(
            f"--dataset {found.name} has {held.classes} classes, but {subject.name} {classes}: give the network as many outputs"
            f"{from_one}, or name the data it was trained on."
        )


def _usual(subject: Subject) -> str:
    if subject.published is None:
        raise InputError(
            f"--dataset: name the images for {subject.name}, such as the path of your own; see `dynconf convert --help`."
        )
    return "cifar10" if subject.published.resolution == 32 else "imagenet"


def _own(
    subject: Subject, name: str, given: Normalisation | None, of_the_data: bool, size: int | None, channels: int | None
) -> Material:
    from dynconf_core.data.own import read_own

    published = subject.published
    if published is not None and size is None:
        own = read_own(name, size=published.resolution, shorter_side=published.shorter_side, channels=channels)
    else:
        own = read_own(name, size=size, channels=channels)
    if given is not None:
        expected, reason = given, "as given"
    elif of_the_data:
        expected, reason = own.statistics(), "computed from the training images"
    elif published is not None:
        expected, reason = published.normalisation, f"that of {subject.name}"
    else:
        expected, reason = PLAIN, "as nothing else is given (--normalisation names another, or `data` for that of the images)"
    load: Callable[[Split], Images] = lambda split: own.images(split, expected)  # noqa: E731
    return Material(own.path.name, expected, reason, load, own.sizes(), own.split_rule(), own.first)


def _known(subject: Subject, name: str, given: Normalisation | None, root: Path) -> Material:
    from dynconf_core.data.dataset import DATASETS
    from dynconf_core.data.folder import FolderImages
    from dynconf_core.experiment.images import images_of
    from dynconf_core.experiment.plan import Data

    chosen, published = DATASETS.get(name), subject.published
    try:
        chosen.check(root)
    except OSError as error:
        raise InputError(f"data set {name!r} cannot be read in {root}: {error}.") from error
    resolution = chosen.resolution if published is None else published.resolution
    trained = chosen.train - chosen.calibration
    asked = Data(name, None, resolution, trained, chosen.calibration, chosen.classes, chosen.stem)
    if given is not None:
        expected, reason = given, "as given"
    elif published is not None:
        expected, reason = published.normalisation, f"that of {subject.name}"
    else:
        expected, reason = chosen.normalisation, f"that of {name} (--normalisation names another)"

    def load(split: Split) -> Images:
        loaded: Any = images_of(asked, split, root)
        more = {} if published is None or not isinstance(loaded, FolderImages) else {"shorter_side": published.shorter_side}
        found: Images = replace(loaded, normalisation=expected, **more)
        return found

    sizes = {"train": trained, "calibration": chosen.calibration, "test": chosen.test}
    return Material(name, expected, reason, load, sizes, "calibration drawn from the training images by a fixed seed")


def normalisation_called(given: str | None) -> Normalisation | None:
    """The value of ``--normalisation``: a data set's name, or ``mean,.../std,...`` with one of each for all channels or one of
    each a channel; None for None.

    Raises:
        InputError: for another name, another form, or numbers out of range.
    """
    if given is None:
        return None
    from dynconf_core.data.dataset import DATASETS

    if given in DATASETS.names() or ":" in given:
        return DATASETS.get(given).normalisation
    try:
        mean, std = (tuple(float(part) for part in half.split(",")) for half in given.split("/"))
        if len(mean) == len(std) and all(abs(part) < 1e4 for part in mean) and all(1e-4 < part < 1e4 for part in std):
            return Normalisation(mean, std)
    except ValueError:
        pass
    raise InputError(
        f"--normalisation {given}: give a data set ({', '.join(DATASETS.names())}), `{OF_THE_DATA}` for that of your own images"
        ", or means and standard deviations, one of each for all channels or one of each a channel, such as 0.5/0.2 or "
        "0.5,0.5,0.5/0.2,0.2,0.2."
    )


def _shown(normalisation: Normalisation) -> str:
    if normalisation == PLAIN:
        return "none, pixels in [0, 1]"

    def of(values: tuple[float, ...]) -> str:
        if len(values) > 4:
            return f"{len(values)} numbers from {min(values):g} to {max(values):g}"
        return ", ".join(f"{value:g}" for value in values)

    return f"mean {of(normalisation.mean)} and deviation {of(normalisation.std)}"
