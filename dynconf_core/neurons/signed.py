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


def initial(current: Tensor, potential: Tensor | float) -> State:
    """V(0) = ``potential`` (theta / 2, unless it was calibrated) and c(0) = 0 for every unit of ``current (N, ...)``."""
    return State(torch.empty_like(current).copy_(torch.as_tensor(potential)), torch.zeros_like(current))


def step(current: Tensor, state: State, parameters: Parameters, reuse: bool = False) -> tuple[Tensor, State]:
    """One time step.

    Args:
        current: I(t), ``(N, ...)``.
        state: after the step before.
        parameters: of the layer.
        reuse: whether the memory of ``current`` may hold the spikes, and that of ``state`` the new potential.

    Returns:
        spikes in {-1, 0, 1}, of the shape and type of ``current``, and the new state.
    """
    potential = state.potential.add_(current) if reuse else state.potential + current
    return fire(potential, state.net, parameters, current if reuse else torch.empty_like(potential))


def fire(potential: Tensor, net: Tensor, parameters: Parameters, out: Tensor) -> tuple[Tensor, State]:
    """Spikes, written into ``out``, and the state of a charged ``potential``, which is reset in place; ``net`` is c before."""
    # floor(V / theta), cut to [-1, 1], is 1 from theta on, -1 below 0; the limits of c then hold some of the spikes back.
    wanted = torch.div(potential, parameters.threshold, out=out) if parameters.threshold != 1 else out.copy_(potential)
    after = wanted.floor_().clamp_(-1, 1).add(net).clamp_(0, parameters.top)
    spikes = torch.sub(after, net, out=out)
    return spikes, State(potential.sub_(spikes, alpha=parameters.threshold), after)
