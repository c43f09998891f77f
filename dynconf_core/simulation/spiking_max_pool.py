"""Max pooling of spikes: emits the change of the largest running spike count in the window.

    c_i(t) = c_i(t-1) + s_i(t);   m(t) = max over the window of c_i(t);   s(t) = m(t) - m(t-1)

At every time step the pool's running count is the maximum of its inputs' running counts, and so of their rates: a settled SNN
reproduces the ANN's max pool exactly. A count changes by one spike per time step, and so does the maximum. The gate of
Rueckauer et al. (Front. Neurosci. 2017), which passes only the input with the highest count, approaches the same rate in the
limit.
"""

from typing import NamedTuple

from torch import Tensor

from dynconf_core.graph.graph import Node
from dynconf_core.graph.operations import max_pool


class PoolState(NamedTuple):
    """Running counts of the inputs ``(N, C, H, W)`` and their maximum in each window ``(N, C, H', W')``."""

    counts: Tensor
    largest: Tensor


def step(node: Node, spikes: Tensor, state: tuple[Tensor, ...] | None) -> tuple[Tensor, PoolState]:
    """Run one time step.

    Args:
        node: the max pool.
        spikes: whole numbers ``(N, C, H, W)``.
        state: the state after the previous time step; None before the first.

    Returns:
        the change of each window's maximum ``(N, C, H', W')``, of the type of ``spikes``, and the new state.
    """
    counts = spikes.float() if state is None else state[0] + spikes
    largest = max_pool(node, counts)
    change = largest if state is None else largest - state[1]
    return change.to(spikes.dtype), PoolState(counts, largest)
