"""Downloads CIFAR-100's official binary archive, and takes it only with the MD5 that its authors publish.

Krizhevsky, https://www.cs.toronto.edu/~kriz/cifar.html. An archive put into the data folder by hand is used first.
"""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from dynconf_core.data.cifar10_sources import SourceError, download, member, opened
from dynconf_core.data.cifar100 import FOLDER, faults_in
from dynconf_core.data.digests import file_digest
from dynconf_core.errors import InputError

URL = "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz"
ARCHIVE = "cifar-100-binary.tar.gz"
MD5 = "03b5dce01913d631647c71ecec9e9cb8"
FILES = ("train.bin", "test.bin", "fine_label_names.txt", "coarse_label_names.txt")


def fetch_cifar100(root: Path, *, say: Callable[[str], None], url: str = URL, md5: str = MD5) -> Path:
    """Create ``root/cifar-100-binary`` and return its path; does nothing if it is there and complete.

    Raises:
        InputError: if the archive cannot be had or is another, if what is there is damaged, or if ``root`` is not writable.
    """
    root = Path(root)
    target = root / FOLDER
    if target.is_dir():
        faults = faults_in(target)
        if faults:
            raise InputError(f"{'; '.join(faults)}. Delete {target} and run this again.")
        say(f"CIFAR-100 is already in {target} and complete; nothing to do.")
        return target
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-cifar100-", dir=root) as work:
            fresh = Path(work) / FOLDER
            fresh.mkdir()
            _unpack(_archive(root, Path(work), say, url), fresh, md5)
            faults = faults_in(fresh)
            if faults:
                raise InputError(f"the archive does not hold CIFAR-100: {'; '.join(faults)}.")
            os.rename(fresh, target)
    except OSError as fault:
        raise InputError(
            f"CIFAR-100 cannot be written to {root} ({fault.strerror or fault}). "
            "Make room there, or set DYNCONF_DATA to a folder you can write to."
        ) from fault
    say(f"CIFAR-100 is in {target}: 50 000 training and 10 000 test images; the archive's MD5 was correct.")
    return target


def _archive(root: Path, work: Path, say: Callable[[str], None], url: str) -> Path:
    by_hand = root / ARCHIVE
    if by_hand.is_file():
        say(f"Taking {by_hand}.")
        return by_hand
    say(f"Downloading {url} (169 MB).")
    try:
        download(url, work / ARCHIVE, say)
    # A network has many ways to fail (URLError, TimeoutError, IncompleteRead, ...).
    except Exception as fault:
        cause = getattr(fault, "reason", fault)  # URLError wraps what happened
        raise InputError(
            f"CIFAR-100 could not be fetched ({str(cause) or type(cause).__name__}). Download {URL} in another way, put it "
            f"into {root} and run `dynconf data fetch cifar100` again."
        ) from fault
    return work / ARCHIVE


def _unpack(archive: Path, folder: Path, md5: str) -> None:
    found = file_digest(archive, "md5")
    if found != md5:
        raise InputError(
            f"{archive.name} has the MD5 {found}, not {md5}, which its authors publish: download it again from {URL}."
        )
    try:
        with opened(archive) as tar:
            for name in FILES:
                with member(tar, f"{FOLDER}/{name}") as source, (folder / name).open("wb") as out:
                    shutil.copyfileobj(source, out)
    except SourceError as fault:
        raise InputError(f"{archive} cannot be unpacked: {fault}.") from fault
