"""Fixed-point weights, with which floating point computes the SNN exactly in any order of summation.

In units of the thresholds, every weight, bias and identity ratio is rounded to a multiple of 2^-k. All sums and partial sums
are then multiples of 2^-k, which float32 represents exactly below 2^(24 - k): the network yields the same bits for every batch
size, memory layout, thread count and device. For each group of values that are added together, k is as large as proven bounds
on their sums over T time steps allow. The image is rounded to 2^-IMAGE_BITS, and the current that depends on the image alone
to the binary places of the neurons that read it.

Where values that are no spikes meet weights again (after a linear bottleneck), the places of both layers add up, and float32
may leave too few. Such a network has *wide* groups, which may use float64 up to 2^(53 - k): of their members, the values and
membrane potentials that exceed float32 by their own bounds get the setting ``wide``. Everything else stays float32.
"""

from dataclasses import replace

from dynconf_core.conversion.places import IMAGE_BITS, Limits, Reach, once, places_within, wide_nodes
from dynconf_core.conversion.rounding import Rounded, rounded
from dynconf_core.errors import InputError
from dynconf_core.graph.graph import WEIGHTED, Graph, Node
from dynconf_core.neurons.model import NeuronModel

WEIGHT_BITS = 13
"""Default bits of a weight, sign included: a weight is a whole number of this size times a power of two per channel. It fits
into two bytes even when multiplied by pooled spikes; with 8 bits it fits into one, and integer products take half the time."""


def with_fixed_point_weights(
    graph: Graph, neurons: NeuronModel, image: float, time_steps: int, weight_bits: int = WEIGHT_BITS
) -> Graph:
    """Round the weights of an SNN so that it is computed exactly.

    Args:
        graph: the SNN's graph, in threshold units. Its weights are freed one by one if the caller keeps no reference.
        neurons: the SNN's neuron model.
        image: the largest absolute value of a normalised image.
        time_steps: the most time steps for which exactness is proven.
        weight_bits: bits of every weight, sign included.

    Returns:
        the graph with rounded tensors; those called ``weight`` are float32.

    Raises:
        InputError: if not even float64 holds the sums of a layer, or the neurons are not exact with any weights.
    """
    check_neurons(neurons)
    graph = with_rounding(graph)
    limits = Limits(neurons, image, time_steps)
    reach = Reach.of(graph, limits)
    for spare in range(4):  # rounding up can cost a bit
        places = places_within(graph, reach, spare)
        tried = {node.name: replace(node, tensors=Rounded(node, places.values, weight_bits)) for node in graph.nodes}
        found = Reach.of(graph.map(tried), limits)
        del tried
        if places.hold(found):
            wide = wide_nodes(graph, places.values, found)
            nodes = list(graph.nodes)
            del graph
            for index, node in enumerate(nodes):
                nodes[index] = rounded(node, places.values, weight_bits, node.name in wide)
            return Graph(tuple(nodes))
    raise InputError(
        "the weights cannot be rounded so that every sum is exact: convert with fixed_point=False (--no-fixed-point)."
    )


def check_neurons(neurons: NeuronModel) -> None:
    """Raise ``InputError`` for neurons that are not exact with any weights."""
    if not neurons.exact:
        raise InputError(f"{neurons} neurons are not exact in fixed point: convert with fixed_point=False (--no-fixed-point).")


def with_rounding(graph: Graph) -> Graph:
    """The graph with ``round`` nodes after the image and every weighted node computed once; their bits are set later."""
    input_current = once(graph)
    nodes: list[Node] = []
    renamed: dict[str, str] = {}
    for node in graph.nodes:
        nodes.append(replace(node, inputs=tuple(renamed.get(name, name) for name in node.inputs)))
        if node.kind == "input" or (node.kind in WEIGHTED and node.name in input_current):
            rounding = Node(f"{node.name}.round", "round", (node.name,), node.shape, {"bits": IMAGE_BITS})
            nodes.append(rounding)
            renamed[node.name] = rounding.name
    return Graph(tuple(nodes))
