"""CIFAR-100: 50 000 training and 10 000 test images of 32 x 32 pixels in a hundred classes.

Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009, https://www.cs.toronto.edu/~kriz/cifar.html. Read
from the official binary files, ``cifar-100-binary/train.bin`` and ``test.bin``: records of a byte for one of 20 superclasses, a
byte for one of 100 classes, and 32 x 32 red, green and blue bytes. The authors publish the MD5 of the archive but none of the
files in it, so the files are known by what the data set says of them: 500 training and 100 test images of every class, each
superclass with the same five classes. ``digest`` is over their whole content.
"""

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dynconf_core.data.dataset import DataSet
from dynconf_core.data.digests import content_digest
from dynconf_core.data.images import Normalisation, Split, TensorImages, held_out
from dynconf_core.errors import InputError

NORMALISATION = Normalisation((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))
FOLDER = "cifar-100-binary"
PER_CLASS = {"train": 500, "test": 100}
"""Images of every class, by the file that holds them."""
CLASSES, SUPERCLASSES = 100, 20
SIDE = 32  # pixels
RECORD = 2 + 3 * SIDE * SIDE  # bytes
REMEDY = "Run `dynconf data fetch cifar100`."


def check(root: Path) -> None:
    """Raise ``InputError`` unless both files are under ``root`` and hold what CIFAR-100 has of every class."""
    faults = faults_in(root / FOLDER)
    if faults:
        raise InputError(f"{'; '.join(faults)}. {REMEDY}")


def faults_in(folder: Path) -> list[str]:
    """What is wrong with the files in ``folder``, a clause for each; empty if nothing is."""
    if not folder.is_dir():
        return [f"CIFAR-100 is not there: the folder {folder} is missing"]
    found = [fault for name in PER_CLASS if (fault := _fault(folder / f"{name}.bin", PER_CLASS[name]))]
    if not found and _superclasses(folder / "train.bin") != _superclasses(folder / "test.bin"):
        found = [f"{folder / 'train.bin'} and test.bin put classes into different superclasses"]
    return found


def digest(root: Path) -> str:
    """Identifies the content: the sha256 over that of both files."""
    whole = hashlib.sha256()
    for name in PER_CLASS:
        whole.update(content_digest(root / FOLDER / f"{name}.bin").encode())
    return whole.hexdigest()


def load(root: Path, split: Split, *, resolution: int, calibration: int) -> TensorImages:
    """A split: 50 000 - ``calibration`` training images, the ``calibration`` held-out ones, or the 10 000 test images.

    The labels are those of the hundred classes.

    Raises:
        InputError: for a ``resolution`` other than 32, or if the data set is missing or damaged.
    """
    import torch

    if resolution != SIDE:
        raise InputError(f"resolution={resolution}: CIFAR-100 is read at its own {SIDE} pixels.")
    check(root)
    records = _records(root / FOLDER / ("test.bin" if split == "test" else "train.bin"))
    pixels = torch.from_numpy(records[:, 2:].copy()).reshape(-1, 3, SIDE, SIDE)
    images = TensorImages(pixels, torch.from_numpy(records[:, 1].astype(np.int64)), CLASSES, NORMALISATION)
    if split == "test":
        return images
    kept, held = held_out(len(images), calibration)
    return images.subset(kept if split == "train" else held)


def _fault(path: Path, per_class: int) -> str | None:
    size = per_class * CLASSES * RECORD
    try:
        if path.stat().st_size != size:
            return f"{path} is truncated or overlong ({path.stat().st_size} bytes, not {size})"
        records = _records(path)
    except FileNotFoundError:
        return f"{path} is missing"
    except OSError as fault:
        return f"{path} cannot be read ({fault.strerror})"
    if records[:, 0].max() >= SUPERCLASSES or (np.bincount(records[:, 1], minlength=CLASSES) != per_class).any():
        return f"{path} does not hold {per_class} images of each of {CLASSES} classes in {SUPERCLASSES} superclasses"
    if len(_superclasses(path)) != CLASSES:
        return f"{path} puts a class into several superclasses"
    return None


def _superclasses(path: Path) -> set[tuple[int, int]]:
    """The pairs of a superclass and a class that occur."""
    pairs = np.unique(_records(path)[:, :2], axis=0)
    return {(int(coarse), int(fine)) for coarse, fine in pairs}


def _records(path: Path) -> NDArray[np.uint8]:
    """The file's records, ``(N, RECORD)``, read where they are looked at."""
    return np.memmap(path, np.uint8, "r").reshape(-1, RECORD)


CIFAR100 = DataSet(
    title="CIFAR-100",
    family="cifar10",
    classes=CLASSES,
    resolution=SIDE,
    train=PER_CLASS["train"] * CLASSES,
    test=PER_CLASS["test"] * CLASSES,
    calibration=5000,
    stem="cifar",
    normalisation=NORMALISATION,
    check=check,
    digest=digest,
    load=load,
)
