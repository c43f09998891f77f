"""Estimates of a simulation's memory, and the batch size that fits."""

import math

from dynconf_core.errors import InputError
from dynconf_core.graph.operations import COPIED_WIDE
from dynconf_core.simulation.network import SpikingNetwork
from dynconf_core.simulation.pace import STEPS, largest

BYTES = 4
"""Of a float32; sizes count a float64 as two."""
FIXED = 600 << 20
"""Bytes of the process itself: torch alone takes 220 MiB, a flow with Prefect, MLflow and Optuna 555 MiB (measured)."""
COPIES = 4
"""Copies of all weights: the buffers, their packed form (up to twice the size), and the ANN's own."""
LIVE = 6
"""Copies of the largest layer's values that a time step holds at once, at most."""
PREPARATION = 12
"""Temporary memory for preparing an integer product, as a multiple of the largest layer's weights (measured)."""
BATCH = {"cpu": 64, "cuda": 256}
"""Largest useful batch by device: more images at a time are no faster."""


def bytes_a_sample(network: SpikingNetwork, frames: int = 0) -> int:
    """Upper estimate for one sample: all states, the input current, the largest values of a time step, and the ``frames``, as
    they are and normalised."""
    graph = network.graph
    size = {node.name: math.prod(node.shape) * (2 if node.wide else 1) for node in graph.nodes}
    states = network.neurons.state_tensors * sum(size[node.name] for node in graph.of_kind("neurons"))
    pools = sum(size[node.inputs[0]] + size[node.name] for node in graph.of_kind("max_pool"))
    after = graph.after(("neurons",))
    input_current = sum(size[node.name] for node in graph.nodes if node.name not in after)
    return BYTES * (states + pools + 2 * (input_current + frames * size[graph.input.name]) + LIVE * max(size.values()))


def bytes_without_samples(network: SpikingNetwork) -> int:
    """Upper estimate of everything else: the process, the weights and their preparation, and the values of several time
    steps computed together."""
    weights = [value.nbytes // BYTES for value in network.buffers()]
    wide = any(node.wide for node in network.graph.nodes)
    values = LIVE * network.pace(BATCH.get(network.device.type, 64), STEPS).rows * largest(network.graph) * (2 if wide else 1)
    copied = 2 * COPIED_WIDE if wide else 0
    return FIXED + BYTES * (COPIES * sum(weights) + PREPARATION * max(weights, default=0) + values + copied)


def batch_size(network: SpikingNetwork, memory: int | None = None, frames: int = 0) -> int:
    """The number of images simulated at a time within ``memory`` bytes; None allows the largest useful batch. ``frames``: of
    each, where the input changes with the time step.

    Raises:
        InputError: if not even one image fits.
    """
    most = BATCH.get(network.device.type, 64)
    if memory is None:
        return most
    room = (memory - bytes_without_samples(network)) // bytes_a_sample(network, frames)
    if room < 1:
        needed = (bytes_without_samples(network) + bytes_a_sample(network, frames)) / (1 << 20)
        raise InputError(
            f"memory={memory / (1 << 20):.0f} MiB is too little for one image: this network needs {needed:.0f} MiB."
        )
    return int(min(most, room))
