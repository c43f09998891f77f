"""Changing the unit of the currents that neurons receive, in the weights before them."""

from collections.abc import Container, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from dynconf_core.graph.graph import WEIGHTED, Graph, Node

ONE = torch.ones(())


def with_currents_times(graph: Graph, factors: Mapping[str, Tensor]) -> Graph:
    """The graph with the current into each layer of neurons multiplied by its factor, ``()`` or ``(C,)``.

    The factor goes into the weights and biases before the layer, through sums; where that cannot be (a current that several
    layers read, spikes without weights), a ``scale`` node holds it.
    """
    spikes, units = graph.spikes(), dict[str, Tensor]()
    for node in reversed(graph.nodes):
        wanted = [_wanted(reader, units, factors) for reader in graph.readers[node.name]]
        one = bool(wanted) and all(torch.equal(unit, wanted[0]) for unit in wanted) and node.name not in spikes
        one = one and node.kind in (*WEIGHTED, "add") and node.name != graph.output.name
        units[node.name] = wanted[0] if one else ONE
    nodes: list[Node] = []
    made: dict[tuple[str, str], str] = {}
    for node in graph.nodes:
        unit = factors[node.name] if node.kind == "neurons" else units[node.name]
        if node.kind in WEIGHTED and not torch.equal(unit, ONE):
            node = _times(node, unit)
        elif node.kind in ("neurons", "add"):
            node = replace(node, inputs=tuple(_scaled(name, node, unit, units, graph, nodes, made) for name in node.inputs))
        nodes.append(node)
    return Graph(tuple(nodes))


def _wanted(reader: Node, units: Mapping[str, Tensor], factors: Mapping[str, Tensor]) -> Tensor:
    if reader.kind == "neurons":
        return factors[reader.name]
    return units[reader.name] if reader.kind == "add" else ONE


def _scaled(
    name: str,
    reader: Node,
    unit: Tensor,
    units: Mapping[str, Tensor],
    graph: Graph,
    nodes: list[Node],
    made: dict[tuple[str, str], str],
) -> str:
    """The name of a node with the value of ``name`` in ``unit``: a new scale node if it has another."""
    if torch.equal(units[name], unit):
        return name
    if (reader.name, name) not in made:
        label = made[reader.name, name] = unused(f"{reader.name}<{name}<unit", graph.by_name)
        weight = unit / units[name]
        nodes.append(Node(label, "scale", (name,), graph.by_name[name].shape, {"identity": True}, {"weight": weight}))
    return made[reader.name, name]


def unused(name: str, *used: Container[str]) -> str:
    """``name``, with primes behind it if it is used."""
    while any(name in names for names in used):
        name += "'"
    return name


def _times(node: Node, unit: Tensor) -> Node:
    weight, bias = node.tensors["weight"], node.tensors.get("bias")
    factor = unit if node.kind == "scale" else unit.expand(len(weight)).view(-1, *[1] * (weight.ndim - 1))
    settings = {key: value for key, value in node.settings.items() if key != "bits"}  # no longer on the grid
    changed = node.with_tensors(weight=weight * factor, bias=None if bias is None else bias * unit)
    return replace(changed, settings=settings)
