"""Neurons from outside: integrate-and-fire, but for one step of rest after each spike."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dynconf_core.neurons.model import NeuronModel, State


@dataclass(frozen=True)
class Resting(NeuronModel):
    """Fires at most in every other step."""

    name: ClassVar[str] = "resting"

    def initial(self, like: Tensor, potential: Tensor | float) -> State:
        return super().initial(like, potential)[0], torch.zeros_like(like)

    def fire(self, state: State, out: Tensor) -> tuple[Tensor, State]:
        potential, rests = state
        spikes = torch.ge(potential, 1.0, out=out).mul_(1 - rests)
        return spikes, (potential.sub_(spikes), spikes.clone())

    @property
    def sends(self) -> tuple[int, int]:
        return 0, 1

    def sends_in_all(self, time_steps: int) -> tuple[int, int]:
        return 0, (time_steps + 1) // 2
