"""The neuron of QFFS: it may take a spike back, so that the net count settles at the quantised activation.

    V(t) = V(t-1) + I(t);   up = [V >= theta and c < n];   down = [V < 0 and c > 0];   d = up - down
    V(t) -= theta d;   c += d;   V(0) = theta / 2;   theta = n s

Li, Ma, Furber, Front. Neurosci. 2022, 10.3389/fnins.2022.918793 (negative spikes against occasional noise). Each spike has
the height theta and the sign of d. With the input and the biases switched on in the first n steps only, the layers settle
one after the other, and c s then equals s clip(floor(x / s + 1/2), 0, n), the LSQ activation.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Parameters(NamedTuple):
    """theta, the firing threshold, in the units of the input current, and n, the highest net spike count."""

    threshold: float
    top: int


class State(NamedTuple):
    """The membrane potential and the net spike count c (``net``), both ``(N, ...)``, after the step."""

    potential: Tensor
    net: Tensor


def initial(current: Tensor, parameters: Parameters) -> State:
    """V(0) = theta / 2 and c(0) = 0 for every unit of ``current (N, ...)``."""
    return State(torch.full_like(current, parameters.threshold / 2), torch.zeros_like(current))


def step(current: Tensor, state: State, parameters: Parameters) -> tuple[Tensor, State]:
    """One time step.

    Args:
        current: I(t), ``(N, ...)``.
        state: after the step before.
        parameters: of the layer.

    Returns:
        spikes in {-1, 0, 1}, of the shape and type of ``current``, and the new state; the old one is left as it was.
    """
    potential = state.potential + current
    up = (potential >= parameters.threshold) & (state.net < parameters.top)
    down = (potential < 0) & (state.net > 0)
    spikes = up.to(potential.dtype) - down.to(potential.dtype)
    potential.sub_(spikes, alpha=parameters.threshold)
    return spikes, State(potential, state.net + spikes)
