"""One split of a data set, as the trainer and the simulator see it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Split = str
SPLITS: tuple[Split, ...] = ("train", "calibration", "test")
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
        """The largest absolute value that a normalised image can have; a hair more, as devices divide differently."""
        import torch

        ends = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 1, 1)
        return float(self(ends).abs().max()) * (1 + 2**-20)


@cache
def _channels(values: tuple[float, float, float], device: torch.device) -> Tensor:
    """``(1, 3, 1, 1)``, kept: to make it anew on a GPU would be a transfer that the CPU waits for."""
    import torch

    with torch.inference_mode(False):
        return torch.tensor(values, device=device).view(1, 3, 1, 1)


class Images(Protocol):
    """A split: its labels at hand, its pixels by index."""

    @property
    def labels(self) -> Tensor:
        """The classes ``(N,)``, int64, on the CPU."""

    @property
    def classes(self) -> int:
        """Number of classes C."""

    @property
    def normalisation(self) -> Normalisation:
        """What the network's input is divided by."""

    def __len__(self) -> int: ...

    def batch(self, indices: Tensor, crops: torch.Generator | None = None) -> Tensor:
        """uint8 pixels ``(n, 3, H, W)`` of ``indices (n,)``; ``crops`` draws random resized crops where pixels are read
        from larger images, and is ignored where they lie in memory at their final size."""

    def to(self, device: torch.device) -> Images:
        """The same images, their pixels on ``device`` where they lie in memory."""


@dataclass(frozen=True)
class TensorImages:
    """Images that lie in memory.

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
        return self.pixels.index_select(0, indices.to(self.pixels.device))  # ten times faster than by brackets

    def to(self, device: torch.device) -> TensorImages:
        """See ``Images.to``."""
        return replace(self, pixels=self.pixels.to(device))

    def subset(self, indices: Tensor) -> TensorImages:
        """The images at ``indices``, in that order."""
        return replace(self, pixels=self.pixels[indices], labels=self.labels[indices])
