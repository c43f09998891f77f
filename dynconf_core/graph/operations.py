"""The stateless operations of a graph, and running the graph of an ANN."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from dynconf_core.graph.graph import POOLS, Graph, Node

Look = Callable[[Node, Tensor], Tensor | None]
"""Called with each node and its value, batch first; a returned tensor replaces the value, None keeps it."""
COPIED = 1 << 28
"""Maximum number of values unfolded at once: 1 GiB as float32."""
COPIED_WIDE = 1 << 23
"""The same for a convolution of float64 values on a CPU, for which PyTorch unfolds the images: 64 MiB."""


def evaluate(node: Node, inputs: Sequence[Tensor], tensors: Mapping[str, Tensor], biased: bool = True) -> Tensor:
    """The node's value ``(N, *node.shape)``, computed from the values of its inputs.

    Args:
        node: of any kind except input and neurons.
        inputs: values, batch first.
        tensors: those of the node, on the device of the inputs; products and sums are computed in the precision of its weight.
        biased: whether the bias is added.
    """
    settings = node.settings
    if node.wide:
        inputs = [value.double() for value in inputs]
    x = inputs[0]
    if x.ndim == 3 and node.kind in ("convolution", *POOLS):
        return evaluate(as_image(node), [x.unsqueeze(2)], tensors, biased).squeeze(2)
    bias = tensors.get("bias") if biased else None
    if node.kind == "convolution":
        if x.is_cuda and not torch.backends.cudnn.enabled:  # PyTorch's own convolution would process the samples one by one
            return unfolded(node, x, tensors, biased)
        geometry = [settings[name] for name in ("stride", "padding", "dilation", "groups")]
        if node.wide:
            return _wide_convolution(node, x, tensors["weight"], bias)
        return functional.conv2d(x, tensors["weight"], bias, *geometry)
    if node.kind == "linear":
        return functional.linear(x, tensors["weight"], bias)
    if node.kind == "scale":
        scaled = x * per_channel(tensors["weight"], x)
        return scaled if bias is None else scaled + per_channel(bias, x)
    if node.kind in ("average_pool", "sum_pool"):
        divisor = 1 if node.kind == "sum_pool" else area(node)
        kernel, stride, padding = (settings[name] for name in ("kernel", "stride", "padding"))
        return functional.avg_pool2d(x, kernel, stride, padding, divisor_override=divisor)
    if node.kind == "max_pool":
        return max_pool(node, x)
    if node.kind == "add":
        return sum(inputs[1:], start=x)
    if node.kind == "concatenate":
        return torch.cat(list(inputs), dim=1)
    if node.kind == "slice":
        return x[(slice(None), *(slice(*bounds) for bounds in settings["slices"]))]
    if node.kind == "pad":
        return functional.pad(x, [amount for pair in reversed(settings["pads"]) for amount in pair])
    if node.kind == "flatten":
        return x.flatten(1)
    if node.kind == "rearrange":
        return rearranged(x, tensors["index"], of_channels=settings["of"] == "channels")
    if node.kind == "round":
        scale = 2.0 ** int(settings["bits"])
        return torch.round(x * scale) / scale
    if node.kind == "activation":
        return activate(node, x, tensors)
    raise AssertionError(f"{node.kind} has no value of its own")


def as_image(node: Node) -> Node:
    """The operation on a signal ``(C, L)`` as one on an image of height 1, ``(C, 1, L)``; others as they are."""
    return replace(node, shape=(node.shape[0], 1, node.shape[1])) if len(node.shape) == 2 else node


def activate(node: Node, x: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:
    """The activation f: max(x, 0); clipped at ``threshold``; or quantised to n = ``levels`` steps of ``threshold / n``, theta
    / n clip(floor(n x / theta + shift), 0, n) (QCFS with L = n, LSQ with n s = theta), where ``shift`` is 1/2 unless given.
    With a ``slope``, f(x) - slope f(-x), where the threshold of f(-x) may be another one, ``below``."""
    threshold = tensors.get("threshold")
    shift = tensors.get("shift")
    value = _one_side(node, x, threshold, shift)
    if "slope" in tensors:
        value = value - per_channel(tensors["slope"], x) * _one_side(node, -x, tensors.get("below", threshold), shift)
    return value


def _one_side(node: Node, x: Tensor, threshold: Tensor | None, shift: Tensor | None) -> Tensor:
    if node.settings["function"] == "relu" or threshold is None:
        return x.clamp_min(0)
    top = per_channel(threshold, x)
    if node.settings["function"] == "clip":
        return torch.minimum(x.clamp_min(0), top)
    levels = int(node.settings["levels"])
    at = 0.5 if shift is None else per_channel(shift, x)
    return torch.floor(x / top * levels + at).clamp(0, levels) / levels * top


def unfolded(node: Node, x: Tensor, tensors: Mapping[str, Tensor], biased: bool = True) -> Tensor:
    """A convolution as one matrix product of unfolded images, channels last; same value as ``evaluate``.

    It computes plain sums of products, whereas the convolutions of GPU libraries may use other algorithms (Winograd, FFT) whose
    rounding differs. Every value is copied once for each kernel weight that it meets.

    Args:
        node: the convolution.
        x: values ``(N, C, H, W)``, on any device.
        tensors: those of the node, on the device and in the precision of ``x``.
        biased: whether the bias is added.

    Returns:
        ``(N, O, H', W')``.
    """
    weight, bias = tensors["weight"], tensors.get("bias") if biased else None
    rows, columns = node.settings["padding"]
    images = functional.pad(x.permute(0, 2, 3, 1), (0, 0, columns, columns, rows, rows)).contiguous()
    parts = [_product(node, part, weight) for part in images.split(max(1, COPIED // _copied(node, weight)))]
    value = torch.cat(parts) if len(parts) > 1 else parts[0]
    if bias is not None:
        value.add_(bias)
    return value.permute(0, 3, 1, 2)


def _wide_convolution(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A convolution in float64 on a CPU, for which there are no fast kernels: a kernel of one place is a linear layer."""
    geometry = [node.settings[name] for name in ("stride", "padding", "dilation", "groups")]
    if weight.shape[1:] == (x.shape[1], 1, 1) and [*map(tuple, geometry[:2])] == [(1, 1), (0, 0)]:
        return functional.linear(x.permute(0, 2, 3, 1), weight.flatten(1), bias).permute(0, 3, 1, 2)
    parts = [functional.conv2d(part, weight, bias, *geometry) for part in x.split(max(1, COPIED_WIDE // _copied(node, weight)))]
    return torch.cat(parts) if len(parts) > 1 else parts[0]


def _copied(node: Node, weight: Tensor) -> int:
    """The number of values of one sample's unfolded image."""
    return node.shape[1] * node.shape[2] * weight[0].numel() * int(node.settings["groups"])


def _product(node: Node, images: Tensor, weight: Tensor) -> Tensor:
    """``(N, H', W', O)`` of padded ``images (N, H, W, C)``."""
    (down, across), (apart_down, apart_across) = node.settings["stride"], node.settings["dilation"]
    groups, kernel = int(node.settings["groups"]), weight.shape[2:]
    sample, line, place, channel = images.stride()
    patches = images.as_strided(
        (len(images), *node.shape[1:], *kernel, images.shape[3]),
        (sample, line * down, place * across, line * apart_down, place * apart_across, channel),
    )
    found = []
    for group, weights in enumerate(weight.chunk(groups)):
        width = images.shape[3] // groups
        copied = patches[..., group * width : (group + 1) * width].reshape(-1, kernel.numel() * width)
        found.append(copied @ weights.permute(2, 3, 1, 0).reshape(-1, len(weights)))
    together = torch.cat(found, dim=1) if groups > 1 else found[0]
    return together.view(len(images), *node.shape[1:], -1)


def max_pool(node: Node, x: Tensor) -> Tensor:
    """The maximum over each window of images or signals (with ``least`` the minimum); positions outside are ignored."""
    if node.settings.get("least"):
        return -max_pool(replace(node, settings={**node.settings, "least": False}), -x)
    if x.ndim == 3:
        return max_pool(node, x.unsqueeze(2)).squeeze(2)
    window = [node.settings[name] for name in ("kernel", "stride", "padding", "dilation", "ceil_mode")]
    pooled: Tensor = functional.max_pool2d(x, *window)
    return pooled


def rearranged(x: Tensor, index: Tensor, of_channels: bool) -> Tensor:
    """The values of ``x (N, ...)`` at the positions of ``index``, or its channels; in the memory layout of ``x``."""
    last = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
    if of_channels:
        return x.movedim(1, -1).index_select(-1, index).movedim(-1, 1) if last else x.index_select(1, index)
    found = x.flatten(1).index_select(1, index.flatten()).view(len(x), *index.shape)
    return found.contiguous(memory_format=torch.channels_last) if last and found.ndim == 4 else found


def channels_read(node: Node, source: Node) -> Tensor:
    """The channels of its input that each channel of a ``rearrange`` node holds: int64 ``(C, values of a channel)``."""
    index = node.tensors["index"].long()
    if node.settings["of"] == "channels":
        return index[:, None]
    return (index // math.prod(source.shape[1:])).view(node.channels, -1)


def area(node: Node) -> int:
    """Number of positions in a pool's window."""
    height, width = node.settings["kernel"]
    return int(height * width)


def per_channel(values: Tensor, x: Tensor) -> Tensor:
    """``values``, one number or one per channel, shaped to broadcast with ``x (N, C, ...)``."""
    return values if values.ndim == 0 else values.view(1, -1, *([1] * (x.ndim - 2)))


def prepared(graph: Graph, dtype: torch.dtype, device: torch.device) -> Graph:
    """The graph with its tensors on ``device``, and those of real numbers converted to ``dtype``."""

    def converted(value: Tensor) -> Tensor:
        return value.to(device, dtype) if value.is_floating_point() else value.to(device)

    moved = {
        node.name: node.with_tensors(**{key: converted(value) for key, value in node.tensors.items()})
        for node in graph.nodes
        if node.tensors
    }
    return graph.map(moved)


@torch.no_grad()
def run(graph: Graph, images: Tensor, look: Look | None = None) -> Tensor:
    """The output ``(N, C)`` for normalised ``images (N, ...)``; each value is kept only until its last reader has used it."""
    values: dict[str, Tensor] = {}
    last = {name: node.name for node in graph.nodes for name in node.inputs}
    for node in graph.nodes:
        value = images if node.kind == "input" else evaluate(node, [values[name] for name in node.inputs], node.tensors)
        replaced = look(node, value) if look is not None else None
        values[node.name] = value if replaced is None else replaced
        for name in node.inputs:
            if last[name] == node.name:
                values.pop(name, None)
    return values[graph.output.name]
