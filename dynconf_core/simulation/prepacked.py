"""float32 products with weights that lie in memory as oneDNN reads them, once and not anew in every step.

A convolution or linear layer of PyTorch reorders its weights at each call; where images are small, that and the reading of the
weights is most of the work. Three forms, each of which only multiplies and adds:

- convolution: the same kernels as PyTorch's own, on weights reordered once;
- linear: oneDNN's matrix product in the place of the BLAS library's (2.5 times as fast on an AMD CPU);
- a convolution over an image no larger than its kernel, as a linear layer: most of the kernel would meet padding.

The operations are private ones of PyTorch: they are looked up when needed and tried before use, and where they are missing or
differ, the answer is None and the caller computes with the public ones.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from dynconf_core.graph.graph import Node
from dynconf_core.graph.operations import evaluate

_GROWTH = 2  # times a convolution's weights that its linear form may have


class Product(Protocol):
    """A layer."""

    def __call__(self, x: Tensor, biased: bool) -> Tensor:
        """The current ``(N, O, ...)`` of values ``(N, C, ...)``, in fresh memory; with the bias or without."""


def prepacked(node: Node, tensors: Mapping[str, Tensor], shape: Sequence[int], exact: bool) -> Product | None:
    """The product of a convolution or linear layer, or None where there is none.

    Args:
        node: the layer.
        tensors: its weight and bias, float32 on the CPU.
        shape: of the input, ``(N, C, H, W)`` or ``(N, C)``; other N may follow.
        exact: whether it must equal PyTorch's public operations bit for bit, as with fixed-point weights; else to float32's
            precision.
    """
    weight, bias = tensors["weight"], tensors.get("bias")
    if weight.device.type != "cpu" or weight.dtype != torch.float32 or not torch.backends.mkldnn.is_available():
        return None
    try:
        if node.kind == "linear":
            product = _linear(weight, bias, shape[0])
        elif _as_linear(node, shape[1:]):
            product = _dense(node, weight, bias, shape)
        else:
            product = _convolution(node, weight, bias, shape)
        x = _trial(shape)
        found, expected = product(x, True), evaluate(node, [x], tensors)
    except (AttributeError, RuntimeError):
        return None
    same = torch.equal(found, expected) if exact else torch.allclose(found, expected, rtol=1e-4, atol=1e-4)
    return product if same else None


def _convolution(node: Node, weight: Tensor, bias: Tensor | None, shape: Sequence[int]) -> Product:
    ops: Any = torch.ops.mkldnn
    stride, padding, dilation = (list(node.settings[name]) for name in ("stride", "padding", "dilation"))
    groups = node.settings["groups"]
    reordered = ops._reorder_convolution_weight(weight, padding, stride, dilation, groups, list(shape))

    def product(x: Tensor, biased: bool) -> Tensor:
        found: Tensor = ops._convolution_pointwise(
            x, reordered, bias if biased else None, padding, stride, dilation, groups, "none", [], ""
        )
        return found

    return product


def _linear(weight: Tensor, bias: Tensor | None, samples: int) -> Product:
    ops: Any = torch.ops.mkldnn
    reordered = ops._reorder_linear_weight(weight, samples)

    def product(x: Tensor, biased: bool) -> Tensor:
        found: Tensor = ops._linear_pointwise(x, reordered, bias if biased else None, "none", [], "")
        return found

    return product


def _as_linear(node: Node, shape: Sequence[int]) -> bool:
    """Whether a convolution of images of ``shape (C, H, W)`` is less work, and not many more weights, as a linear layer."""
    kernel = math.prod(node.tensors["weight"].shape[2:])
    places, outputs = math.prod(shape[1:]), math.prod(node.shape[1:])
    return node.settings["groups"] == 1 and places < kernel and places * outputs <= _GROWTH * kernel


def _dense(node: Node, weight: Tensor, bias: Tensor | None, shape: Sequence[int]) -> Product:
    """Channels come last in the rows and columns of the matrix, as they do in memory."""
    channels, height, width = shape[1:]
    units = channels * height * width
    geometry = [node.settings[name] for name in ("stride", "padding", "dilation", "groups")]
    every_unit = torch.eye(units).view(units, height, width, channels).permute(0, 3, 1, 2)
    columns = functional.conv2d(every_unit, weight, None, *geometry).permute(0, 2, 3, 1).reshape(units, -1)
    repeated = None if bias is None else bias.repeat(math.prod(node.shape[1:]))
    del every_unit
    linear = _linear(columns.T.contiguous(), repeated, shape[0])

    def product(x: Tensor, biased: bool) -> Tensor:
        rows = linear(x.permute(0, 2, 3, 1).reshape(len(x), units), biased)
        return rows.view(len(x), *node.shape[1:], node.channels).permute(0, 3, 1, 2)

    return product


def _trial(shape: Sequence[int]) -> Tensor:
    """Sparse spikes, channels-last, as in every step."""
    x = (torch.rand(tuple(shape), generator=torch.Generator().manual_seed(0)) < 0.2).float()
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x
