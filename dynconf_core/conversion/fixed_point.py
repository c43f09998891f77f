"""Fixed-point weights, with which float32 computes the SNN exactly in any order of summation.

In units of the thresholds, every weight, bias and identity ratio is rounded to a multiple of 2^-k. All sums and partial sums
are then multiples of 2^-k, which float32 represents exactly below 2^(24 - k): the network yields the same bits for every batch
size, memory layout, thread count and device. For each group of layers that add to the same neurons, k is as large as proven
bounds on their sums over T time steps allow. The image is rounded to 2^-IMAGE_BITS, and the current that depends on the image
alone to the binary places of the neurons that read it.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dynconf_core.errors import InputError
from dynconf_core.graph.bounds import in_one_step, of_reference, row_blocks, summed_over_time
from dynconf_core.graph.graph import WEIGHTED, Graph, Node
from dynconf_core.neurons.model import NeuronModel

MANTISSA = 24
"""Significand bits of float32: whole numbers up to 2^24 are exact."""
WEIGHT_BITS = 13
"""Default bits of a weight, sign included: a weight is a whole number of this size times a power of two per channel. It fits
into two bytes even when multiplied by pooled spikes; with 8 bits it fits into one, and integer products take half the time."""
FEWEST_BITS = 6
"""The fewest binary places accepted. Rounding changes the logits: with 5 places those of a DenseNet-121 (random weights) by 16
%, with 9 those of a ResNet-18 by 3 %."""
IMAGE_BITS = 8
"""Binary places of the normalised image, whose pixel values are about 2^-6 apart. Places given to the image are not available
to the first layer's weights: with 8 the logits of ResNet-20 (CIFAR-10) change by 0.3 %, those of a ResNet-18 with random
weights by 3 %; with 10, by 0.4 and 6 %."""


def with_fixed_point_weights(
    graph: Graph, neurons: NeuronModel, image: float, time_steps: int, weight_bits: int = WEIGHT_BITS
) -> Graph:
    """Round the weights of an SNN so that float32 computes it exactly.

    Args:
        graph: the SNN's graph, in threshold units. Its weights are freed one by one if the caller keeps no reference.
        neurons: the SNN's neuron model.
        image: the largest absolute value of a normalised image.
        time_steps: the most time steps for which exactness is proven.
        weight_bits: bits of every weight, sign included.

    Returns:
        the graph with rounded tensors; those called ``weight`` are float32.

    Raises:
        InputError: if the sums of a layer cannot be represented exactly, or the neurons are not exact with any weights.
    """
    if not neurons.exact:
        raise InputError(f"{neurons} neurons are not exact in fixed point: convert with fixed_point=False (--no-fixed-point).")
    graph = _with_rounding(graph, _once(graph))
    limits = Limits(neurons, image, time_steps)
    for mantissa in range(MANTISSA, MANTISSA - 4, -1):  # rounding up can cost a bit
        places = _places(graph, limits, mantissa)
        tried = {node.name: replace(node, tensors=_Snapped(node, places, weight_bits)) for node in graph.nodes}
        left = places_left(graph.map(tried), limits, MANTISSA)
        del tried
        if all(bits <= left[name] for name, bits in places.items()):
            nodes = list(graph.nodes)
            del graph
            for index, node in enumerate(nodes):
                nodes[index] = _snapped(node, places, weight_bits)
            return Graph(tuple(nodes))
    raise InputError(
        "the weights cannot be rounded so that float32 holds every sum exactly: convert with fixed_point=False "
        "(--no-fixed-point)."
    )


@dataclass(frozen=True)
class Limits:
    """The range for which exactness is proven; see ``with_fixed_point_weights``."""

    neurons: NeuronModel
    image: float
    time_steps: int


def places_left(graph: Graph, limits: Limits, mantissa: int) -> dict[str, int]:
    """The binary places available to each value.

    They follow from its bound in one time step, its bound over time where neurons accumulate it, and its bound in the reference
    network, which computes all n levels at once.
    """
    levels = {int(node.settings["levels"]) for node in graph.of_kind("neurons") if node.settings["levels"]}
    most = max(levels, default=1)
    steps = max(limits.time_steps, most)
    step = in_one_step(graph, limits.image, limits.neurons)
    total = summed_over_time(graph, limits.image, limits.neurons, steps)
    counted = of_reference(graph, limits.image, most)
    once = _once(graph)
    largest = {name: max(bounds[name].largest() for bounds in ((step,) if name in once else (step, counted))) for name in step}
    left = {name: _bits_for(value, name, mantissa) for name, value in largest.items()}
    for node in graph.of_kind("neurons"):
        potential = float(node.tensors["initial"].abs().max()) + 2 + total[node.inputs[0]].largest()
        potential += limits.neurons.excess(steps)
        left[node.inputs[0]] = min(left[node.inputs[0]], _bits_for(potential, node.name, mantissa))
    return left


def _once(graph: Graph) -> frozenset[str]:
    """Names of the nodes that depend on the image alone."""
    return frozenset(node.name for node in graph.nodes) - graph.after(("neurons",))


def _with_rounding(graph: Graph, input_current: frozenset[str]) -> Graph:
    """The graph with ``round`` nodes after the image and every weighted node computed once; their bits are set later."""
    nodes: list[Node] = []
    renamed: dict[str, str] = {}
    for node in graph.nodes:
        nodes.append(replace(node, inputs=tuple(renamed.get(name, name) for name in node.inputs)))
        if node.kind == "input" or (node.kind in WEIGHTED and node.name in input_current):
            rounding = Node(f"{node.name}.round", "round", (node.name,), node.shape, {"bits": IMAGE_BITS})
            nodes.append(rounding)
            renamed[node.name] = rounding.name
    return Graph(tuple(nodes))


def _groups(graph: Graph) -> dict[str, int]:
    """The group number of every value that is not a spike count; values that are added together share a group."""
    group: dict[str, int] = {}
    parent: list[int] = []

    def root(number: int) -> int:
        while parent[number] != number:
            number = parent[number]
        return number

    for node in graph.nodes:
        joined = [] if node.kind in (*WEIGHTED, "round", "input") else [group[name] for name in node.inputs if name in group]
        if node.kind == "neurons":
            continue
        if joined or node.kind in (*WEIGHTED, "round", "input"):
            if not joined:
                parent.append(len(parent))
                joined = [len(parent) - 1]
            first = root(joined[0])
            for other in joined[1:]:
                parent[root(other)] = first
            group[node.name] = first
    return {name: root(number) for name, number in group.items()}


def _places(graph: Graph, limits: Limits, mantissa: int) -> dict[str, int]:
    """Binary places of every value: 0 for spike counts, what the group allows for the others.

    A group whose values are multiplied by further weights leaves half of the places to those weights.
    """
    groups, input_current = _groups(graph), _once(graph)
    left = places_left(graph, limits, mantissa)
    most: dict[int, int] = {}
    for node in graph.nodes:
        # A product that is rounded immediately has its own limit; the rounded value belongs to the group.
        if not (node.kind in WEIGHTED and node.name in input_current):
            _limit(most, groups, node.name, min(left[node.name], IMAGE_BITS if _is_image(node, graph) else MANTISSA))
    for node in reversed(graph.nodes):
        if node.kind in WEIGHTED and node.inputs[0] in groups:
            own = left[node.name] if node.name in input_current else most[groups[node.name]]
            _limit(most, groups, node.inputs[0], own // 2)
    places: dict[str, int] = {}
    for node in graph.nodes:
        if node.name not in groups or node.kind == "input":
            places[node.name] = 0
            continue
        places[node.name] = left[node.name] if node.kind in WEIGHTED and node.name in input_current else most[groups[node.name]]
        if node.kind in WEIGHTED and places[node.name] - places[node.inputs[0]] < FEWEST_BITS:
            raise InputError(
                f"{node.name}: float32 cannot hold its sums exactly (they may reach 2^{MANTISSA - left[node.name]} thresholds, "
                f"which leaves {places[node.name] - places[node.inputs[0]]} binary places for its weights): "
                "convert with fixed_point=False (--no-fixed-point), or for fewer time steps."
            )
    return places


def _is_image(node: Node, graph: Graph) -> bool:
    return node.kind == "round" and graph.by_name[node.inputs[0]].kind == "input"


def _limit(most: dict[int, int], groups: Mapping[str, int], name: str, bits: int) -> None:
    if name in groups:
        group = groups[name]
        most[group] = min(most.get(group, MANTISSA), bits)


def _bits_for(largest: float, name: str, mantissa: int) -> int:
    """The largest number k of binary places for which ``largest`` is at most 2^(mantissa - k)."""
    if not math.isfinite(largest):
        raise InputError(f"{name}: its weights are not finite, or its sums overflow: check the training.")
    return mantissa - max(0, math.ceil(math.log2(max(largest, 2**-10))))


class _Snapped(Mapping[str, Tensor]):
    """A node's rounded tensors, computed on access, so that a trial needs no second copy of all weights."""

    def __init__(self, node: Node, places: Mapping[str, int], weight_bits: int) -> None:
        self.node, self.places, self.weight_bits = node, places, weight_bits

    def __getitem__(self, key: str) -> Tensor:
        node, places = self.node, self.places
        value = node.tensors[key]
        if node.kind == "neurons":
            return _rounded(value, max(1, places[node.inputs[0]])) if key == "initial" else value
        if node.kind not in WEIGHTED:
            return value
        if key == "bias":
            return _rounded(value, places[node.name])
        return _rounded_weight(value, places[node.name] - places[node.inputs[0]], self.weight_bits)

    def __iter__(self) -> Iterator[str]:
        return iter(self.node.tensors)

    def __len__(self) -> int:
        return len(self.node.tensors)


def _snapped(node: Node, places: Mapping[str, int], weight_bits: int) -> Node:
    """The node with rounded tensors, and the number of binary places in its settings."""
    settings = dict(node.settings)
    if node.kind == "round":
        settings = {"bits": places[node.name]}
    elif node.kind in WEIGHTED:
        settings["bits"] = places[node.name] - places[node.inputs[0]]
    return replace(node, settings=settings, tensors=dict(_Snapped(node, places, weight_bits)))


def _rounded_weight(weight: Tensor, most_places: int, weight_bits: int) -> Tensor:
    """The weight rounded to ``weight_bits`` per output channel, but to at most ``most_places`` binary places; float32."""
    flat = weight.reshape(len(weight), -1) if weight.ndim else weight.reshape(1, 1)
    least, most = flat.aminmax(dim=1)
    largest = torch.maximum(-least, most).clamp_min(2.0**-60)
    # The largest whole number: 127 for 8 bits, 16 256 = 127 x 128 for 15, which fits two bytes for spikes of either sign.
    whole = 2.0 ** (weight_bits - 1) - max(1.0, 2.0 ** (weight_bits - 8))
    bits = torch.floor(torch.log2(whole / largest)).clamp_max(most_places)
    snapped = torch.empty_like(flat, dtype=torch.float32)
    for rows in row_blocks(flat):
        snapped[rows] = _rounded(flat[rows], bits[rows, None]).float()
    return snapped.reshape(weight.shape)


def _rounded(values: Tensor, bits: Tensor | int) -> Tensor:
    scale = torch.as_tensor(2.0, dtype=torch.float64) ** bits
    return torch.round(values.double() * scale) / scale
