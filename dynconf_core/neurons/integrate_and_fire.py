"""The integrate-and-fire neuron of QCFS conversion: no leak, soft reset, initial membrane potential of half a threshold.

    V(t) = V(t-1) + I(t);   s(t) = [V(t) >= 1];   V(t) -= s(t);   V(0) = 1/2

in units of the threshold theta. Bu et al., ICLR 2022, arXiv 2303.04347, equations 2 to 5 and 17. A spike has the height theta
(the next layer receives theta s), so that the mean output over T time steps approaches clip(mean input, 0, theta).
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from dynconf_core.neurons.model import NeuronModel, State, triangle


class Potential(NamedTuple):
    """The membrane potential ``(N, ...)`` after the reset, in units of the threshold."""

    potential: Tensor


@dataclass(frozen=True)
class IntegrateAndFire(NeuronModel):
    """Sends at most one spike per time step, and never a negative one."""

    name: ClassVar[str] = "integrate-and-fire"

    def initial(self, like: Tensor, potential: Tensor | float) -> Potential:
        """V(0) = ``potential``."""
        return Potential(super().initial(like, potential)[0])

    def fire(self, state: State, out: Tensor) -> tuple[Tensor, Potential]:
        """s = [V >= 1], V -= s."""
        (potential,) = state
        spikes = torch.ge(potential, 1.0, out=out)  # written directly as numbers, without a bool tensor
        return spikes, Potential(potential.sub_(spikes))

    def slope(self, state: State) -> Tensor:
        """A triangle around V = 1."""
        return triangle(state[0] - 1)

    @property
    def sends(self) -> tuple[int, int]:
        """0 or 1."""
        return 0, 1

    def excess(self, time_steps: int) -> int:
        """0: a neuron fires only at V >= 1, so V is never below the input current received since its last spike."""
        return 0
