"""How much memory a simulation takes, and so how many images it may hold at a time."""

import math

from dynconf_core.errors import InputError
from dynconf_core.simulation.network import SpikingNetwork

BYTES = 4
FIXED = 600 << 20
"""Of the process itself: torch, and in a flow Prefect, MLflow and Optuna (measured: 220 and 555 MiB)."""
COPIES = 4
"""Of all weights: in the graph, as they are computed with, as bytes for integer products, and the ANN's own."""
PREPARATION = 12
"""Times the largest layer's weights: what preparing its integer product takes on the way (measured)."""
BATCH = {"cpu": 64, "cuda": 256}
"""More images at a time are no faster: on a CPU their states leave the cache."""


def bytes_a_sample(network: SpikingNetwork) -> int:
    """An upper estimate for one sample: all states, what the image determines, and the largest values of a step at once."""
    graph = network.graph
    size = {node.name: math.prod(node.shape) for node in graph.nodes}
    states = sum(size[node.name] * (2 if node.settings["signed"] else 1) for node in graph.of_kind("neurons"))
    pools = sum(size[node.inputs[0]] + size[node.name] for node in graph.of_kind("max_pool"))
    after = graph.after(("neurons",))
    drive = sum(size[node.name] for node in graph.nodes if node.name not in after)
    return BYTES * (states + pools + 2 * drive + 6 * max(size.values()))


def bytes_without_samples(network: SpikingNetwork) -> int:
    """An upper estimate of everything else: the process, the weights, and what is done to them before the first image."""
    weights = [value.numel() for value in network.buffers()]
    return FIXED + BYTES * (COPIES * sum(weights) + PREPARATION * max(weights, default=0))


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
