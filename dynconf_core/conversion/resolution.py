"""How finely a grid represents weights: the rounding error of a layer's sums, relative to the sums that it contributes to."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from dynconf_core.graph.bounds import row_blocks
from dynconf_core.graph.graph import WEIGHTED, Graph, Node

DEAD = 1e-3
"""Output channels whose weights are smaller, relative to the layer's largest channel, do not count."""


def sizes(graph: Graph) -> dict[str, float]:
    """The norm of a typical output channel's weights, of every weighted layer: the median of the channels that are not dead."""
    return {node.name: _size(node.tensors["weight"]) for node in graph.of_kind(*WEIGHTED)}


def relative_errors(
    graph: Graph, places: Mapping[str, int], groups: Mapping[str, int], size: Mapping[str, float]
) -> dict[str, float]:
    """The expected error of every weighted layer's sums by rounding to binary places alone, as a share of the largest among
    the layers whose outputs are added together: a branch that contributes little needs no finer grid.

    Args:
        graph: the graph.
        places: binary places of every value.
        groups: group number of every value that is not a spike count.
        size: as ``sizes`` finds it.
    """
    largest: dict[int, float] = {}
    for name, own in size.items():
        largest[groups[name]] = max(largest.get(groups[name], 0.0), own)
    found: dict[str, float] = {}
    for node in graph.of_kind(*WEIGHTED):
        bits, whole = places[node.name] - places[node.inputs[0]], largest[groups[node.name]]
        found[node.name] = math.sqrt(_fan_in(node) / 12) * 2.0**-bits / whole if whole else 0.0
    return found


def _fan_in(node: Node) -> int:
    weight = node.tensors["weight"]
    return weight[0].numel() if weight.ndim > 1 else 1


def _size(weight: Tensor) -> float:
    flat = weight.reshape(len(weight), -1) if weight.ndim else weight.reshape(1, 1)
    norms = torch.cat([flat[rows].double().norm(dim=1) for rows in row_blocks(flat)])
    alive = norms[norms > DEAD * norms.max()]
    return float(alive.median()) if len(alive) else 0.0
