"""CIFAR-10's official binary batches on disk, and whether they are the official ones.

The layout (Krizhevsky, 2009, https://www.cs.toronto.edu/~kriz/cifar.html): six files of 10 000 records,
each the label byte and 32 x 32 red, green and blue bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from dynconf_core.errors import InputError

FOLDER = "cifar-10-batches-bin"
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


def verify_cifar10(root: Path, *, sha1: Mapping[str, str] = BINARY_SHA1) -> None:
    """Check the six binary batches under `root` against their official SHA-1s (a third of a second).

    Raises InputError naming every missing, truncated or corrupt file, and the remedy.
    """
    faults = faults_in(Path(root) / FOLDER, sha1)
    if faults:
        raise InputError(f"{'; '.join(faults)}. {REMEDY}")


def faults_in(folder: Path, sha1: Mapping[str, str]) -> list[str]:
    """What is wrong with the batches in `folder`, a clause a file; empty if nothing is."""
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


def file_digest(path: Path, algorithm: str) -> str:
    """The file's digest in hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, algorithm).hexdigest()
