"""The images of one split of a data set, and how the calibration split is held out of the training images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from math import isfinite
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from dynconf_core.arguments import instance, tensor, whole
from dynconf_core.errors import InputError
from dynconf_core.wording import counted, told

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Split = str
SPLITS: tuple[Split, ...] = ("train", "calibration", "test")
SPLIT_SEED = 20231002
"""Fixed, so that a different training seed never moves an image between the training and the calibration split."""
AUGMENTATIONS = ("crop", "flip", "autoaugment", "jitter", "cutout")
"""What ``dynconf_core.data.augment`` can do to images; here, since to name them takes no torch."""


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation of the network's input: one of each for all channels, or one for each channel.

    The units are those of the range [0, 1] of a pixel, or for data that are decimals already the data's own.

    Raises:
        InputError: for numbers that are not finite, a deviation that is not above 0, or means and deviations that differ in
            number.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            object.__setattr__(self, name, _numbers(name, getattr(self, name)))
        if len(self.mean) != len(self.std):
            given = f"{counted(len(self.mean), 'mean')} and {counted(len(self.std), 'deviation')}"
            raise InputError(f"normalisation: {given}: give as many of both.")
        if not min(self.std) > 0:
            raise InputError(f"normalisation: std={self.std}: every deviation must be above 0.")

    def __call__(self, data: Tensor) -> Tensor:
        """The network's input, float32, of the shape of ``data``, which are not changed.

        Args:
            data: uint8 pixels ``(N, C, H, W)`` in [0, 255], or decimals; vectors ``(N, F)`` and signals ``(N, C, L)`` too, and
                images by time step, ``(N, T, C, H, W)``.

        Raises:
            InputError: for data of another type, or with another number of channels.
        """
        self.check(data)
        mean, std = (_channels(values, data.device, data.ndim) for values in (self.mean, self.std))
        if data.is_floating_point():
            return data.float().sub(mean).div_(std)
        return data.float().div_(255).sub_(mean).div_(std)

    def check(self, data: Tensor) -> None:
        """Raise ``InputError`` unless ``data`` are of a type and a shape to be normalised."""
        import torch

        if not isinstance(data, torch.Tensor):
            raise InputError(f"{told('data', data)}: give a tensor (N, C, H, W), as torch.from_numpy makes of an array.")
        if data.dtype is not torch.uint8 and not data.is_floating_point():
            raise InputError(f"the images are {data.dtype}: give uint8 pixels from 0 to 255, or floating-point numbers.")
        given = len(self.mean)
        if data.ndim < 2:
            raise InputError(f"the images have the shape {tuple(data.shape)}: give (N, C, H, W), or vectors (N, F).")
        channels = data.shape[channel_axis(data.ndim)]
        if given not in (1, channels):
            wanted = "one" if channels == 1 else f"{channels} of each, or one"
            raise InputError(
                f"the images have {counted(channels, 'channel')} (their shape is {tuple(data.shape)}), but the normalisation "
                f"has {given} means and deviations: give {wanted} of each for all channels."
            )

    def limit(self, ends: Tensor | None = None) -> float:
        """The largest absolute value of normalised data, increased slightly because devices round divisions differently.

        Args:
            ends: the smallest and the largest values of the data, ``(2, C)``; None: those of pixels.
        """
        import torch

        if ends is None:
            ends = torch.tensor([0.0, 1.0]).view(2, 1).expand(2, len(self.mean))
        return float(self(ends).abs().max()) * (1 + 2**-20)

    def as_json(self) -> dict[str, list[float]]:
        """``mean`` and ``std`` as lists."""
        return {"mean": list(self.mean), "std": list(self.std)}


def class_numbers(field: str, value: Any) -> Tensor:
    """Labels of any kind as int64 ``(N,)``.

    Raises:
        InputError: unless they are one whole number a sample.
    """
    labels = tensor(field, value, "give the class numbers (N,), whole numbers from 0")
    if labels.is_floating_point() or labels.is_complex():
        raise InputError(f"{field} are {labels.dtype}: give whole numbers from 0, as by {field}.long() of whole ones.")
    if labels.ndim != 1:
        remedy = f"{field}.ravel()" if labels.ndim and labels.numel() == len(labels) else "labels.argmax(1) of one-hot rows"
        raise InputError(f"{field} has the shape {tuple(labels.shape)}: give one class number a sample, (N,), as by {remedy}.")
    return labels.long()


def channel_axis(dimensions: int) -> int:
    """The axis of the channels of data ``(N, F)``, ``(N, C, L)``, ``(N, C, H, W)`` or ``(N, T, C, H, W)``."""
    return 2 if dimensions == 5 else 1


def _numbers(name: str, given: Any) -> tuple[float, ...]:
    """One number or several, in whatever form, as a tuple."""
    try:
        values = tuple(float(value) for value in np.atleast_1d(np.asarray(given, np.float64)))
    except (TypeError, ValueError):
        values = ()
    if not values or not all(map(isfinite, values)):
        raise InputError(f"normalisation: {name}={given!r}: give one finite number for all channels, or one for each.")
    return values


@cache
def _channels(values: tuple[float, ...], device: torch.device, dimensions: int) -> Tensor:
    """Such as ``(1, C, 1, 1)``, cached: creating it anew on a GPU would be a transfer that the CPU waits for."""
    import torch

    shape = [1] * dimensions
    shape[channel_axis(dimensions)] = -1
    with torch.inference_mode(False):
        return torch.tensor(values, device=device).view(shape)


class Images(Protocol):
    """A split: labels directly, pixels by index."""

    @property
    def labels(self) -> Tensor:
        """The classes ``(N,)``, int64, on the CPU."""

    @property
    def classes(self) -> int:
        """Number of classes C."""

    @property
    def normalisation(self) -> Normalisation:
        """The normalisation of the network's input."""

    def __len__(self) -> int: ...

    def batch(self, indices: Tensor, crops: torch.Generator | None = None) -> Tensor:
        """uint8 pixels ``(n, C, H, W)`` of ``indices (n,)``, or decimals. ``crops`` draws random resized crops if the pixels
        are read from larger images, and is ignored if they are held in memory at their final size."""

    def to(self, device: torch.device) -> Images:
        """The same images, with the pixels on ``device`` if they are held in memory."""


@runtime_checkable
class ReadInParts(Protocol):
    """Images of which one process of several can read its share of a batch, without reading the rest."""

    def part(self, indices: Tensor, share: slice, crops: torch.Generator | None = None) -> Tensor:
        """``Images.batch(indices, crops)[share]``; ``crops`` ends in the same state."""


@dataclass(frozen=True)
class TensorImages:
    """Images held in memory.

    Attributes:
        pixels: uint8 ``(N, C, H, W)``, or decimals; vectors ``(N, F)`` too. An array becomes a tensor.
        labels: int64 ``(N,)``, or an array of whole numbers.
        classes: number of classes C.
        normalisation: of the network's input.
        ends: the smallest and the largest values in the data set of each feature of vectors, or channel of signals,
            ``(2, F)``; None for pixels.

    Raises:
        InputError: for pixels that the normalisation does not fit, or labels that are not one whole number a sample.
    """

    pixels: Tensor
    labels: Tensor
    classes: int
    normalisation: Normalisation
    ends: Tensor | None = None

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "pixels", tensor("pixels", self.pixels, "give pixels (N, C, H, W), signals (N, C, L) or vectors (N, F)")
        )
        object.__setattr__(self, "labels", class_numbers("labels", self.labels))
        object.__setattr__(self, "classes", whole("classes", self.classes, "give the number of classes, such as 10"))
        if self.labels.numel() and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < self.classes:
            raise InputError(
                f"classes={self.classes}, and the labels go from {int(self.labels.min())} to {int(self.labels.max())}: give "
                "labels from 0 to classes - 1."
            )
        instance("normalisation", self.normalisation, Normalisation, "give a Normalisation(mean, std)")
        self.normalisation.check(self.pixels)
        if self.labels.shape != (len(self.pixels),):
            raise InputError(
                f"labels has the shape {tuple(self.labels.shape)}: give one whole number for each of the "
                f"{counted(len(self.pixels), 'image')}."
            )

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Tensor, crops: torch.Generator | None = None) -> Tensor:
        """See ``Images.batch``."""
        return self.pixels.index_select(0, indices.to(self.pixels.device))  # ten times faster than pixels[indices]

    def to(self, device: torch.device) -> TensorImages:
        """See ``Images.to``."""
        return replace(self, pixels=self.pixels.to(device))

    def subset(self, indices: Tensor) -> TensorImages:
        """The images at ``indices``, in that order."""
        return replace(self, pixels=self.pixels[indices], labels=self.labels[indices])


def limit(images: Images) -> float:
    """The largest absolute value that a sample of the data set can have when it is normalised."""
    return images.normalisation.limit(images.ends if isinstance(images, TensorImages) else None)


def held_out(images: int, calibration: int, seed: int = SPLIT_SEED) -> tuple[Tensor, Tensor]:
    """Indices of the training and of the calibration images, int64, each in ascending order.

    Args:
        images: number of training images in the data set.
        calibration: how many of them are held out.
        seed: of the split.
    """
    import torch

    order = np.random.Generator(np.random.PCG64(seed)).permutation(images)
    kept, held = np.sort(order[calibration:]), np.sort(order[:calibration])
    return torch.from_numpy(kept), torch.from_numpy(held)
