"""Proven bounds on the values of a spiking graph, for each channel of each node.

For a sum of w x with x in [low, high], low <= 0 <= high, every partial sum, in any order, lies between the sum of the negative
extremes and the sum of the positive ones.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from dynconf_core.graph.graph import Graph, Node
from dynconf_core.graph.operations import area, channels_read
from dynconf_core.neurons.model import NeuronModel

_AT_A_TIME = 2**18  # weights


@dataclass(frozen=True)
class Range:
    """``low <= 0 <= high``, float64, one number per channel ``(C,)``."""

    low: Tensor
    high: Tensor

    def largest(self) -> float:
        """The largest absolute value."""
        return float(torch.maximum(self.high, -self.low).max())


def in_one_step(graph: Graph, image: float, neurons: NeuronModel) -> dict[str, Range]:
    """Bounds on the values of one time step, for images within [-``image``, ``image``]."""
    return _bounded(graph, image, neurons.sends, 1.0)


def summed_over_time(graph: Graph, image: float, neurons: NeuronModel, time_steps: int) -> dict[str, Range]:
    """Bounds on the sums of values over any number of steps up to ``time_steps``; the image and the biases are applied in
    the first ``neurons.active_steps`` of them."""
    acting = min(neurons.active_steps or time_steps, time_steps)
    return _bounded(graph, image, neurons.sends_in_all(time_steps), float(acting))


def of_reference(graph: Graph, image: float, levels: int) -> dict[str, Range]:
    """Bounds on the values of the reference network, which counts up to ``levels`` in a single step."""
    return _bounded(graph, image, (0, levels), float(levels))


def binary_places(graph: Graph) -> dict[str, int]:
    """Binary places of every value, as the nodes' settings say."""
    found: dict[str, int] = {}
    for node in graph.nodes:
        before = max((found[name] for name in node.inputs), default=0)
        bits = int(node.settings.get("bits", 0))
        found[node.name] = 0 if node.kind == "neurons" else bits if node.kind == "round" else before + bits
    return found


def _bounded(graph: Graph, image: float, spikes: tuple[int, int], acting: float) -> dict[str, Range]:
    found: dict[str, Range] = {}
    for node in graph.nodes:
        if node.kind == "input":
            limit = torch.full((node.channels,), image * acting, dtype=torch.float64)
            found[node.name] = Range(-limit, limit)
        elif node.kind == "neurons":
            ones = torch.ones(node.channels, dtype=torch.float64)
            found[node.name] = Range(spikes[0] * ones, spikes[1] * ones)
        else:
            found[node.name] = _passed_on(node, [found[name] for name in node.inputs], acting, graph)
    return found


def _passed_on(node: Node, inputs: list[Range], acting: float, graph: Graph) -> Range:
    x = inputs[0]
    if node.kind in ("convolution", "linear", "scale"):
        return _weighted(node, x, acting)
    if node.kind == "add":
        return Range(sum((one.low for one in inputs[1:]), start=x.low), sum((one.high for one in inputs[1:]), start=x.high))
    if node.kind == "concatenate":
        return Range(torch.cat([one.low for one in inputs]), torch.cat([one.high for one in inputs]))
    if node.kind == "sum_pool":
        return Range(x.low * area(node), x.high * area(node))
    if node.kind == "slice":
        chosen = slice(*node.settings["slices"][0])
        return Range(x.low[chosen], x.high[chosen])
    if node.kind == "pad":
        before, after = node.settings["pads"][0]
        zeros = x.low.new_zeros
        return Range(torch.cat([zeros(before), x.low, zeros(after)]), torch.cat([zeros(before), x.high, zeros(after)]))
    if node.kind == "flatten":
        times = node.channels // len(x.low)
        return Range(x.low.repeat_interleave(times), x.high.repeat_interleave(times))
    if node.kind == "rearrange":
        channels = channels_read(node, graph.by_name[node.inputs[0]])
        return Range(x.low[channels].amin(1), x.high[channels].amax(1))
    if node.kind == "round":  # to the nearest multiple of 2^-bits, in every step in which it is applied
        half = acting * 2.0 ** -(int(node.settings["bits"]) + 1)
        return Range(x.low - half, x.high + half)
    return x  # a maximum stays within the bounds of its input


def _weighted(node: Node, x: Range, acting: float) -> Range:
    weight = node.tensors["weight"]
    if node.kind == "scale":
        positive, negative = weight.double().clamp_min(0), weight.double().clamp_max(0)
        low, high = positive * x.low + negative * x.high, positive * x.high + negative * x.low
    else:
        blocks = [_rows_weighted(node, weight, rows, x) for rows in row_blocks(weight)]
        low, high = torch.cat([block.low for block in blocks]), torch.cat([block.high for block in blocks])
    bias = node.tensors.get("bias")
    if bias is not None:
        low, high = low + (bias * acting).clamp_max(0), high + (bias * acting).clamp_min(0)
    return Range(low, high)


def row_blocks(weight: Tensor) -> list[slice]:
    """Blocks of output channels: intermediate results for a large layer's weights take several times their memory."""
    size = max(1, _AT_A_TIME // weight[0].numel())
    return [slice(start, start + size) for start in range(0, len(weight), size)]


def _rows_weighted(node: Node, weight: Tensor, rows: slice, x: Range) -> Range:
    """The bounds for some of the output channels of a convolution or linear layer."""
    block = weight[rows].double()
    positive, negative = block.clamp_min(0), block.clamp_max(0)
    if node.kind == "linear":
        return Range(positive @ x.low + negative @ x.high, positive @ x.high + negative @ x.low)
    outputs, inputs, groups = len(weight), weight.shape[1], int(node.settings["groups"])
    low, high = (
        limit.view(groups, 1, inputs, 1, 1).expand(groups, outputs // groups, inputs, 1, 1).reshape(outputs, inputs, 1, 1)[rows]
        for limit in (x.low, x.high)
    )
    return Range((positive * low + negative * high).sum((1, 2, 3)), (positive * high + negative * low).sum((1, 2, 3)))
