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


def initial(current: Tensor, potential: Tensor | float) -> State:
    """V(0) = ``potential`` for every unit of ``current (N, ...)``: theta / 2, unless it was calibrated."""
    return State(torch.empty_like(current).copy_(torch.as_tensor(potential)))


def step(current: Tensor, state: State, parameters: Parameters, reuse: bool = False) -> tuple[Tensor, State]:
    """One time step.

    Args:
        current: I(t), ``(N, ...)``.
        state: after the step before.
        parameters: of the layer.
        reuse: whether the memory of ``current`` may hold the spikes, and that of ``state`` the new potential.

    Returns:
        spikes in {0, 1}, of the shape and type of ``current``, and the new state.
    """
    potential = state.potential.add_(current) if reuse else state.potential + current
    return fire(potential, parameters, current if reuse else torch.empty_like(potential))


def fire(potential: Tensor, parameters: Parameters, out: Tensor) -> tuple[Tensor, State]:
    """Spikes, written into ``out``, and the state of a charged ``potential``, which is reset in place."""
    spikes = torch.ge(potential, parameters.threshold, out=out)  # no detour over bool
    return spikes, State(potential.sub_(spikes, alpha=parameters.threshold))
