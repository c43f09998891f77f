"""CIFAR-10: 50 000 training and 10 000 test images of 32 x 32 pixels in ten classes.

Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009, https://www.cs.toronto.edu/~kriz/cifar.html. Read
from the official binary batches (``cifar-10-batches-bin``: six files of 10 000 records, each the label byte and 32 x 32 red,
green and blue bytes) or, if those are missing, from the Python batches (``cifar-10-batches-py``). Every file is checked against
the official digest before it is read; in particular, the Python batches, which are pickles, are never opened unchecked.
"""

import hashlib
import pickle
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from dynconf_core.data.dataset import DataSet
from dynconf_core.data.digests import file_digest
from dynconf_core.data.images import Normalisation, Split, TensorImages, held_out
from dynconf_core.errors import InputError

NORMALISATION = Normalisation((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
FOLDER = "cifar-10-batches-bin"
PYTHON = "cifar-10-batches-py"
BATCHES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")
REMEDY = "Run `dynconf data fetch cifar10`."
BINARY_SHA1: Mapping[str, str] = {
    "data_batch_1.bin": "aadd24acce27caa71bf4b10992e9e7b2d74c2540",
    "data_batch_2.bin": "c0ba65cce70568cd57b4e03e9ac8d2a5367c1795",
    "data_batch_3.bin": "1dd00a74ab1d17a6e7d73e185b69dbf31242f295",
    "data_batch_4.bin": "aab85764eb3584312d3c7f65fd2fd016e36a258e",
    "data_batch_5.bin": "26e2849e66a845b7f1e4614ae70f4889ae604628",
    "test_batch.bin": "67eb016db431130d61cd03c7ad570b013799c88c",
}
SIDE = 32  # pixels
RECORD = 1 + 3 * SIDE * SIDE  # bytes
PER_BATCH = 10_000
PYTHON_MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}


def check(root: Path) -> None:
    """Raise ``InputError`` unless the complete, unmodified data set is under ``root``."""
    if (root / PYTHON).is_dir() and not (root / FOLDER).is_dir():
        for name, expected in PYTHON_MD5.items():
            path = root / PYTHON / name
            if not path.is_file() or hashlib.md5(path.read_bytes()).hexdigest() != expected:
                raise InputError(f"{path} is missing or is not the official file: run `dynconf data fetch cifar10`.")
        return
    verify_cifar10(root)


def digest(root: Path) -> str:
    """Identifies the content; both layouts hold the same images, and ``check`` has verified that they are unmodified."""
    return hashlib.sha256("".join(sorted(BINARY_SHA1.values())).encode()).hexdigest()


def load(root: Path, split: Split, *, resolution: int, calibration: int) -> TensorImages:
    """A split: 50 000 - ``calibration`` training images, the ``calibration`` held-out ones, or the 10 000 test images.

    Raises:
        InputError: for a ``resolution`` other than 32, or if the data set is missing or modified.
    """
    import torch

    if resolution != 32:
        raise InputError(f"resolution={resolution}: CIFAR-10 is read at its own 32 pixels.")
    check(root)
    names = BATCHES[5:] if split == "test" else BATCHES[:5]
    read = _read_binary if (root / FOLDER).is_dir() else _read_python
    parts = [read(root, name) for name in names]
    pixels = torch.from_numpy(np.concatenate([part[0] for part in parts])).reshape(-1, 3, 32, 32)
    labels = torch.from_numpy(np.concatenate([part[1] for part in parts]).astype(np.int64))
    images = TensorImages(pixels, labels, 10, NORMALISATION)
    if split == "test":
        return images
    kept, held = held_out(len(images), calibration)
    return images.subset(kept if split == "train" else held)


def verify_cifar10(root: Path, *, sha1: Mapping[str, str] = BINARY_SHA1) -> None:
    """Check the six binary batches under `root` against their official SHA-1s (takes a third of a second).

    Raises InputError naming every missing, truncated or corrupt file, and the remedy.
    """
    faults = faults_in(Path(root) / FOLDER, sha1)
    if faults:
        raise InputError(f"{'; '.join(faults)}. {REMEDY}")


def faults_in(folder: Path, sha1: Mapping[str, str]) -> list[str]:
    """What is wrong with the batches in `folder`, one clause per file; empty if nothing is."""
    if not folder.is_dir():
        return [f"CIFAR-10 is not there: the folder {folder} is missing"]
    clauses = (_fault(folder / name, expected, sha1 is BINARY_SHA1) for name, expected in sha1.items())
    return [clause for clause in clauses if clause]


def _fault(path: Path, expected: str, full_size: bool) -> str | None:
    try:
        size = path.stat().st_size
        if full_size and size != PER_BATCH * RECORD:
            return f"{path} is truncated or overlong ({size} bytes, not {PER_BATCH * RECORD})"
        if file_digest(path, "sha1") != expected:
            return f"{path} is corrupt (its SHA-1 is not {expected})"
    except FileNotFoundError:
        return f"{path} is missing"
    except OSError as fault:
        return f"{path} cannot be read ({fault.strerror})"
    return None


def _read_binary(root: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    rows = np.fromfile(root / FOLDER / f"{name}.bin", dtype=np.uint8).reshape(-1, 1 + 3072)
    return rows[:, 1:].copy(), rows[:, 0]


def _read_python(root: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    content = pickle.loads((root / PYTHON / name).read_bytes(), encoding="bytes")
    return content[b"data"], np.asarray(content[b"labels"])


CIFAR10 = DataSet(
    title="CIFAR-10",
    family="cifar10",
    classes=10,
    resolution=32,
    train=50000,
    test=10000,
    calibration=5000,
    stem="cifar",
    normalisation=NORMALISATION,
    check=check,
    digest=digest,
    load=load,
)
