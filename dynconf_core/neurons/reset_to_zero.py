"""The integrate-and-fire neuron with hard reset: a spike sets the membrane potential to 0.

    V(t) = V(t-1) + I(t);   s(t) = [V(t) >= 1];   V(t) = 0 where s(t) = 1

in units of the threshold theta. Networks trained as SNNs often have it (SpikingJelly's default). For conversion it serves
badly: what lies above the threshold at a spike is lost to the rate.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dynconf_core.neurons.integrate_and_fire import IntegrateAndFire, Potential
from dynconf_core.neurons.model import State


@dataclass(frozen=True)
class ResetToZero(IntegrateAndFire):
    """Sends at most one spike per time step, and never a negative one."""

    name: ClassVar[str] = "reset-to-zero"

    def fire(self, state: State, out: Tensor) -> tuple[Tensor, Potential]:
        """s = [V >= 1], V = 0 where s = 1."""
        (potential,) = state
        spikes = torch.ge(potential, 1.0, out=out)
        return spikes, Potential(potential.masked_fill_(spikes != 0, 0.0))

    def excess(self, time_steps: int) -> int:
        """0: V is the input current received since the last spike, or V(0) and all of it."""
        return 0
