"""ImageNet (ILSVRC 2012): 1.28 million training and 50 000 validation images in 1000 classes.

Russakovsky et al., IJCV 2015, arXiv 1409.0575. Lies in ``imagenet/{train,val}/<wnid>/<image>``; its licence does not
allow us to fetch it for you. The validation images are the test split, as everywhere in the field.
"""

from pathlib import Path

from dynconf_core.data.dataset import DataSet
from dynconf_core.data.folder import (
    NORMALISATION,
    FolderImages,
    check_headers,
    check_same_classes,
    list_images,
    listing_digest,
)
from dynconf_core.data.images import Split, held_out
from dynconf_core.errors import InputError

FOLDER = "imagenet"
CLASSES = 1000
EVERY = 500
"""Of a million files, as many headers are read at the start as seconds allow."""


def check(root: Path) -> None:
    """Raise ``InputError`` unless both splits lie under ``root`` in 1000 class folders and sampled files are whole."""
    train, test = (list_images(root / FOLDER / split) for split in ("train", "val"))
    check_same_classes(train, test)
    if train.classes != CLASSES:
        raise InputError(
            f"{root / FOLDER} holds {train.classes} class folders in each split, ImageNet has {CLASSES}: unpack the rest."
        )
    for listing in (train, test):
        check_headers(listing, every=EVERY if len(listing.files) > 100 * EVERY else 1)


def digest(root: Path) -> str:
    """Names the content, by names and sizes."""
    return listing_digest([root / FOLDER / "train", root / FOLDER / "val"])


def load(root: Path, split: Split, *, resolution: int, calibration: int) -> FolderImages:
    """A split, decoded on demand: the training images but ``calibration`` held-out ones, those, or the test images."""
    if split == "test":
        return FolderImages(list_images(root / FOLDER / "val"), resolution)
    listing = list_images(root / FOLDER / "train")
    kept, held = held_out(len(listing.files), calibration)
    return FolderImages(listing.subset(kept if split == "train" else held), resolution)


IMAGENET = DataSet(
    title="ImageNet",
    family="imagenet",
    classes=CLASSES,
    resolution=224,
    train=1281167,
    test=50000,
    calibration=10000,
    stem="imagenet",
    normalisation=NORMALISATION,
    check=check,
    digest=digest,
    load=load,
)
