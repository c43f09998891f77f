"""ImageNet (ILSVRC 2012): 1.28 million training and 50 000 validation images in 1000 classes.

Russakovsky et al., IJCV 2015, arXiv 1409.0575. Expected in ``imagenet/{train,val}/<wnid>/<image>``; its licence does not allow
us to download it for you. The validation images serve as the test split, as is usual in the field.
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
"""With a million files, only every 500th header is read at the start, which takes seconds."""


def check(root: Path) -> None:
    """Raise ``InputError`` unless ``root`` holds both splits in 1000 class folders and the sampled files are complete."""
    train, test = (list_images(root / FOLDER / split) for split in ("train", "val"))
    check_same_classes(train, test)
    if train.classes != CLASSES:
        raise InputError(
            f"{root / FOLDER} holds {train.classes} class folders in each split, ImageNet has {CLASSES}: unpack the rest."
        )
    for listing in (train, test):
        check_headers(listing, every=EVERY if len(listing.files) > 100 * EVERY else 1)


def digest(root: Path) -> str:
    """Identifies the content by the names and sizes of the files."""
    return listing_digest([root / FOLDER / "train", root / FOLDER / "val"])


def load(root: Path, split: Split, *, resolution: int, calibration: int) -> FolderImages:
    """A split, decoded on demand: the training images without the ``calibration`` held-out ones, the held-out ones, or the
    test images."""
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
