"""How finely a grid represents weights, judged by the weights alone: the expected errors of a layer's sums."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from dynconf_core.graph.bounds import row_blocks
from dynconf_core.graph.graph import WEIGHTED, Graph, Node
from dynconf_core.graph.operations import area

DEAD = 1e-3
"""Output channels whose weights are smaller, relative to the layer's largest channel, do not count."""
COARSEST = 0.05
"""The largest expected rounding error of a layer's sums, relative to them, where weighted layers follow each other without an
activation, if the errors of their inputs are independent. The worst layer of a MobileNetV2-like network has 1 to 2 % in
float32, without its last layer of neurons 10 to 41 %."""
COARSEST_IN_MEAN = 0.25
"""The same, of any layer, for sums that are averaged or whose inputs are, without an activation between: a mean over many
independent positions varies less than they do, by the root of their number, while an error of a weight is the same at every
position. It is an upper limit, as positions of pictures are not independent: 19 % for the last layer of a ResNet-50 (7 x 7,
random weights) whose logits the layer changes by 7 % of their spread over pictures."""


def sizes(graph: Graph) -> dict[str, float]:
    """The norm of a typical output channel's weights, of every weighted layer: the median of the channels that are not dead."""
    return {node.name: _size(node.tensors["weight"]) for node in graph.of_kind(*WEIGHTED)}


def too_coarse(
    graph: Graph, places: Mapping[str, int], groups: Mapping[str, int], size: Mapping[str, float], follow: bool
) -> dict[str, tuple[float, float]]:
    """The expected errors of the weighted layers that binary places alone make too coarse, each with the limit it exceeds.

    An error is a share of the largest sums among the layers whose outputs are added together: a branch that contributes little
    needs no finer grid.

    Args:
        graph: the graph.
        places: binary places of every value.
        groups: group number of every value that is not a spike count.
        size: as ``sizes`` finds it.
        follow: whether weighted layers follow each other without an activation.
    """
    largest: dict[int, float] = {}
    for name, own in size.items():
        largest[groups[name]] = max(largest.get(groups[name], 0.0), own)
    positions = averaged(graph)
    found: dict[str, tuple[float, float]] = {}
    for node in graph.of_kind(*WEIGHTED):
        bits, whole = places[node.name] - places[node.inputs[0]], largest[groups[node.name]]
        error = math.sqrt(_fan_in(node) / 12) * 2.0**-bits / whole if whole else 0.0
        in_mean = error * math.sqrt(positions[node.name])
        if in_mean > COARSEST_IN_MEAN:
            found[node.name] = in_mean, COARSEST_IN_MEAN
        elif follow and error > COARSEST:
            found[node.name] = error, COARSEST
    return found


def averaged(graph: Graph) -> dict[str, int]:
    """Over how many positions each weighted layer's sums are averaged, before or after it, without neurons between."""
    before: dict[str, int] = {}
    for node in graph.nodes:
        own = area(node) if node.kind in ("average_pool", "sum_pool") else 1
        before[node.name] = 1 if node.kind == "neurons" else own * max((before[name] for name in node.inputs), default=1)
    after: dict[str, int] = {}
    for node in reversed(graph.nodes):
        after[node.name] = max(
            (
                after[reader.name] * (area(reader) if reader.kind in ("average_pool", "sum_pool") else 1)
                for reader in graph.readers[node.name]
                if reader.kind != "neurons"
            ),
            default=1,
        )
    return {node.name: before[node.name] * after[node.name] for node in graph.of_kind(*WEIGHTED)}


def _fan_in(node: Node) -> int:
    weight = node.tensors["weight"]
    return weight[0].numel() if weight.ndim > 1 else 1


def _size(weight: Tensor) -> float:
    flat = weight.reshape(len(weight), -1) if weight.ndim else weight.reshape(1, 1)
    norms = torch.cat([flat[rows].double().norm(dim=1) for rows in row_blocks(flat)])
    alive = norms[norms > DEAD * norms.max()]
    return float(alive.median()) if len(alive) else 0.0
