"""Operations without weights of their own (slices, pads, concatenations, factors) as weights, for formats without them.

A selection of channels is a 1 x 1 convolution by a matrix of zeros and ones; a crop, a pad or a stride is its geometry. Each
product but one is zero, so that the values are the same to the bit. (In a sum over a window, which stands for the pool of a
signal, there are more; spikes are whole numbers.)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dynconf_core.graph.graph import Node

AS_WEIGHTS = ("scale", "slice", "pad", "concatenate", "rearrange", "sum_pool")
"""Kinds of nodes that ``as_weights`` knows."""
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Weights:
    """A convolution, weight ``(O, I, kh, kw)`` (of a signal, kh = 1), or a matrix ``(O, I)``; bias ``(O,)`` or None."""

    weight: Tensor
    bias: Tensor | None = None
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of a ``convolution``, or of a ``linear`` node."""
        if self.weight.ndim == 2:
            return {}
        return {"stride": self.stride, "padding": self.padding, "dilation": (1, 1), "groups": 1}


def as_weights(
    node: Node, tensors: Mapping[str, Tensor], source: Shape, before: int = 0, shape: Shape | None = None
) -> Weights:
    """The operation on one of its inputs.

    Args:
        node: of one of the kinds ``AS_WEIGHTS``.
        tensors: those of the node.
        source: shape of the input.
        before: of a ``concatenate``, the channels of the inputs before this one.
        shape: that the weight must have, where the node comes from a file; None for any.

    Raises:
        ValueError: for values that are no images, or a weight of another shape.
    """
    channels, *sides = source
    lines = _lines(node, sides)
    if len(sides) > 2 or len(node.shape) != len(source):
        raise ValueError(f"it makes values of the shape {node.shape} of {source}, which no convolution does")
    if shape is not None and shape != (node.channels, channels, *(line.size for line in lines)):
        raise ValueError(f"its weight has the shape {shape}, which is not that of the {node.kind} that its metadata name")
    matrix, bias = torch.zeros(node.channels, channels), None
    if node.kind == "scale":
        matrix = torch.diag(tensors["weight"].float().expand(channels).contiguous())
        bias = tensors["bias"].expand(channels).contiguous() if "bias" in tensors else None
    elif node.kind == "concatenate":
        matrix[before : before + channels] = torch.eye(channels)
    elif node.kind == "slice":
        matrix = torch.eye(channels)[slice(*node.settings["slices"][0])].contiguous()
    elif node.kind == "pad":
        first, last = node.settings["pads"][0]
        rows = torch.eye(channels)[max(0, -first) : channels - max(0, -last)]
        matrix[max(0, first) : max(0, first) + len(rows)] = rows
    elif node.kind == "rearrange":
        if sides and node.settings["of"] != "channels":
            raise ValueError("it moves values within an image, which no convolution does")
        matrix = torch.eye(channels)[tensors["index"].long()]
    elif node.kind == "sum_pool":
        matrix = torch.eye(channels)
    if not sides:
        return Weights(matrix, bias)
    kernels = [line.kernel() for line in lines]
    weight = matrix[:, :, None, None] * kernels[0][:, None] * kernels[1][None, :]
    return Weights(weight, bias, _pair([line.step for line in lines]), _pair([line.padding for line in lines]))


def restored(weighted: Node, meant: Mapping[str, Any], source: Shape) -> Node:
    """The operation that a weighted node stands for.

    Args:
        weighted: a ``convolution`` or ``linear`` node.
        meant: the kind and settings of the operation, from somebody's file.
        source: shape of its input.

    Raises:
        ValueError: if its weights are not those of the operation.
    """
    kind = meant["kind"]
    if kind not in AS_WEIGHTS:
        raise ValueError(f"the operation {str(kind)[:40]!r} in its metadata is unknown")
    matrix = weighted.tensors["weight"].flatten(2).sum(2) if len(source) > 1 else weighted.tensors["weight"]
    tensors, before = dict[str, Tensor](), 0
    if kind == "scale":
        diagonal = matrix.diagonal()
        tensors["weight"] = diagonal[0] if bool((diagonal == diagonal[0]).all()) else diagonal.clone()
        tensors |= {"bias": weighted.tensors["bias"]} if "bias" in weighted.tensors else {}
    elif kind == "concatenate":
        before = int(matrix.any(1).int().argmax())
    elif kind == "rearrange":
        tensors["index"] = matrix.argmax(1).int()
    settings = {key: value for key, value in dict(meant["settings"]).items() if value is not None}
    node = replace(weighted, kind=kind, settings=settings, tensors=tensors)
    again = as_weights(node, tensors, source, before, tuple(weighted.tensors["weight"].shape))
    same = torch.equal(again.weight, weighted.tensors["weight"])
    if not same or any(tuple(weighted.settings[name]) != again.settings[name] for name in again.settings if name != "groups"):
        raise ValueError(f"its weights are not those of the {kind} that its metadata name; remove them")
    return node


def _lines(node: Node, sides: Sequence[int]) -> list["_Line"]:
    """The positions that the operation reads along each side of an image."""
    lines = [_Line(side, 0, 1, side) for side in sides]
    if node.kind == "slice":
        cuts = [slice(*bounds) for bounds in node.settings["slices"][1:]] + [slice(None)] * len(sides)
        taken = [range(*cut.indices(side)) for side, cut in zip(sides, cuts, strict=False)]
        lines = [_Line(side, one.start, one.step, len(one)) for side, one in zip(sides, taken, strict=True)]
    elif node.kind == "pad":
        pads = node.settings["pads"][1:]
        lines = [_Line(side, -start, 1, start + side + end) for side, (start, end) in zip(sides, pads, strict=True)]
    elif node.kind == "sum_pool":
        window = [node.settings[name][-len(sides) :] for name in ("kernel", "stride", "padding")]
        lines = [_Line(side, 0, step, 0, (size, pad)) for side, size, step, pad in zip(sides, *window, strict=True)]
    return lines if len(lines) != 1 else [_Line(1, 0, 1, 1), *lines]  # a signal is an image of height 1


@dataclass(frozen=True)
class _Line:
    """Positions ``start``, ``start + step`` ... (``length`` of them) of a line of ``side`` positions, zero outside it.

    With a ``window`` (its size and padding) sums over it, ``step`` apart.
    """

    side: int
    start: int
    step: int
    length: int
    window: tuple[int, int] | None = None

    @property
    def padding(self) -> int:
        last = self.start + (self.length - 1) * self.step
        return self.window[1] if self.window else max(0, -self.start, last - self.side + 1)

    @property
    def size(self) -> int:
        """Of a kernel that gives ``length`` values."""
        if self.window:
            return self.window[0]
        whole, offset = self.side + 2 * self.padding, self.start + self.padding
        one = offset == 0 and (whole - 1) // self.step + 1 == self.length
        return 1 if one else whole - (self.length - 1) * self.step

    def kernel(self) -> Tensor:
        """Zeros but for a one, or ones."""
        if self.window:
            return torch.ones(self.size)
        kernel = torch.zeros(self.size)
        kernel[self.start + self.padding] = 1
        return kernel


def _pair(values: Sequence[int]) -> tuple[int, int]:
    first, second = values
    return first, second
