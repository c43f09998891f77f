"""Imagenette: ten classes of ImageNet, 9469 training and 3925 validation images, resized to a small square.

Howard, github.com/fastai/imagenette, version 2. A stand-in for ImageNet on small machines, always reported under its own name.
Expected in ``imagenette2-64`` (already resized), ``imagenette2-160`` or ``imagenette2``, each ``{train,val}/<wnid>``.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from dynconf_core.data.dataset import DataSet
from dynconf_core.data.folder import (
    DECODERS,
    NORMALISATION,
    check_headers,
    check_same_classes,
    decoded,
    list_images,
    listing_digest,
)
from dynconf_core.data.images import Split, TensorImages, held_out
from dynconf_core.errors import InputError
from dynconf_core.libraries import pillow

LAYOUTS = ("imagenette2-64", "imagenette2-160", "imagenette2")


def check(root: Path) -> None:
    """Raise ``InputError`` unless both splits are under ``root`` and every file is complete, judging by its first and last
    bytes."""
    train, test = (list_images(_folder(root) / split) for split in ("train", "val"))
    check_same_classes(train, test)
    for listing in (train, test):
        check_headers(listing)


def digest(root: Path) -> str:
    """Identifies the content by the names and sizes of the files."""
    return listing_digest([_folder(root) / "train", _folder(root) / "val"])


def load(root: Path, split: Split, *, resolution: int, calibration: int) -> TensorImages:
    """A split, decoded and resized to ``resolution`` pixels regardless of the aspect ratio: the training images without the
    ``calibration`` held-out ones, the held-out ones, or the test images."""
    import torch

    listing = list_images(_folder(root) / ("val" if split == "test" else "train"))
    if split != "test":
        kept, held = held_out(len(listing.files), calibration)
        listing = listing.subset(kept if split == "train" else held)

    def decode(path: Path) -> np.ndarray:
        return np.asarray(decoded(path).resize((resolution, resolution), pillow().Resampling.BILINEAR))

    with ThreadPoolExecutor(DECODERS) as pool:
        pixels = np.stack(list(pool.map(decode, listing.files)))
    return TensorImages(
        torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(),
        listing.labels,
        listing.classes,
        NORMALISATION,
    )


def _folder(root: Path) -> Path:
    for layout in LAYOUTS:
        if (root / layout).is_dir():
            return root / layout
    raise InputError(f"{root} holds none of {', '.join(LAYOUTS)}: run `dynconf data fetch imagenette`, or name another --data.")


IMAGENETTE = DataSet(
    title="Imagenette",
    family="imagenette",
    classes=10,
    resolution=64,
    train=9469,
    test=3925,
    calibration=1000,
    stem="imagenet",
    normalisation=NORMALISATION,
    check=check,
    digest=digest,
    load=load,
)
