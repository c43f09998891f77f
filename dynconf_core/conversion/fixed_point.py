"""Fixed-point weights, with which floating point computes the SNN exactly in any order of summation.

In units of the thresholds, every weight, bias and identity ratio is rounded to a multiple of 2^-k. All sums and partial sums
are then multiples of 2^-k, which float32 represents exactly below 2^(24 - k): the network yields the same bits for every batch
size, memory layout, thread count and device. For each group of values that are added together, k is as large as proven bounds
on their sums over T time steps allow. The image is rounded to 2^-IMAGE_BITS, and the current that depends on the image alone
to the binary places of the neurons that read it.

Where values that are no spikes meet weights again (after a linear bottleneck), the places of both layers add up, and float32
may leave too few; where sums are large and weights small (after a mean), rounding may change what the network tells apart. Such
a network has *wide* groups, which may use float64 up to 2^(53 - k): of their members, the values and membrane potentials that
exceed float32 by their own bounds get the setting ``wide``. Everything else stays float32. What is too coarse is judged by the
weights (see ``resolution``) and, with images, by what rounding changes on them (see ``rounding_errors``).
"""

from dataclasses import dataclass, replace

from torch import Tensor

from dynconf_core.conversion.places import (
    IMAGE_BITS,
    WIDE_MANTISSA,
    Limits,
    Places,
    Reach,
    following,
    is_image,
    once,
    places_within,
    wide_nodes,
)
from dynconf_core.conversion.rounding import Rounded, limited_by_places, rounded
from dynconf_core.conversion.rounding_errors import FEWEST, LARGEST, LARGEST_FOLLOWING, RoundingErrors, rounding_errors
from dynconf_core.errors import InputError
from dynconf_core.graph.bounds import binary_places
from dynconf_core.graph.graph import WEIGHTED, Graph, Node
from dynconf_core.neurons.model import NeuronModel
from dynconf_core.wording import counted

WEIGHT_BITS = 13
"""Default bits of a weight, sign included: a weight is a whole number of this size times a power of two per channel. It fits
into two bytes even when multiplied by pooled spikes; with 8 bits it fits into one, and integer products take half the time."""


ROUNDS = 3
"""How often layers that are too coarse on images are widened and measured again."""


@dataclass(frozen=True)
class FixedPoint:
    """A graph with rounded tensors, and what rounding changes on images; None if there were too few."""

    graph: Graph
    errors: RoundingErrors | None


def with_fixed_point_weights(
    graph: Graph,
    limits: Limits,
    weight_bits: int = WEIGHT_BITS,
    images: Tensor | None = None,
    widen: bool = True,
) -> FixedPoint:
    """Round the weights of an SNN so that it is computed exactly.

    Args:
        graph: the SNN's graph, in threshold units. Its weights are freed one by one if the caller keeps no reference.
        limits: neurons, images and time steps for which exactness is proven.
        weight_bits: bits of every weight, sign included.
        images: normalised images ``(N, ...)`` on which rounding is measured, if there are at least 8; None for none.
        widen: whether layers that rounding changes too much on these images get float64.

    Returns:
        the graph with rounded tensors, of which those called ``weight`` are float32, and the errors on the images.

    Raises:
        InputError: if not even float64 holds the sums of a layer, or the neurons are not exact with any weights.
    """
    check_neurons(limits.neurons)
    graph = with_rounding(graph)
    reach = Reach.of(graph, limits)
    sample = images if images is not None and len(images) >= FEWEST else None
    coarse: frozenset[str] = frozenset()
    for last in (*[False] * (ROUNDS - 1), True):
        places, found = _fitting(graph, limits, reach, weight_bits, coarse)
        errors = None if sample is None else rounding_errors(graph, places, weight_bits, limits.neurons, sample)
        more = _too_coarse(graph, places, errors, weight_bits) if errors is not None and widen else frozenset()
        if last or not more:
            break
        coarse |= more | {name for name, group in places.groups.items() if group in places.wide}
    wide = wide_nodes(graph, places.values, found)
    nodes = list(graph.nodes)
    values = places.values
    del graph, places
    for index, node in enumerate(nodes):
        nodes[index] = rounded(node, values, weight_bits, node.name in wide)
    return FixedPoint(Graph(tuple(nodes)), errors)


def _fitting(graph: Graph, limits: Limits, reach: Reach, weight_bits: int, coarse: frozenset[str]) -> tuple[Places, Reach]:
    """The binary places with which the rounded weights are exact, and how far the numbers reach then."""
    for spare in range(4):  # rounding up can cost a bit
        places = places_within(graph, reach, spare, coarse)
        tried = {node.name: replace(node, tensors=Rounded(node, places.values, weight_bits)) for node in graph.nodes}
        found = Reach.of(graph.map(tried), limits)
        if places.hold(found):
            return places, found
    raise InputError(
        "the weights cannot be rounded so that every sum is exact: convert with fixed_point=False (--no-fixed-point)."
    )


def _too_coarse(graph: Graph, places: Places, errors: RoundingErrors, weight_bits: int) -> frozenset[str]:
    """The layers that rounding changes too much, and that float64 would make finer."""
    sharing = following(graph)
    limits = {name: LARGEST_FOLLOWING if name in sharing else LARGEST for name in errors.layers}
    found = (graph.by_name[name] for name, error in errors.layers.items() if error > limits[name])
    return frozenset(
        node.name
        for node in found
        if places.groups[node.name] not in places.wide
        and not is_image(node, graph)
        and limited_by_places(node, places.values, weight_bits)
    )


def with_wide_sums(graph: Graph, limits: Limits) -> Graph:
    """The graph of rounded weights with the setting ``wide`` where its sums need float64, proven anew.

    Raises:
        InputError: if not even float64 holds them within ``limits``.
    """
    places, reach = binary_places(graph), Reach.of(graph, limits)
    for name, exponent in reach.with_potentials(graph).items():
        if places[name] + exponent > WIDE_MANTISSA:
            raise InputError(
                f"{name}: its sums may reach 2^{exponent}, and with {counted(places[name], 'binary place')} not even float64 "
                "holds them exactly: the limits of exactness are not those of these weights."
            )
    wide = wide_nodes(graph, places, reach)
    return graph.map({name: _as_wide(graph.by_name[name]) for name in wide})


def _as_wide(node: Node) -> Node:
    return replace(node, settings={**node.settings, "wide": True})


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
