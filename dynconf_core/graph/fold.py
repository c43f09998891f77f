"""Rewrites that change no value: batch normalisation becomes part of the weights before it, activations go before max pools
and flattening."""

from dataclasses import replace

from dynconf_core.graph.graph import Graph, Node


def folded(graph: Graph) -> Graph:
    """The graph with every factor and offset taken into the weights before it, where nothing else reads those."""
    for name in [node.name for node in graph.of_kind("scale")]:
        scale = graph.by_name[name]
        before = graph.by_name[scale.inputs[0]]
        if before.kind in ("convolution", "linear", "scale") and len(graph.readers[before.name]) == 1:
            graph = graph.map({before.name: _scaled(before, scale)}).without(scale.name)
    return graph


def _scaled(before: Node, scale: Node) -> Node:
    factor = scale.tensors["weight"]
    weight, bias = before.tensors["weight"], before.tensors.get("bias")
    scaled = weight * (factor.view(-1, *[1] * (weight.ndim - 1)) if factor.ndim and weight.ndim else factor)
    offset = scale.tensors.get("bias")
    if bias is not None:
        offset = bias * factor if offset is None else bias * factor + offset
    return before.with_tensors(weight=scaled, bias=offset)


def activations_first(graph: Graph) -> Graph:
    """An activation that follows a max pool or a flattening is taken before it.

    It never falls, so the maximum is the same, and the pool then has spikes to choose from; and channels are still channels.
    """
    for name in [node.name for node in reversed(graph.of_kind("max_pool", "flatten"))]:
        readers = graph.readers[name]
        if len(readers) == 1 and readers[0].kind == "activation":
            graph = _swapped(graph, graph.by_name[name], readers[0])
    return graph


def _swapped(graph: Graph, before: Node, activation: Node) -> Graph:
    source = graph.by_name[before.inputs[0]]
    first = replace(activation, inputs=before.inputs, shape=source.shape)
    second = replace(before, inputs=(activation.name,))
    nodes: list[Node] = []
    for node in graph.nodes:
        if node.name == before.name:
            nodes += [first, second]
        elif node.name != activation.name:
            renamed = tuple(before.name if name == activation.name else name for name in node.inputs)
            nodes.append(replace(node, inputs=renamed))
    return Graph(tuple(nodes))
