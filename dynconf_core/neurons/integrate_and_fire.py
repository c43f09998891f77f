"""The integrate-and-fire neuron of QCFS conversion: no leak, soft reset, starts half charged.

    V(t) = V(t-1) + I(t);   s(t) = [V(t) >= theta];   V(t) -= theta s(t);   V(0) = theta / 2

Bu et al., ICLR 2022, arXiv 2303.04347, equations 2 to 5 and 17. A spike has the height theta (the layer that receives it
sees theta s), so the mean output over T steps approaches clip(mean input, 0, theta).
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Parameters(NamedTuple):
    """theta, the firing threshold, in the units of the input current."""

    threshold: float


class State(NamedTuple):
    """The membrane potential ``(N, ...)`` after the reset, in the units of the input current."""

    potential: Tensor


def initial(current: Tensor, parameters: Parameters) -> State:
    """V(0) = theta / 2 for every unit of ``current (N, ...)``."""
    return State(torch.full_like(current, parameters.threshold / 2))


def step(current: Tensor, state: State, parameters: Parameters) -> tuple[Tensor, State]:
    """One time step.

    Args:
        current: I(t), ``(N, ...)``.
        state: after the step before.
        parameters: of the layer.

    Returns:
        spikes in {0, 1}, of the shape and type of ``current``, and the new state; the old one is left as it was.
    """
    potential = state.potential + current
    spikes = torch.ge(potential, parameters.threshold, out=torch.empty_like(potential))  # no detour over bool
    potential.sub_(spikes, alpha=parameters.threshold)
    return spikes, State(potential)
