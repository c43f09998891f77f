"""Channels that need one threshold because a rearrangement puts spikes of theirs into one channel.

A spike stands for its threshold, and weights are for a channel, so all values of a channel must have one threshold.
PixelShuffle behind neurons, for instance, puts values of r^2 channels into one.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from dynconf_core.conversion.units import is_one_unit, passed_on, units_read
from dynconf_core.graph.graph import Graph

NOTHING = 1.0
"""The number of the channels of zeros that padding adds, which have no threshold."""


def with_common_thresholds(graph: Graph, thresholds: Mapping[str, Tensor]) -> tuple[Graph, dict[str, Tensor]]:
    """The graph and the thresholds, with the largest threshold of each group for all channels of the group.

    Only thresholds found from data are changed; these layers are marked ``tied``, for the correction to leave them as they are.

    Args:
        graph: the ANN's graph.
        thresholds: theta of every activation, ``()`` or ``(C,)``.
    """
    if not graph.of_kind("rearrange"):
        return graph, dict(thresholds)
    numbers, joins = _numbered(graph)
    found = {name: theta.expand(len(numbers[name])).clone() for name, theta in thresholds.items()}
    free = {node.name for node in graph.of_kind("activation") if node.settings["function"] == "relu"}
    changed = set[str]()
    for group in _groups(joins):
        members = {name: torch.isin(own, torch.tensor(sorted(group), dtype=torch.float64)) for name, own in numbers.items()}
        inside = {name: chosen for name, chosen in members.items() if bool(chosen.any())}
        if not inside.keys() <= free:
            continue
        common = torch.stack([found[name][chosen].max() for name, chosen in inside.items()]).max()
        for name, chosen in inside.items():
            found[name][chosen] = common
            changed.add(name)
    marked = {name: graph.by_name[name] for name in changed}
    graph = graph.map({name: replace(node, settings={**node.settings, "tied": True}) for name, node in marked.items()})
    return graph, {name: found[name] if name in changed else theta for name, theta in thresholds.items()}


def _numbered(graph: Graph) -> tuple[dict[str, Tensor], list[list[float]]]:
    """A number for each channel of each activation, ``(C,)``, and lists of the numbers that meet in one channel."""
    own: dict[str, Tensor] = {}
    carried: dict[str, Tensor] = {}
    joins: list[list[float]] = []
    first = NOTHING + 1
    spikes = graph.spikes()
    for node in graph.nodes:
        if node.kind == "activation":
            own[node.name] = carried[node.name] = first + torch.arange(node.channels, dtype=torch.float64)
            first += node.channels
        elif node.name in spikes:
            inputs = [carried[name] for name in node.inputs]
            if node.kind == "rearrange":
                read = units_read(node, inputs[0], graph)
                if not is_one_unit(read):
                    joins += [[one for one in row.unique().tolist() if one != NOTHING] for row in read]
            moving = replace(node, kind="sum_pool") if node.kind == "average_pool" else node
            carried[node.name] = passed_on(moving, inputs, graph)
    return own, joins


def _groups(joins: list[list[float]]) -> list[set[float]]:
    """The numbers that are in one list with each other, directly or through others."""
    groups: list[set[float]] = []
    for join in joins:
        touching = [group for group in groups if not group.isdisjoint(join)]
        groups = [group for group in groups if group.isdisjoint(join)]
        groups.append(set(join).union(*touching))
    return [group for group in groups if len(group) > 1]
