"""A conversion scheme from outside: an activation of three levels, neurons that rest, thresholds learned."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from dynconf_core.activations.quantisation import Quantisation
from dynconf_core.networks.architecture import Activation
from dynconf_core.schemes.field import Field, between

NEURONS = "resting:Resting"


class ThirdsActivation(nn.Module):
    """0, a third, two thirds or the whole of a learned top; gradients pass straight through."""

    def __init__(self, top: float) -> None:
        super().__init__()
        self.top = nn.Parameter(torch.tensor(top))

    def forward(self, x: Tensor) -> Tensor:
        clipped = (x / self.top).clamp(0, 1)
        stepped = (3 * clipped + 0.5).floor() / 3
        return (clipped + (stepped - clipped).detach()) * self.top

    def quantisation(self) -> Quantisation:
        return Quantisation(3, self.top.detach(), NEURONS)


@dataclass(frozen=True)
class Thirds:
    """The scheme; ``top`` is where its activations saturate at the start of training."""

    top: float = 2.0

    title: ClassVar[str] = "thirds"
    neurons: ClassVar[str] = NEURONS
    starts_from_a_threshold: ClassVar[bool] = False
    images: ClassVar[int] = 1
    fields: ClassVar[Mapping[str, Field]] = {"top": Field(float, "a number from 0.1 to 10", between(0.1, 10))}

    @classmethod
    def preset(cls, profile: str, family: str) -> tuple[Self, int]:
        return cls(), 12

    def activation(self, initial_threshold: float) -> Activation:
        return lambda: ThirdsActivation(self.top)

    def network(self) -> dict[str, Any]:
        return {"top": self.top}

    def conversion(self, time_steps: int) -> dict[str, Any]:
        return {"thresholds": "learned"}
