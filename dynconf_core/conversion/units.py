"""Rewriting the ANN's graph as the SNN's, in units of the thresholds: every neuron fires at 1 and emits 1.

    w' = w theta_in / theta_out,   b' = b / theta_out

An average pool becomes a sum of spikes, and its factor 1 / area moves into the next weights. Where spikes are added without
weights (an identity shortcut), a ``scale`` node holds the ratio theta_in / theta_out. The logits keep their own units.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from dynconf_core.errors import InputError
from dynconf_core.graph.graph import WEIGHTED, Graph, Node, Settings
from dynconf_core.graph.operations import area, channels_read

ONE = torch.ones((), dtype=torch.float64)


def in_threshold_units(
    graph: Graph,
    thresholds: Mapping[str, Tensor],
    layers: Mapping[str, Settings],
    initial: Mapping[str, Tensor],
) -> Graph:
    """The SNN's graph, with weights in float64 that are not yet rounded.

    Args:
        graph: the ANN's graph, folded, in float64; its weights are scaled in place.
        thresholds: theta of every activation, ``()`` or ``(C,)``.
        layers: settings of the layer of neurons that replaces each activation.
        initial: V(0) of every layer, in units of the threshold.

    Raises:
        InputError: for a max pool behind a rearrangement that puts spikes of different thresholds into one channel.
    """
    units, counts = _units(graph, thresholds)
    return _rewritten(graph, thresholds, layers, initial, units, counts)


def _units(graph: Graph, thresholds: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], frozenset[str]]:
    """The unit of every node's value, for all channels or per channel, and the names of those that are whole spikes.

    Units of spikes are found first, in forward order; then those of all other values, in reverse order, since a current has the
    unit of the neurons that receive it. Where a rearrangement puts spikes of different units into one channel, they are scaled
    to a common one, and are no whole numbers from there on.
    """
    units: dict[str, Tensor] = {}
    spikes = graph.spikes()
    for node in graph.nodes:
        if node.kind == "activation":
            units[node.name] = thresholds[node.name]
        elif node.name in spikes and all(name in units for name in node.inputs):
            found = [units[name] for name in node.inputs]
            if node.kind != "rearrange" or is_one_unit(units_read(node, found[0], graph)):
                units[node.name] = passed_on(node, found, graph)
        elif node.name in spikes and node.kind == "max_pool":
            raise InputError(
                f"the max pool at {node.name!r} follows a rearrangement of channels with different thresholds: give each layer "
                "one threshold, per_channel=False."
            )
    counts = frozenset(units)
    for node in reversed(graph.nodes):
        if node.name in counts:
            continue
        if node.kind == "input":
            units[node.name] = ONE
            continue
        readers = sorted(graph.readers[node.name], key=lambda reader: reader.kind == "slice")
        wanted = [_wanted_by(reader, node, units, thresholds, counts, graph) for reader in readers]
        known = [unit for unit in wanted if unit is not None]
        if node.name == graph.output.name:
            known = [ONE]
        elif readers[0].kind == "slice":  # every slice has its own channels
            known = [_replaced(known[0], readers[1:], units, node.channels)]
        added = [units[name] for name in node.inputs if name in counts and node.kind == "add"]
        unit = [*known, *added, ONE][0]
        # A flattened or rearranged channel has a single unit, whatever its readers require.
        own = node.kind in ("flatten", "rearrange")
        units[node.name] = passed_on(node, [_before(node, unit, graph)], graph) if own else unit
    return units, counts


def _replaced(unit: Tensor, slices: list[Node], units: Mapping[str, Tensor], channels: int) -> Tensor:
    """``unit``, with the channels of each slice set to that slice's own unit."""
    whole = _full(unit, channels).clone() if slices else unit
    for node in slices:
        whole[slice(*node.settings["slices"][0])] = units[node.name]
    return whole


def passed_on(node: Node, units: list[Tensor], graph: Graph) -> Tensor:
    """The unit of a node that passes spikes on, from the units of its inputs."""
    unit = units[0]
    if node.kind in ("average_pool", "sum_pool"):
        return unit / area(node) if node.kind == "average_pool" else unit
    if node.kind == "concatenate":
        if all(torch.equal(one, unit) and one.ndim == 0 for one in units):
            return unit
        parts = [_full(one, graph.by_name[name].channels) for one, name in zip(units, node.inputs, strict=True)]
        return torch.cat(parts)
    if unit.ndim == 0:
        return unit
    if node.kind == "slice":
        return unit[slice(*node.settings["slices"][0])]
    if node.kind == "pad":
        before, after = node.settings["pads"][0]
        return torch.cat([unit.new_ones(before), unit, unit.new_ones(after)])
    if node.kind == "flatten":
        return unit.repeat_interleave(node.channels // len(unit))
    if node.kind == "rearrange":
        return units_read(node, unit, graph)[:, 0]
    return unit


def units_read(node: Node, unit: Tensor, graph: Graph) -> Tensor:
    """The units of the values that each channel of a rearrangement holds, ``(C, values of a channel)``."""
    source = graph.by_name[node.inputs[0]]
    return _full(unit, source.channels)[channels_read(node, source)]


def is_one_unit(units: Tensor) -> bool:
    """Whether all values of each channel have the same unit."""
    return bool((units == units[:, :1]).all())


def _common_unit(node: Node, unit: Tensor, source: Node) -> Tensor:
    """Of each channel of a rearrangement's input, such that all values of each channel of its output have the same: the mean
    of ``unit`` over the channels of the output that have values in common, directly or through others."""
    read = channels_read(node, source)
    label, before = torch.arange(source.channels), torch.empty(0)
    while not torch.equal(label, before):
        before = label
        least = label[read].amin(1, keepdim=True).expand_as(read)
        label = label.scatter_reduce(0, read.flatten(), least.flatten(), "amin")
    of_output = label[read[:, 0]]
    sums, counts = unit.new_zeros(2, source.channels)
    sums.index_add_(0, of_output, unit)
    counts.index_add_(0, of_output, torch.ones_like(unit))
    return torch.where(counts > 0, sums / counts.clamp_min(1), unit.mean())[label]


def _wanted_by(
    reader: Node,
    node: Node,
    units: Mapping[str, Tensor],
    thresholds: Mapping[str, Tensor],
    counts: frozenset[str],
    graph: Graph,
) -> Tensor | None:
    """The unit in which a reader needs the node's value; None if any will do."""
    if reader.kind == "activation":
        return thresholds[reader.name]
    if reader.kind in ("convolution", "linear", "scale", "max_pool"):
        return None
    unit = units[reader.name]
    if reader.kind == "average_pool":
        return unit * area(reader)
    if unit.ndim == 0 or reader.kind in ("add", "sum_pool"):
        return unit
    if reader.kind == "concatenate":
        start = 0
        for name in reader.inputs:
            if name == node.name:
                break
            start += graph.by_name[name].channels
        return unit[start : start + node.channels]
    if reader.kind == "slice":
        whole = unit.mean().expand(node.channels).clone()
        whole[slice(*reader.settings["slices"][0])] = unit
        return whole
    if reader.kind == "pad":
        before = reader.settings["pads"][0][0]
        return unit[before : before + node.channels]
    if reader.kind == "flatten":
        return unit.view(node.channels, -1).mean(1)
    if reader.kind == "rearrange":
        return _common_unit(reader, unit, node)
    return unit


def _rewritten(
    graph: Graph,
    thresholds: Mapping[str, Tensor],
    layers: Mapping[str, Settings],
    initial: Mapping[str, Tensor],
    units: Mapping[str, Tensor],
    counts: frozenset[str],
) -> Graph:
    nodes: list[Node] = []
    ratios: dict[str, Tensor] = {}

    def converted(name: str, reader: Node, unit: Tensor) -> str:
        """The name of a node with the value of ``name`` in ``unit``: a new scale node if the units differ."""
        source = graph.by_name[name]
        ratio = _full(units[name], source.channels) / _full(unit, source.channels)
        if bool((ratio == 1).all()):
            return name
        ratio = ratio[0] if bool((ratio == ratio[0]).all()) else ratio
        label, number = f"{reader.name}<{name}", 1
        while label in ratios and not torch.equal(ratios[label], ratio):  # read twice, in different units
            number += 1
            label = f"{reader.name}<{name}#{number}"
        if label not in ratios:
            nodes.append(Node(label, "scale", (name,), source.shape, {"identity": True}, {"weight": ratio}))
            ratios[label] = ratio
        return label

    owners = Counter(_memory(node) for node in graph.of_kind(*WEIGHTED))
    for node in graph.nodes:
        unit = units[node.name]
        if node.kind in WEIGHTED:
            # A module called twice gives two nodes that share one weight; an expanded weight repeats the same memory.
            own = owners[_memory(node)] == 1 and node.tensors["weight"].is_contiguous()
            nodes.append(_weighted(node, units[node.inputs[0]], unit, own))
        elif node.kind == "activation":
            theta = thresholds[node.name]
            source = converted(node.inputs[0], node, theta)
            tensors = {"threshold": theta, "initial": initial[node.name]}
            nodes.append(Node(node.name, "neurons", (source,), node.shape, dict(layers[node.name]), tensors))
        elif node.kind == "average_pool":
            whole = node.inputs[0] if node.name in counts else converted(node.inputs[0], node, unit * area(node))
            nodes.append(replace(node, kind="sum_pool", inputs=(whole,)))
        elif node.name in counts:
            nodes.append(node)
        elif node.kind in ("add", "concatenate"):
            parts, start = [], 0
            for name in node.inputs:
                channels = graph.by_name[name].channels
                wanted = unit if unit.ndim == 0 or node.kind == "add" else unit[start : start + channels]
                parts.append(converted(name, node, wanted))
                start += channels
            nodes.append(replace(node, inputs=tuple(parts)))
        elif node.kind == "slice":
            source = node.inputs[0]
            wanted = _replaced(units[source], [node], units, graph.by_name[source].channels)
            nodes.append(replace(node, inputs=(converted(source, node, wanted),)))
        elif node.kind in ("pad", "flatten", "rearrange"):
            nodes.append(replace(node, inputs=(converted(node.inputs[0], node, _before(node, unit, graph)),)))
        else:
            nodes.append(node)
    output = graph.output
    if not bool((units[output.name] == 1).all()):  # the output consists of spikes
        nodes.append(
            Node(
                f"{output.name}<logits",
                "scale",
                (output.name,),
                output.shape,
                {"identity": True},
                {"weight": units[output.name]},
            )
        )
    return Graph(tuple(nodes))


def _before(node: Node, unit: Tensor, graph: Graph) -> Tensor:
    """The unit that the input of a pad, flatten or rearrange needs for its output to have ``unit``."""
    source = graph.by_name[node.inputs[0]]
    found = _wanted_by(node, source, {node.name: unit}, {}, frozenset(), graph)
    assert found is not None
    return found


def _memory(node: Node) -> int:
    return node.tensors["weight"].untyped_storage().data_ptr()


def _weighted(node: Node, unit_in: Tensor, unit_out: Tensor, own: bool) -> Node:
    weight, bias = node.tensors["weight"], node.tensors.get("bias")
    if node.kind == "scale":
        return node.with_tensors(weight=weight * unit_in / unit_out, bias=None if bias is None else bias / unit_out)
    weight = weight if own else weight.clone(memory_format=torch.contiguous_format)
    if node.kind == "convolution":
        outputs, inputs, groups = len(weight), weight.shape[1], int(node.settings["groups"])
        by_input = _full(unit_in, inputs * groups).view(groups, 1, inputs).expand(groups, outputs // groups, inputs)
        weight.mul_(by_input.reshape(outputs, inputs, 1, 1)).div_(_full(unit_out, outputs).view(-1, 1, 1, 1))
    else:
        weight.mul_(_full(unit_in, weight.shape[1])).div_(_full(unit_out, len(weight))[:, None])
    return node.with_tensors(weight=weight, bias=None if bias is None else bias / unit_out)


def _full(unit: Tensor, channels: int) -> Tensor:
    """The unit as one number per channel."""
    return unit.expand(channels) if unit.ndim == 0 else unit
