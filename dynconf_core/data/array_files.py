"""Images and labels in files of arrays: ``.npz``, and idx, the format of MNIST (LeCun, Cortes and Burges, 1998).

An ``.npz`` holds ``images`` and ``labels``, and ``test_images`` and ``test_labels`` where the test images are given apart (or
Keras' names: ``x_train``, ``y_train``, ``x_test``, ``y_test``). idx files keep MNIST's names; they may be gzipped.
"""

from __future__ import annotations

import gzip
import math
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dynconf_core.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

NAMES = (("images", "labels", "test_images", "test_labels"), ("x_train", "y_train", "x_test", "y_test"))
"""Names in an ``.npz``: of the training images and labels, and of those of the test."""
LAYOUT = "layout"
"""The entry that says where the channels stand; needed where the shape does not tell, and for signals."""
LAYOUTS = {"NHW": (0, 1, 2), "NCL": (0, 1, 2), "NLC": (0, 2, 1), "NCHW": (0, 1, 2, 3), "NHWC": (0, 3, 1, 2)}
"""What it may be, each with the order of the dimensions that puts the channels first."""
IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
MOST_CHANNELS = 4
"""A dimension of at most this size, first or last, is that of the channels."""


@dataclass(frozen=True)
class Samples:
    """Samples in memory.

    Attributes:
        pixels: uint8 or float32, ``(N, C, H, W)``, signals ``(N, C, L)`` or vectors ``(N, F)``.
        labels: int64 ``(N,)``.
    """

    pixels: Tensor
    labels: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return tuple(self.pixels.shape[1:])

    def read(self, indices: Tensor) -> Tensor:
        """The pixels at ``indices``."""
        return self.pixels[indices]


def is_idx(folder: Path) -> bool:
    """Whether a folder holds training images in idx files."""
    return folder.is_dir() and bool(_idx_files(folder, "train", "images"))


def read_npz(path: Path) -> tuple[Samples, Samples | None]:
    """The training samples, and those of the test where they are given apart.

    Raises:
        InputError: naming what is missing or wrong.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile, KeyError) as error:
        raise InputError(
            f"{path} cannot be read ({error}): give an .npz file that numpy.savez wrote, of plain arrays."
        ) from error
    names = next((names for names in NAMES if names[0] in arrays and names[1] in arrays), None)
    if names is None:
        raise InputError(
            f"{path} holds {', '.join(arrays) or 'nothing'}: give `images` and `labels` (and `test_images` and "
            "`test_labels`), as by numpy.savez(path, images=..., labels=...)."
        )
    layout = _layout(arrays, path)
    train = samples(arrays[names[0]], arrays[names[1]], f"{path}: {names[0]}", layout)
    if (names[2] in arrays) != (names[3] in arrays):
        raise InputError(f"{path} holds one of {names[2]} and {names[3]}: give both, or neither.")
    test = samples(arrays[names[2]], arrays[names[3]], f"{path}: {names[2]}", layout) if names[2] in arrays else None
    return train, test


def read_idx(folder: Path) -> tuple[Samples, Samples | None]:
    """The training samples, and those of the files ``t10k-...`` or ``test-...`` if there are any.

    Raises:
        InputError: naming the file that is missing or wrong.
    """
    found: dict[str, Samples] = {}
    for split in ("train", "test", "t10k"):
        images, labels = (_idx_files(folder, split, what) for what in ("images", "labels"))
        if not images and split != "train":
            continue
        for files, what in ((images, "images"), (labels, "labels")):
            if len(files) != 1:
                there = ", ".join(path.name for path in files) or "none"
                raise InputError(
                    f"{folder}: {there} of the {split} {what}: one file such as {split}-{what}-idx3-ubyte is needed."
                )
        found["train" if split == "train" else "test"] = samples(_idx(images[0]), _idx(labels[0]), str(images[0]))
    return found["train"], found.get("test")


def samples(images: NDArray[Any], labels: NDArray[Any], what: str, layout: str | None = None) -> Samples:
    """Arrays in any of the forms of a file as samples.

    Args:
        images: uint8 ``(N, H, W)``, ``(N, H, W, C)`` or ``(N, C, H, W)``, or the same as decimals in [0, 1]; vectors
            ``(N, F)`` and, with a layout, signals ``(N, C, L)``, uint8 or any decimals.
        labels: whole numbers from 0, ``(N,)``.
        what: the images' name in messages.
        layout: one of ``LAYOUTS`` where the shape does not tell.

    Raises:
        InputError: saying what is wrong and what to do.
    """
    import torch

    if images.ndim not in (2, 3, 4) or 0 in images.shape:
        raise InputError(f"{what} has the shape {images.shape}: give (N, H, W), (N, H, W, C), (N, C, H, W), or vectors (N, F).")
    unsure = f" of the shape {images.shape}" if images.ndim == 3 and layout is None else ""
    if images.ndim > 2:
        layout = layout or ("NHW" if images.ndim == 3 else _layout_of(images.shape, what))
        if len(layout) != images.ndim:
            raise InputError(f"{what} has the shape {images.shape}, which the layout {layout} does not fit.")
        images = images.transpose(LAYOUTS[layout])
        images = images[:, None] if layout == "NHW" else images
    pixels = _values(images, what, unsure)
    return Samples(torch.from_numpy(np.require(pixels, requirements=["C", "W"])), _labels(labels, len(images), what))


def _values(images: NDArray[Any], what: str, unsure: str) -> NDArray[Any]:
    """uint8, or float32; ``unsure`` is a shape that was taken for that of grey images, in words, and may be that of signals."""
    kind = images.dtype.kind
    if images.dtype == np.uint8:
        return images
    if kind not in "iuf":
        raise InputError(f"{what} is of the type {images.dtype}: give uint8 pixels from 0 to 255, or decimals.")
    low, high = float(images.min()), float(images.max())
    if not math.isfinite(low) or not math.isfinite(high):
        raise InputError(f"{what} holds NaN or infinite numbers: leave those samples out.")
    if kind in "iu":
        if low < 0 or high > 255:
            raise InputError(f"{what} holds whole numbers from {low:g} to {high:g}: give pixels from 0 to 255, or decimals.")
        return images.astype(np.uint8)
    if images.ndim == 4 and (low < 0 or high > 1):
        signals = (
            f"if they are signals, save `{LAYOUT}` beside them, numpy.savez(..., {LAYOUT}='NCL') or 'NLC'; " if unsure else ""
        )
        raise InputError(
            f"{what} holds decimals from {low:g} to {high:g}{unsure}: {signals}give images as uint8 from 0 to 255, or as "
            "decimals from 0 to 1 that are not normalised yet."
        )
    return images.astype(np.float32)


def _labels(labels: NDArray[Any], count: int, what: str) -> Tensor:
    import torch

    shape = tuple(labels.shape)
    if shape == (count, 1):
        labels, shape = labels[:, 0], (count,)
    if shape != (count,):
        hint = "; one-hot labels become numbers by labels.argmax(1)" if labels.ndim == 2 else ""
        raise InputError(
            f"{what}: the labels have the shape {shape}: give one for each of the {count} samples, ({count},){hint}."
        )
    if labels.dtype.kind not in "iu":
        raise InputError(
            f"{what}: the labels are of the type {labels.dtype}: give whole numbers from 0, as by labels.astype(int)."
        )
    if int(labels.min()) < 0:
        raise InputError(f"{what}: the labels begin at {int(labels.min())}: number the classes from 0.")
    return torch.from_numpy(labels.astype(np.int64))


def _layout(arrays: Mapping[str, NDArray[Any]], path: Path) -> str | None:
    if LAYOUT not in arrays:
        return None
    given = str(arrays[LAYOUT])
    if given not in LAYOUTS:
        raise InputError(f"{path}: {LAYOUT}={given!r}: give {', '.join(list(LAYOUTS)[:-1])} or {list(LAYOUTS)[-1]}.")
    return given


def _layout_of(shape: tuple[int, ...], what: str) -> str:
    """Where the channels stand: in the only dimension that is small, or that differs from two equal ones."""
    first, last = shape[1] <= MOST_CHANNELS, shape[3] <= MOST_CHANNELS
    if not first and not last:
        first, last = shape[2] == shape[3], shape[1] == shape[2]
    if first == last:
        raise InputError(
            f"{what} has the shape {shape}, which does not tell where its channels stand: save `{LAYOUT}` beside it, "
            f"numpy.savez(..., {LAYOUT}='NCHW') or 'NHWC'."
        )
    return "NCHW" if first else "NHWC"


def _idx_files(folder: Path, split: str, what: str) -> list[Path]:
    """Such as train-images-idx3-ubyte, train-images.idx3-ubyte.gz or emnist-letters-train-images-idx3-ubyte."""
    return sorted(path for path in folder.glob(f"*{split}-{what}?idx?-*") if path.is_file())


def _idx(path: Path) -> NDArray[Any]:
    """The array in an idx file: two zeros, the type, the number of dimensions, their sizes, the values."""
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}): restore the file.") from error
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in IDX_TYPES or len(data) < 4 + 4 * data[3]:
        raise InputError(f"{path} is no idx file: it begins with {data[:4]!r}.")
    shape = struct.unpack(f">{data[3]}I", data[4 : 4 + 4 * data[3]])
    kind = np.dtype(IDX_TYPES[data[2]])
    body = data[4 + 4 * data[3] :]
    if len(body) != math.prod(shape) * kind.itemsize:
        raise InputError(
            f"{path} holds {len(body)} bytes of values, not those of an array {shape}: it is cut short or damaged."
        )
    return np.frombuffer(body, kind).reshape(shape)
