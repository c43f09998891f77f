"""Max pooling of spikes: sends the change of the window's largest running count.

    c_i(t) = c_i(t-1) + s_i(t);   m(t) = max over the window of c_i(t);   s(t) = m(t) - m(t-1)

The pool's running count is at every step the maximum of its inputs' running counts, and so of their rates: a settled SNN has
the ANN's max pool exactly. Since a count moves by one spike a step, so does the maximum. The gate that lets only the input
with the highest count pass (Rueckauer et al., Front. Neurosci. 2017) tends to the same rate; here the count itself is kept.
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
    """One time step.

    Args:
        node: the pool's window.
        spikes: ``(N, C, H, W)``, whole numbers.
        state: after the step before, None in the first.

    Returns:
        the change of each window's maximum ``(N, C, H', W')``, of the type of ``spikes``, and the new state.
    """
    counts = spikes.float() if state is None else state[0] + spikes
    largest = max_pool(node, counts)
    change = largest if state is None else largest - state[1]
    return change.to(spikes.dtype), PoolState(counts, largest)
