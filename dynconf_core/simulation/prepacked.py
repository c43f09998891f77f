"""Float32 products with weights that are reordered for oneDNN only once.

PyTorch's convolutions and linear layers reorder their weights at every call, which dominates the cost for small images. There
are three forms, each of which only multiplies and adds:

- convolution: PyTorch's own kernels on weights that are already reordered;
- linear: oneDNN's matrix product instead of the BLAS library's (2.5 times as fast on an AMD CPU);
- a convolution over an image no larger than its kernel, as a linear layer: most of the kernel would cover padding.

They use private operations of PyTorch, which are looked up and tested before use; if one is missing or differs, the result is
None and the caller uses the public operations.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from dynconf_core.graph.graph import Node
from dynconf_core.graph.operations import evaluate

_GROWTH = 2  # the linear form may have at most this many times the convolution's weights


class Product(Protocol):
    """A weighted layer as a function of its input."""

    def __call__(self, x: Tensor, biased: bool) -> Tensor:
        """The current ``(N, O, ...)`` for values ``(N, C, ...)``, in new memory, with or without the bias."""


def prepacked(node: Node, tensors: Mapping[str, Tensor], shape: Sequence[int], exact: bool) -> Product | None:
    """The product of a convolution or linear layer; None if there is none.

    Args:
        node: the layer.
        tensors: its weight and bias, float32 on the CPU.
        shape: the input's shape, ``(N, C, H, W)`` or ``(N, C)``; later inputs may have another N.
        exact: whether it must equal PyTorch's public operations bit for bit, as with fixed-point weights; otherwise to
            float32 precision.
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
    """Whether a linear layer does the work of a convolution over ``shape (C, H, W)`` faster and with few more weights."""
    kernel = math.prod(node.tensors["weight"].shape[2:])
    places, outputs = math.prod(shape[1:]), math.prod(node.shape[1:])
    return node.settings["groups"] == 1 and places < kernel and places * outputs <= _GROWTH * kernel


def _dense(node: Node, weight: Tensor, bias: Tensor | None, shape: Sequence[int]) -> Product:
    """A convolution as a matrix product; channels come last in rows and columns, as in channels-last memory."""
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
    """Sparse trial spikes, channels-last."""
    x = (torch.rand(tuple(shape), generator=torch.Generator().manual_seed(0)) < 0.2).float()
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x
