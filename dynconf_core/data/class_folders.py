"""Images in folders of their classes: ``train/CLASS/IMAGE`` beside ``val`` or ``test``, or ``CLASS/IMAGE`` alone."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dynconf_core.data.folder import DECODERS, SUFFIXES, FolderImages, Listing, check_same_classes, decoded, list_images
from dynconf_core.errors import InputError
from dynconf_core.libraries import pillow

if TYPE_CHECKING:
    from torch import Tensor

TRAIN, VALIDATION, TEST = "train", ("val", "valid", "validation"), "test"
"""Names of the folders of splits."""
LOOKED_AT = 1000
"""Files whose headers are read to find size and colour, evenly spaced."""
SIZE = (
    "With `dynconf convert`, --size; in Python, own_data(PATH, size=...), whose result other commands take too: write "
    "`IMAGES = own_data(PATH, size=64)` in a file such as mine.py and give --dataset mine:IMAGES."
)
GREY = {"1", "L", "LA"}
DEEP = ("I", "F")
"""Beginnings of Pillow's modes of more than 8 bits."""


@dataclass(frozen=True)
class Files:
    """Image files with their classes.

    Attributes:
        listing: the files.
        shape: ``(C, H, W)`` of what ``read`` gives.
        size: the side to whose square the images are brought; None: they have that shape already.
        shorter_side: pixels to which the shorter side is resized before the centre is cut out.
    """

    listing: Listing
    shape: tuple[int, ...]
    size: int | None
    shorter_side: int | None

    @property
    def labels(self) -> Tensor:
        """int64 ``(N,)``."""
        return self.listing.labels

    def read(self, indices: Tensor) -> Tensor:
        """uint8 pixels ``(n, C, H, W)``.

        Raises:
            InputError: for a file that cannot be decoded or has another size.
        """
        import torch

        if self.size is not None:
            squares = FolderImages(self.listing, self.size, shorter_side=self.shorter_side or self.size)
            return squares.batch(indices)[:, : self.shape[0]]
        with ThreadPoolExecutor(DECODERS) as pool:
            pixels = list(pool.map(self._whole, (self.listing.files[i] for i in indices.tolist())))
        return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)[:, : self.shape[0]]

    def _whole(self, path: Path) -> np.ndarray:
        pixels = np.asarray(decoded(path))
        if pixels.shape[:2] != self.shape[1:]:
            raise InputError(
                f"{path} has {pixels.shape[0]} x {pixels.shape[1]} pixels, others {self.shape[1]} x {self.shape[2]}: name the "
                f"size to which all are brought. {SIZE}"
            )
        return pixels


@dataclass(frozen=True)
class ClassFolders:
    """A folder of images by class, or of such folders for the splits."""

    root: Path

    @cached_property
    def listings(self) -> dict[str, Listing]:
        """The files of "train", and of "calibration" and "test" where they are given apart.

        Raises:
            InputError: if there are no images in class folders, or not the same classes everywhere.
        """
        inside = {entry.name for entry in self.root.iterdir() if entry.is_dir()}
        validation = next((name for name in VALIDATION if name in inside), None)
        if TRAIN not in inside:
            if inside & {TEST, *VALIDATION}:
                raise InputError(
                    f"{self.root} holds {', '.join(sorted(inside))}, and no {TRAIN}: the training images are needed."
                )
            return {"train": self._listed(self.root)}
        parts = {"train": TRAIN}
        if TEST in inside:
            parts["test"] = TEST
        if validation is not None:
            parts["calibration" if TEST in inside else "test"] = validation
        found = {split: self._listed(self.root / name) for split, name in parts.items()}
        for listing in list(found.values())[1:]:
            check_same_classes(found["train"], listing)
        return found

    @staticmethod
    def _listed(folder: Path) -> Listing:
        """The files of a folder of class folders.

        Raises:
            InputError: unless it holds two class folders at least, each with images.
        """
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
        classes = [entry.name for entry in entries if entry.is_dir()]
        loose = next((entry.name for entry in entries if entry.suffix.lower() in SUFFIXES), None)
        if not classes and loose is not None:
            raise InputError(
                f"{folder} holds its images ({loose}, ...) without class folders: move each into the folder of its class, "
                f"{folder.name}/CLASS/IMAGE, or save images and labels in an .npz, numpy.savez(path, images=..., labels=...)."
            )
        if len(classes) < 2:
            held = f"the one class folder {classes[0]}" if classes else "no class folders with images, and no idx files"
            raise InputError(f"{folder} holds {held}: give a folder with two classes at least, {folder.name}/CLASS/IMAGE.")
        return list_images(folder)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of the class folders, in the order of the classes."""
        return tuple(sorted({path.parent.name for path in self.listings["train"].files}))

    def files(self, size: int | None, shorter_side: int | None) -> dict[str, Files]:
        """The files by split, to be read at one size.

        Raises:
            InputError: for images of several sizes and no ``size``, or of more than 8 bits a pixel.
        """
        sizes, grey = self._looked_at
        if size is None and len(sizes) > 1:
            some = ", ".join(f"{height} x {width}" for height, width in sorted(sizes)[:3])
            raise InputError(
                f"the images in {self.root} have several sizes ({some}{', ...' if len(sizes) > 3 else ''}): name the one to "
                f"which they are brought. {SIZE}"
            )
        height, width = next(iter(sizes)) if size is None else (size, size)
        shape = (1 if grey else 3, height, width)
        return {split: Files(listing, shape, size, shorter_side) for split, listing in self.listings.items()}

    @cached_property
    def _looked_at(self) -> tuple[set[tuple[int, int]], bool]:
        """The sizes of the images (H, W), and whether all are grey."""
        sizes, grey = set(), True
        for path, mode, size in self._headers():
            if mode.startswith(DEEP):
                raise InputError(f"{path} has more than 8 bits a pixel (mode {mode}): save it as 8-bit PNG, or give an .npz.")
            sizes.add(size)
            grey = grey and mode in GREY
        return sizes, grey

    def _headers(self) -> Iterator[tuple[Path, str, tuple[int, int]]]:
        files = [path for listing in self.listings.values() for path in listing.files]
        for path in files[:: -(-len(files) // LOOKED_AT)]:
            try:
                with pillow().open(path) as opened:
                    width, height = opened.size
                    yield path, opened.mode, (height, width)
            except OSError as error:
                raise InputError(f"{path} cannot be read ({error}): restore the file.") from error
