"""A data set of one's own by its path: a folder of images by class, an ``.npz``, or a folder of idx files. No code is needed.

What is not given apart is split by a fixed seed: a fifth of the samples for the test, and of the others a fifth, at most 5 000,
for calibration.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from dynconf_core.arguments import file_path, instance, whole
from dynconf_core.data.array_files import Samples, is_idx, read_idx, read_npz
from dynconf_core.data.class_folders import ClassFolders
from dynconf_core.data.dataset import DataSet
from dynconf_core.data.digests import file_digest
from dynconf_core.data.images import Images, Normalisation, Split, TensorImages, held_out
from dynconf_core.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

SHARE = 5
"""One sample of so many is a test sample, and one of so many others calibrates."""
MOST_CALIBRATION = 5000
LOOKED_AT = 5000
"""Training samples from which mean and deviation are computed, at most."""
IN_MEMORY = 2 << 30
"""Bytes of pixels up to which a split of image files is kept in memory; larger ones are decoded batch by batch."""
FORMS = "a folder of images by class, an .npz file with images and labels, or a folder of idx files (MNIST's)"


class Part(Protocol):
    """Samples of one split, or of several."""

    @property
    def labels(self) -> Tensor:
        """int64 ``(N,)``."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample."""

    def read(self, indices: Tensor) -> Tensor:
        """The pixels at ``indices``, uint8 or float32."""


@dataclass(frozen=True)
class OwnImages:
    """Images that are read batch by batch; see ``Images``."""

    part: Part
    indices: Tensor
    classes: int
    normalisation: Normalisation

    @property
    def labels(self) -> Tensor:
        """See ``Images.labels``."""
        return self.part.labels[self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    def batch(self, indices: Tensor, crops: torch.Generator | None = None) -> Tensor:
        """See ``Images.batch``."""
        return self.part.read(self.indices[indices.cpu()])

    def to(self, device: torch.device) -> Images:
        """See ``Images.to``."""
        return self


@dataclass(frozen=True)
class Own:
    """A data set of one's own, read.

    Attributes:
        path: the file or folder.
        parts: the samples that are given, by split: of "train" at least.
        names: the names of the classes where they are known.
        files: all its files.
        how: numbers that say how they are read.
    """

    path: Path
    parts: Mapping[Split, Part]
    names: tuple[str, ...] | None
    files: tuple[Path, ...]
    how: tuple[int | None, ...]

    @cached_property
    def digest(self) -> str:
        """The sha256 over the names, the contents (of files too large to be read often: the sizes) and how they are read."""
        whole = hashlib.sha256(repr((SHARE, MOST_CALIBRATION, *self.how)).encode())
        large = sum(file.stat().st_size for file in self.files) > IN_MEMORY
        for file in self.files:
            name = "" if file == self.path else file.relative_to(self.path)
            whole.update(f"{name}:{file.stat().st_size if large else file_digest(file)}\n".encode())
        return whole.hexdigest()

    @property
    def classes(self) -> int:
        """Number of classes C."""
        return 1 + max(int(part.labels.max()) for part in self.parts.values())

    @property
    def first(self) -> int:
        """The smallest label."""
        return min(int(part.labels.min()) for part in self.parts.values())

    def sizes(self) -> dict[Split, int]:
        """Numbers of samples by split."""
        return {split: len(self.indices(split)[1]) for split in ("train", "calibration", "test")}

    def indices(self, split: Split, calibration: int | None = None) -> tuple[Part, Tensor]:
        """The part that holds a split, and the samples' places in it; ``calibration`` training samples are held out.

        Raises:
            InputError: for another number of calibration samples than are given apart.
        """
        import torch

        if split != "train" and split in self.parts:
            part = self.parts[split]
            if split == "calibration" and calibration not in (None, len(part.labels)):
                raise InputError(f"calibration={calibration}: {self.path} gives {len(part.labels)} calibration images apart.")
            return part, torch.arange(len(part.labels))
        part = self.parts["train"]
        training = torch.arange(len(part.labels))
        if "test" not in self.parts:
            training, test = held_out(len(part.labels), len(part.labels) // SHARE)
            if split == "test":
                return part, test
        if "calibration" in self.parts:
            return part, training
        count = min(MOST_CALIBRATION, len(training) // SHARE) if calibration is None else calibration
        kept, held = held_out(len(training), count)
        return part, training[kept if split == "train" else held]

    def images(self, split: Split, normalisation: Normalisation, calibration: int | None = None) -> Images:
        """A split, in memory if it is not too large."""
        part, indices = self.indices(split, calibration)
        if not isinstance(part, Samples) and len(indices) * _numbers(part.shape) > IN_MEMORY:
            return OwnImages(part, indices, self.classes, normalisation)
        pixels = part.read(indices)
        ends = None if _are_pixels(pixels) else _ends(self.parts)
        return TensorImages(pixels, part.labels[indices], self.classes, normalisation, ends)

    def statistics(self) -> Normalisation:
        """Mean and deviation of each channel of the training images, or of each feature, rounded to four decimals."""
        import torch

        part, indices = self.indices("train")
        some = indices[torch.randperm(len(indices), generator=torch.Generator().manual_seed(0))[:LOOKED_AT]]
        pixels = part.read(some)
        values = pixels.double() / 255 if pixels.dtype == torch.uint8 else pixels.double()
        by_channel = values.transpose(0, 1).flatten(1)
        mean, std = by_channel.mean(1), by_channel.std(1, unbiased=False)
        std = torch.where(std < 5e-5, 1.0, std)
        return Normalisation(*(tuple(round(value, 4) for value in one.tolist()) for one in (mean, std)))

    def split_rule(self) -> str:
        """How the splits come about, in words."""
        drawn = [split for split in ("calibration", "test") if split not in self.parts]
        if not drawn:
            return "all given apart"
        return f"{' and '.join(drawn)} drawn from the {'images' if 'test' in drawn else 'training images'} by a fixed seed"


def read_own(
    path: str | os.PathLike[str], *, size: int | None = None, shorter_side: int | None = None, channels: int | None = None
) -> Own:
    """Read a data set of one's own.

    Args:
        path: the file or folder.
        size: the side in pixels to which images are brought; None keeps their own.
        shorter_side: the pixels to which the shorter side of image files is resized before the centre is cut out; None:
            ``size``.
        channels: 3 repeats grey images for a network that takes colours; None keeps their own.

    Raises:
        InputError: if there is no such data set, or saying what is wrong with it.
    """
    where = file_path("path", path).expanduser().absolute()
    size, shorter_side, channels = (
        None if value is None else whole(name, value, "give a number of pixels, or of channels, or None")
        for name, value in (("size", size), ("shorter_side", shorter_side), ("channels", channels))
    )
    if min(size or 1, shorter_side or 1) < 1 or 0 in (size, shorter_side):
        raise InputError(f"size={size}: give the side of an image in pixels, at least 1.")
    if not where.exists():
        raise InputError(f"data set {str(path)!r} does not exist: give {FORMS}.")
    return _read(where, _stamp(where), size, shorter_side, channels)


def own_data(path: str | os.PathLike[str], *, size: int | None = None, normalisation: Normalisation | None = None) -> DataSet:
    """A data set of one's own for a setting, such as ``FLOWERS = own_data("flowers", size=64)``.

    Args:
        path: the file or folder.
        size: the side in pixels to which images are brought; None keeps their own.
        normalisation: of the network's input; None: mean and deviation of the training images.

    Raises:
        InputError: if there is no such data set, or saying what is wrong with it.
    """
    own = read_own(path, size=size)
    if normalisation is not None:
        instance("normalisation", normalisation, Normalisation, "give a Normalisation(mean, std), or None")
    expected = own.statistics() if normalisation is None else normalisation
    sizes, shape = own.sizes(), own.parts["train"].shape

    def load(root: Path, split: Split, *, resolution: int, calibration: int) -> Images:
        return own.images(split, expected, calibration)

    return DataSet(
        title=own.path.name,
        family=f"own {own.path.name}",
        classes=own.classes,
        resolution=1 if len(shape) == 1 else shape[-1],
        train=sizes["train"] + sizes["calibration"],
        test=sizes["test"],
        calibration=sizes["calibration"],
        stem="cifar" if len(shape) < 3 or max(shape[1:]) < 96 else "imagenet",
        normalisation=expected,
        check=lambda root: None,
        digest=lambda root: own.digest,
        load=load,
        downloaded=False,
        sample=shape,
    )


@lru_cache(maxsize=1)
def _read(path: Path, stamp: tuple[int, ...], size: int | None, shorter_side: int | None, channels: int | None) -> Own:
    """``stamp`` is that of the file, so that a changed one is read again."""
    names = None
    parts: dict[Split, Part] = {}
    if path.suffix == ".npz" or is_idx(path):
        train, test = read_idx(path) if path.is_dir() else read_npz(path)
        given = {"train": train} if test is None else {"train": train, "test": test}
        parts = {split: _of_size(samples, size, channels) for split, samples in given.items()}
        files = [path] if path.is_file() else sorted(entry for entry in path.iterdir() if entry.is_file())
    elif path.is_dir():
        folders = ClassFolders(path)
        names = folders.names
        found = folders.files(size, shorter_side)
        parts = {split: replace(one, shape=(_repeated(one.shape[0], channels), *one.shape[1:])) for split, one in found.items()}
        files = [file for listing in folders.listings.values() for file in listing.files]
    else:
        raise InputError(f"{path} is no data set that is known: give {FORMS}.")
    shapes = {part.shape for part in parts.values()}
    if len(shapes) > 1:
        raise InputError(f"{path}: the training and test images have different shapes, {' and '.join(map(str, shapes))}.")
    own = Own(path, parts, names, tuple(files), (size, shorter_side, channels))
    if min(own.sizes().values()) < 1:
        told = ", ".join(f"{split} {count}" for split, count in own.sizes().items())
        raise InputError(f"{path} holds too few images ({told}): each split needs one at least.")
    return own


def _of_size(samples: Samples, size: int | None, channels: int | None) -> Samples:
    """Samples resized as the digits are, and grey ones repeated."""
    import torch
    from torch.nn.functional import interpolate

    pixels = samples.pixels
    if pixels.ndim == 4 and size is not None and pixels.shape[2:] != (size, size):
        large = interpolate(pixels.float(), size=(size, size), mode="bilinear", align_corners=False)
        pixels = large.round().clamp(0, 255).to(torch.uint8) if pixels.dtype == torch.uint8 else large
    if pixels.ndim == 4 and pixels.shape[1] != (wanted := _repeated(pixels.shape[1], channels)):
        pixels = pixels.expand(-1, wanted, -1, -1).contiguous()
    return replace(samples, pixels=pixels)


def _repeated(own: int, channels: int | None) -> int:
    """The number of channels that are read of images with ``own``."""
    if channels in (None, own):
        return own
    if (own, channels) != (1, 3):
        raise InputError(f"channels={channels}: the images have {own}; only grey ones can be repeated, 3 times (--channels 3).")
    return 3


def _stamp(path: Path) -> tuple[int, ...]:
    files = [path] if path.is_file() else [path, *(entry for entry in path.rglob("*") if entry.is_dir())]
    return tuple(number for file in files for number in (file.stat().st_mtime_ns, file.stat().st_size))


def _are_pixels(pixels: Tensor) -> bool:
    """Whether the values are those of images, in [0, 255] or [0, 1]."""
    return pixels.ndim == 4 or not pixels.is_floating_point()


def _ends(parts: Mapping[Split, Part]) -> Tensor:
    """The smallest and the largest value of every feature of vectors, or channel of signals, ``(2, F)``."""
    import torch

    every = torch.cat([part.read(torch.arange(len(part.labels))) for part in parts.values()])
    by_channel = every.transpose(0, 1).flatten(1)
    return torch.stack([by_channel.amin(1), by_channel.amax(1)])


def _numbers(shape: tuple[int, ...]) -> int:
    found = 1
    for side in shape:
        found *= side
    return found
