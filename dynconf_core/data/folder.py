"""Images in ImageNet's layout: one folder per class (``<split>/<wnid>/<image>``), decoded when they are needed."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dynconf_core.data.images import Images, Normalisation
from dynconf_core.errors import InputError
from dynconf_core.libraries import pillow

if TYPE_CHECKING:
    import torch
    from torch import Tensor

NORMALISATION = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
SUFFIXES = {".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".webp"}
DECODERS = max(8, os.cpu_count() or 1)
"""Number of decoding threads; Pillow releases Python's global lock while it decodes."""
TAIL = 1024


@dataclass(frozen=True)
class Listing:
    """The image files of a split with their classes, sorted by name."""

    files: tuple[Path, ...]
    labels: Tensor
    classes: int

    def subset(self, indices: Tensor) -> Listing:
        """The files at ``indices``, in that order."""
        return Listing(tuple(self.files[i] for i in indices.tolist()), self.labels[indices], self.classes)


def list_images(folder: Path) -> Listing:
    """Every image below ``folder``.

    Raises:
        InputError: if the folder is missing, contains no class folders, or a class folder is empty.
    """
    import torch

    names = (
        sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
        if folder.is_dir()
        else []
    )
    if len(names) < 2:
        loose = (
            next((entry for entry in folder.iterdir() if entry.suffix.lower() in SUFFIXES), None) if folder.is_dir() else None
        )
        if loose is not None:
            raise InputError(
                f"{folder} holds its images ({loose.name}, ...) without class folders, as ImageNet's validation images come: "
                f"move each into the folder of its class ({folder.name}/<wnid>/<image>), or let torchvision sort them out of "
                "the two official archives (torchvision.datasets.ImageNet(root, split='val'))."
            )
        raise InputError(
            f"{folder} holds no images in class folders (<class>/<image>): put the data set there or name another --data."
        )
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(names):
        found = sorted(entry for entry in (folder / name).iterdir() if entry.suffix.lower() in SUFFIXES)
        if not found:
            raise InputError(f"{folder / name} holds no image ({', '.join(sorted(SUFFIXES))}): restore the data set.")
        files += found
        labels += [label] * len(found)
    return Listing(tuple(files), torch.tensor(labels), len(names))


def check_headers(listing: Listing, every: int = 1) -> None:
    """Raise ``InputError`` for the first file that is empty, does not start like a JPEG or PNG, or is cut short."""
    for path in listing.files[::every]:
        with path.open("rb") as file:
            head = file.read(8)
            file.seek(max(path.stat().st_size - TAIL, 0))
            tail = file.read()
        # A few bytes may follow the end marker: some cameras and some of ImageNet's sources write them.
        whole = (head[:2] == b"\xff\xd8" and b"\xff\xd9" in tail) or (head == b"\x89PNG\r\n\x1a\n" and b"IEND" in tail)
        if not whole:
            raise InputError(f"{path} is truncated or not a JPEG or PNG image: restore the file.")


def check_same_classes(train: Listing, test: Listing) -> None:
    """Raise ``InputError`` unless both splits have the same class folders: a label is a folder's place in their order."""
    names = [{path.parent.name for path in listing.files} for listing in (train, test)]
    odd = sorted(names[0] ^ names[1])
    if odd:
        raise InputError(
            f"class folder {odd[0]} is in one split only, under {train.files[0].parent.parent.parent}: restore it."
        )


def listing_digest(folders: Sequence[Path]) -> str:
    """Identifies the content by the names and sizes of the files; reading all of ImageNet would take most of an hour."""
    total = hashlib.sha256()
    for folder in folders:
        for path in list_images(folder).files:
            total.update(f"{folder.name}/{path.parent.name}/{path.name}:{path.stat().st_size}\n".encode())
    return total.hexdigest()


@dataclass(frozen=True)
class FolderImages:
    """Images decoded by a pool of threads, batch by batch; see ``Images``.

    For evaluation the shorter side is resized to ``shorter_side`` and the centre cut out; for training a random part (8 to 100
    % of the area, aspect ratio 3/4 to 4/3) is resized to ``resolution``.

    Attributes:
        listing: the files.
        resolution: side in pixels.
        normalisation: of the network's input.
        shorter_side: in pixels; None: 8/7 of ``resolution`` (256 for 224).
        pinned: whether batches are decoded into pinned memory, from which a GPU reads asynchronously.
    """

    listing: Listing
    resolution: int
    normalisation: Normalisation = NORMALISATION
    shorter_side: int | None = None
    pinned: bool = False

    @property
    def labels(self) -> Tensor:
        """See ``Images.labels``."""
        return self.listing.labels

    @property
    def classes(self) -> int:
        """See ``Images.classes``."""
        return self.listing.classes

    def __len__(self) -> int:
        return len(self.listing.files)

    def to(self, device: torch.device) -> Images:
        """See ``Images.to``: no pixels are held in memory; batches for a GPU are decoded into pinned memory."""
        return replace(self, pinned=True) if device.type == "cuda" else self

    def batch(self, indices: Tensor, crops: torch.Generator | None = None) -> Tensor:
        """See ``Images.batch``.

        Raises:
            InputError: for a file that cannot be decoded.
        """
        return self.part(indices, slice(None), crops)

    def part(self, indices: Tensor, share: slice, crops: torch.Generator | None = None) -> Tensor:
        """See ``ReadInParts.part``.

        Raises:
            InputError: for a file that cannot be decoded.
        """
        import torch

        draws = torch.rand(len(indices), 10, 4, generator=crops)[share] if crops is not None else None
        indices = indices[share]
        central = 7 / 8 if self.shorter_side is None else self.resolution / self.shorter_side
        batch = torch.empty(len(indices), self.resolution, self.resolution, 3, dtype=torch.uint8, pin_memory=self.pinned)
        pixels = batch.numpy()

        def decode(slot: int) -> None:
            path = self.listing.files[int(indices[slot])]
            pixels[slot] = _decoded(path, self.resolution, central, None if draws is None else draws[slot].tolist())

        list(_decoders().map(decode, range(len(indices))))
        return batch.permute(0, 3, 1, 2)


@cache
def _decoders() -> ThreadPoolExecutor:
    """One pool, shared by all batches."""
    return ThreadPoolExecutor(DECODERS, thread_name_prefix="decode")


def decoded(path: Path, prepare: Callable[[Any], Any] = lambda opened: None) -> Any:
    """The image in ``path`` as RGB; ``prepare`` is called with it before its pixels are read.

    Raises:
        InputError: if it cannot be decoded.
    """
    try:
        with pillow().open(path) as opened:
            prepare(opened)
            return opened.convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:  # Pillow's plugins raise any of them for damaged files
        raise InputError(f"{path} cannot be decoded ({error}): restore the file.") from error


def _decoded(path: Path, resolution: int, share: float, draws: list[list[float]] | None) -> np.ndarray:
    """``share`` is the part of the shorter side that the centre crop takes."""

    def shrink(opened: Any) -> None:
        """Let the decoder reduce the size to a half, a quarter or an eighth, as long as it stays large enough."""
        if draws is not None or min(opened.size) > 2 * resolution:
            opened.draft("RGB", (2 * resolution, 2 * resolution))

    image = decoded(path, shrink)
    width, height = image.size
    if draws is None:
        side = min(width, height) * share
        box = ((width - side) / 2, (height - side) / 2, (width + side) / 2, (height + side) / 2)
    else:
        box = _random_box(width, height, draws)
    resized = image.resize((resolution, resolution), pillow().Resampling.BILINEAR, box=box)
    return np.asarray(resized)


def _random_box(width: int, height: int, draws: list[list[float]]) -> tuple[float, float, float, float]:
    """The crop of Szegedy et al. (CVPR 2015): ten attempts, then the whole image; ``draws`` are uniform in [0, 1)."""
    for area, aspect, left, top in draws:
        target = width * height * (0.08 + 0.92 * area)
        ratio = math.exp(math.log(3 / 4) + aspect * math.log(16 / 9))
        w, h = math.sqrt(target * ratio), math.sqrt(target / ratio)
        if w <= width and h <= height:
            x, y = left * (width - w), top * (height - h)
            return (x, y, x + w, y + h)
    return (0, 0, width, height)
