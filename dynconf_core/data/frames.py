"""Input that changes with the time step: event frames, encoded images, the frames of a signal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from dynconf_core.arguments import tensor
from dynconf_core.data.images import class_numbers
from dynconf_core.errors import InputError
from dynconf_core.wording import counted, told

if TYPE_CHECKING:
    from torch import Tensor


LENGTHS = "give whole numbers from 1, one a sample"


class FrameSplit(Protocol):
    """A split whose samples have an input for each time step: like ``Images``, with one more dimension."""

    @property
    def labels(self) -> Tensor:
        """The classes ``(N,)``, int64, on the CPU."""

    @property
    def lengths(self) -> Tensor | None:
        """The time steps after which each sample ends, ``(N,)`` int64 from 1; None: all end at T."""

    @property
    def normalisation(self) -> Callable[[Tensor], Tensor]:
        """From frames ``(n, T, ...)``, as ``batch`` gives them, to the network's input of the same shape, floating point."""

    def __len__(self) -> int: ...

    def batch(self, indices: Tensor) -> Tensor:
        """The frames ``(n, T, ...)`` of ``indices (n,)``."""


@dataclass(frozen=True)
class Frames:
    """Frames held in memory.

    Attributes:
        frames: ``(N, T, C, H, W)``, ``(N, T, C, L)`` or ``(N, T, F)``: the input of each time step; zeros where nothing
            arrives, as after a sample's end. These and the following may be arrays, and become tensors.
        labels: the classes ``(N,)``, int64.
        lengths: the time steps after which each sample ends, ``(N,)`` int64 from 1 to T; None: all end at T.
        each: normalises single frames ``(n, ...)``, such as a ``Normalisation``; None: they are used as they are.

    Raises:
        InputError: for numbers of samples that differ, or lengths outside 1 to T.
    """

    frames: Tensor
    labels: Tensor
    lengths: Tensor | None = None
    each: Callable[[Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "frames", tensor("frames", self.frames, "give frames (N, T, ...), such as (N, T, C, H, W)"))
        object.__setattr__(self, "labels", class_numbers("labels", self.labels))
        if self.lengths is not None:
            object.__setattr__(self, "lengths", tensor("lengths", self.lengths, LENGTHS))
        if self.each is not None and not callable(self.each):
            raise InputError(f"{told('each', self.each)}: give a function of single frames (n, ...), or a Normalisation.")
        if self.frames.ndim < 3 or self.frames.is_complex() or len(self.frames) != len(self.labels):
            raise InputError(
                f"frames {self.frames.dtype} {tuple(self.frames.shape)} with labels {tuple(self.labels.shape)}: give frames "
                "(N, T, ...), such as (N, T, C, H, W), and labels (N,)."
            )
        time_steps = self.frames.shape[1]
        checked_lengths(self.lengths, len(self.frames), time_steps)
        if self.lengths is not None and len(self.lengths) and int(self.lengths.max()) > time_steps:
            raise InputError(
                f"lengths are up to {int(self.lengths.max())}, with frames for {counted(time_steps, 'time step')}."
            )

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Tensor) -> Tensor:
        """See ``FrameSplit.batch``."""
        return self.frames[indices.to(self.frames.device)]

    def normalisation(self, frames: Tensor) -> Tensor:
        """See ``FrameSplit.normalisation``."""
        return frames.float() if self.each is None else self.each(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])


def checked_lengths(lengths: Tensor | None, samples: int, time_steps: int) -> NDArray[np.int64] | None:
    """The steps ``(N,)`` after which samples end, at most T = ``time_steps``; None if all have T.

    Raises:
        InputError: unless lengths are whole numbers from 1, one a sample.
    """
    if lengths is None:
        return None
    lengths = tensor("lengths", lengths, LENGTHS)
    if lengths.shape != (samples,) or lengths.is_floating_point() or lengths.is_complex() or str(lengths.dtype) == "torch.bool":
        raise InputError(f"lengths are {lengths.dtype} {tuple(lengths.shape)}: give whole numbers ({samples},), one a sample.")
    if samples and int(lengths.min()) < 1:
        raise InputError(f"lengths are from {int(lengths.min())}: a sample has at least 1 time step.")
    found: NDArray[np.int64] = np.minimum(lengths.cpu().numpy().astype(np.int64), time_steps)
    return found
