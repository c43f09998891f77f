"""Operations without weights of their own (slices, pads, concatenations, factors) as weights, for formats without them.

A selection of channels is a 1 x 1 convolution by a matrix of zeros and ones; a crop, a pad or a stride is its geometry. Each
product but one is zero, so that the values are the same to the bit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dynconf_core.graph.graph import Node

AS_WEIGHTS = ("scale", "slice", "pad", "concatenate")
"""Kinds of nodes that ``as_weights`` knows."""
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Weights:
    """A convolution, weight ``(O, I, kh, kw)``, or without a geometry a matrix ``(O, I)``; bias ``(O,)`` or None."""

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


def as_weights(node: Node, tensors: Mapping[str, Tensor], source: Shape, before: int = 0) -> Weights:
    """The operation on one of its inputs.

    Args:
        node: of one of the kinds ``AS_WEIGHTS``.
        tensors: those of the node.
        source: shape of the input.
        before: of a ``concatenate``, the channels of the inputs before this one.

    Raises:
        ValueError: if values are moved within an image in a way that no convolution gives.
    """
    channels, *sides = source
    matrix, bias = torch.zeros(node.channels, channels), None
    lines = [_Line(side, 0, 1, side) for side in sides]
    if node.kind == "scale":
        matrix = torch.diag(tensors["weight"].float().expand(channels).contiguous())
        bias = tensors["bias"].float().expand(channels).contiguous() if "bias" in tensors else None
    elif node.kind == "concatenate":
        matrix[before : before + channels] = torch.eye(channels)
    elif node.kind == "slice":
        slices = [slice(*bounds) for bounds in node.settings["slices"]] + [slice(None)] * len(source)
        matrix = torch.eye(channels)[slices[0]].contiguous()
        lines = [_Line.of_slice(side, cut) for side, cut in zip(sides, slices[1:], strict=False)]
    elif node.kind == "pad":
        (first, last), *pads = node.settings["pads"]
        rows = torch.eye(channels)[max(0, -first) : channels - max(0, -last)]
        matrix[max(0, first) : max(0, first) + len(rows)] = rows
        lines = [_Line(side, -start, 1, start + side + end) for side, (start, end) in zip(sides, pads, strict=True)]
    else:
        raise ValueError(f"{node.kind} is not an operation on channels")
    if not sides:
        return Weights(matrix, bias)
    if len(sides) != 2:
        raise ValueError(f"values of the shape {source} are no images")
    kernels = [line.kernel() for line in lines]
    weight = matrix[:, :, None, None] * kernels[0][:, None] * kernels[1][None, :]
    return Weights(weight, bias, _pair([line.step for line in lines]), _pair([line.padding for line in lines]))


@dataclass(frozen=True)
class _Line:
    """Positions ``start``, ``start + step`` ... (``length`` of them) of a line of ``side`` positions, zero outside it."""

    side: int
    start: int
    step: int
    length: int

    @classmethod
    def of_slice(cls, side: int, cut: slice) -> "_Line":
        taken = range(*cut.indices(side))
        return cls(side, taken.start, taken.step, len(taken))

    @property
    def padding(self) -> int:
        last = self.start + (self.length - 1) * self.step
        return max(0, -self.start, last - self.side + 1)

    def kernel(self) -> Tensor:
        """Zeros but for a one, so long that a convolution gives ``length`` values."""
        whole, offset = self.side + 2 * self.padding, self.start + self.padding
        size = 1 if offset == 0 and (whole - 1) // self.step + 1 == self.length else whole - (self.length - 1) * self.step
        kernel = torch.zeros(size)
        kernel[offset] = 1
        return kernel


def _pair(values: Sequence[int]) -> tuple[int, int]:
    first, second = values
    return first, second
