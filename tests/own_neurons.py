"""Neurons and an activation from outside the package: one class each, with no change to the package."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from dynconf_core.activations.quantisation import Quantisation
from dynconf_core.neurons.model import NeuronModel, State


class Resting(NamedTuple):
    """The membrane potential, and 1 if the neuron fired in the previous step."""

    potential: Tensor
    rests: Tensor


@dataclass(frozen=True)
class Refractory(NeuronModel):
    """Integrate-and-fire with one step of rest after each spike."""

    name: ClassVar[str] = "refractory"

    def initial(self, like: Tensor, potential: Tensor | float) -> Resting:
        return Resting(super().initial(like, potential)[0], torch.zeros_like(like))

    def fire(self, state: State, out: Tensor) -> tuple[Tensor, Resting]:
        potential, rests = state
        spikes = torch.ge(potential, 1.0, out=out).mul_(1 - rests)
        return spikes, Resting(potential.sub_(spikes), spikes.clone())

    @property
    def sends(self) -> tuple[int, int]:
        return 0, 1

    def sends_in_all(self, time_steps: int) -> tuple[int, int]:
        return 0, (time_steps + 1) // 2


@dataclass(frozen=True)
class Burst(NeuronModel):
    """Sends up to ``most`` spikes in one step; its state is a plain tuple, and its spikes are in new memory."""

    most: int = 3
    name: ClassVar[str] = "burst"

    def fire(self, state: State, out: Tensor) -> tuple[Tensor, State]:
        (potential,) = state
        spikes = potential.floor().clamp(0, self.most)
        return spikes, (potential - spikes,)

    @property
    def sends(self) -> tuple[int, int]:
        return 0, self.most

    def excess(self, time_steps: int) -> int:
        return 0  # as with integrate-and-fire neurons: V is at least 0 after a spike


@dataclass(frozen=True)
class Leaky(NeuronModel):
    """Loses a share of its membrane potential in every step, which fixed-point arithmetic cannot represent."""

    leak: float = 0.1
    name: ClassVar[str] = "leaky"
    exact: ClassVar[bool] = False

    def fire(self, state: State, out: Tensor) -> tuple[Tensor, State]:
        (potential,) = state
        spikes = torch.ge(potential, 1.0, out=out)
        return spikes, (potential.sub_(spikes).mul_(1 - self.leak),)

    @property
    def sends(self) -> tuple[int, int]:
        return 0, 1


class Thirds(nn.Module):
    """0, a third, two thirds or the whole of ``top``; its neurons are named on construction."""

    def __init__(self, neurons: str, top: float = 1.5) -> None:
        super().__init__()
        self.neurons, self.top = neurons, nn.Parameter(torch.tensor(top))

    def forward(self, x: Tensor) -> Tensor:
        return (3 * x / self.top + 0.5).floor().clamp(0, 3) * self.top / 3

    def quantisation(self) -> Quantisation:
        return Quantisation(3, self.top.detach(), self.neurons)
