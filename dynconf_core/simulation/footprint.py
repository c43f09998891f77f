"""How much memory a simulation takes, and so how many images it may hold at a time."""

import math

from dynconf_core.errors import InputError
from dynconf_core.simulation.network import SpikingNetwork
from dynconf_core.simulation.pace import STEPS, largest

BYTES = 4
FIXED = 600 << 20
"""Of the process itself: torch, and in a flow Prefect, MLflow and Optuna (measured: 220 and 555 MiB)."""
COPIES = 4
"""Of all weights: as they are, as they are laid out for the products (up to twice as many), and the ANN's own."""
LIVE = 6
"""Values of the largest layer that a step holds at once, at most."""
PREPARATION = 12
"""Times the largest layer's weights: what preparing its integer product takes on the way (measured)."""
BATCH = {"cpu": 64, "cuda": 256}
"""More images at a time are no faster."""


def bytes_a_sample(network: SpikingNetwork) -> int:
    """An upper estimate for one sample: all states, what the image determines, and the largest values of a step at once."""
    graph = network.graph
    size = {node.name: math.prod(node.shape) for node in graph.nodes}
    states = network.neurons.state_tensors * sum(size[node.name] for node in graph.of_kind("neurons"))
    pools = sum(size[node.inputs[0]] + size[node.name] for node in graph.of_kind("max_pool"))
    after = graph.after(("neurons",))
    input_current = sum(size[node.name] for node in graph.nodes if node.name not in after)
    return BYTES * (states + pools + 2 * input_current + LIVE * largest(graph))


def bytes_without_samples(network: SpikingNetwork) -> int:
    """An upper estimate of everything else: the process, the weights, what is done to them before the first image, and the
    values of several time steps at once."""
    weights = [value.numel() for value in network.buffers()]
    values = LIVE * network.pace(BATCH.get(network.device.type, 64), STEPS).rows * largest(network.graph)
    return FIXED + BYTES * (COPIES * sum(weights) + PREPARATION * max(weights, default=0) + values)


def batch_size(network: SpikingNetwork, memory: int | None = None) -> int:
    """Images at a time within ``memory`` bytes (None: as many as are worth while).

    Raises:
        InputError: where not even one fits.
    """
    most = BATCH.get(network.device.type, 64)
    if memory is None:
        return most
    room = (memory - bytes_without_samples(network)) // bytes_a_sample(network)
    if room < 1:
        needed = (bytes_without_samples(network) + bytes_a_sample(network)) / (1 << 20)
        raise InputError(
            f"memory={memory / (1 << 20):.0f} MiB is too little for one image: this network needs {needed:.0f} MiB."
        )
    return int(min(most, room))
