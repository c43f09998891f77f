"""The images of one split of a data set, and how the calibration split is held out of the training images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

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
    """Mean and standard deviation of each colour channel, in units of a pixel's range [0, 1]."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __call__(self, pixels: Tensor) -> Tensor:
        """uint8 pixels ``(N, 3, H, W)`` in [0, 255] to float32 network input of the same shape."""
        mean, std = (_channels(values, pixels.device) for values in (self.mean, self.std))
        return pixels.float().div_(255).sub_(mean).div_(std)

    def limit(self) -> float:
        """The largest absolute value of a normalised image, increased slightly because devices round divisions differently."""
        import torch

        ends = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 1, 1)
        return float(self(ends).abs().max()) * (1 + 2**-20)


@cache
def _channels(values: tuple[float, float, float], device: torch.device) -> Tensor:
    """``(1, 3, 1, 1)``, cached: creating it anew on a GPU would be a transfer that the CPU waits for."""
    import torch

    with torch.inference_mode(False):
        return torch.tensor(values, device=device).view(1, 3, 1, 1)


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
        """uint8 pixels ``(n, 3, H, W)`` of ``indices (n,)``. ``crops`` draws random resized crops if the pixels are read
        from larger images, and is ignored if they are held in memory at their final size."""

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
        pixels: uint8 ``(N, 3, H, W)``.
        labels: int64 ``(N,)``.
    """

    pixels: Tensor
    labels: Tensor
    classes: int
    normalisation: Normalisation

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
