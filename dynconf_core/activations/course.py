"""What a recipe asks of activations while they are trained: more levels at first, noise before they round, a regulariser.

Noise: Chen and Rajendran, "Noise Adaptor", arXiv 2411.17431: uniform in (-1/2, 1/2) of a level, before rounding. In a spiking
network the same input gives now one spike more, now one less, since spikes arrive unevenly; weights trained with noise tolerate
that.

RCS: Wu et al., "Optimising Event-Driven Spiking Neural Network with Regularisation and Cutoff", arXiv 2301.09522, by which
small activations, whose neurons fire late, become rarer. Here a layer's term is the mean, over images and channels, of
log(max y / sqrt(mean y^2 + 1e-5)), where the maximum is over the batch and the mean over a channel's pixels.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from dynconf_core.errors import InputError
from dynconf_core.wording import told

LEAST = 1e-5
"""Added to the mean square of a channel."""


class Course:
    """The state that all activations of a network share during training; a copy of the network shares it too.

    Attributes:
        fineness: the factor on the number of levels.
        noise: half the width of the noise, in levels; 0 for none.
        generator: the source of the noise, on the device of the activations; None for torch's own.
        batch, share: the images of a batch, and the part of them that this process computes; noise is drawn for the batch.
        penalties: the regulariser's terms of the layers since ``taken``; None: it is not used.
    """

    def __init__(self, batch: int, share: slice) -> None:
        self.fineness = 1
        self.noise = 0.0
        self.generator: torch.Generator | None = None
        self.batch, self.share = batch, share
        self.penalties: list[Tensor] | None = None

    def seed(self, seed: int, device: torch.device, compiled: bool) -> None:
        """Begin an epoch's noise; compiled code draws from torch's own generator."""
        if compiled:
            torch.manual_seed(seed)
        else:
            self.generator = torch.Generator(device).manual_seed(seed)
        self.taken()

    def end(self) -> None:
        """Let activations be what they will be in use."""
        self.fineness, self.noise, self.penalties = 1, 0.0, None

    def shaken(self, x: Tensor, level: Tensor) -> Tensor:
        """``x (n, ...)`` with noise; ``level`` is the height of a level."""
        if self.noise == 0:
            return x
        whole = torch.rand((self.batch, *x.shape[1:]), generator=self.generator, device=x.device, dtype=x.dtype)
        noise = whole[self.share].mul_(2).sub_(1).mul_(self.noise)
        return x + noise * level.detach().to(x.dtype)

    def watch(self, y: Tensor) -> None:
        """Take the regulariser's term of a layer's activations ``y (n, C, ...)``."""
        if self.penalties is None:
            return
        squares = y.float().square()
        by_channel = squares.flatten(2).mean(2) if y.ndim > 2 else squares.mean(1, keepdim=True)
        largest = y.amax().float().clamp_min(LEAST)
        self.penalties.append((largest.log() - 0.5 * (by_channel + LEAST).log()).mean())

    def taken(self) -> Tensor | None:
        """The mean of the terms since the last call; None if there are none."""
        if not self.penalties:
            return None
        mean = torch.stack(self.penalties).mean()
        self.penalties.clear()
        return mean

    def __deepcopy__(self, memo: dict[int, Any]) -> Course:
        return self


@runtime_checkable
class Guided(Protocol):
    """An activation that follows a course in training.

    Attributes:
        course: what it follows; None: nothing.
    """

    course: Course | None

    def quantisation(self) -> Any:
        """See ``Quantised``."""


def guide(network: nn.Module, course: Course | None) -> None:
    """Let the activations of ``network`` follow a course, or none any more."""
    for module in network.modules():
        if isinstance(module, Guided):
            module.course = course


def check_guided(network: nn.Module, *, noise: float, rcs: float, finer_start: int) -> None:
    """Raise ``InputError`` if no activation of ``network`` can follow a course that a recipe with these fields asks for."""
    if any(isinstance(module, Guided) for module in network.modules()):
        return
    asked = {"noise": noise, "rcs": rcs, "finer_start": finer_start if finer_start > 1 else 0}
    raise InputError(
        f"{', '.join(told(name, value) for name, value in asked.items() if value)}: only QCFS and LSQ activations can follow "
        "this, and the network has none: leave it out of the recipe."
    )
