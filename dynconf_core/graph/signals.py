"""Translation of calls on signals ``(N, C, L)``: their convolutions and pools are those of images of height 1.

Also layers and means over other dimensions, which become convolutions and pools of signals.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dynconf_core.graph import rearranging
from dynconf_core.graph.writing import Refused, Traced, Writer, layer_tensors, of_module


def convolved(
    write: Writer,
    name: str,
    x: Traced,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Traced:
    """The call of the convolution function."""
    _length(x)
    if padding == "same":
        missing = _one(dilation) * (weight.shape[2] - 1)
        x, padding = _padded(write, f"{name}.pad", x, missing // 2, missing - missing // 2), 0
    settings = {
        "stride": (1, _one(stride)),
        "padding": (0, 0 if padding == "valid" else _one(padding)),
        "dilation": (1, _one(dilation)),
        "groups": int(groups),
    }
    return write.add(name, "convolution", (x,), settings, layer_tensors(weight.unsqueeze(2), bias))


def pointwise(write: Writer, name: str, x: Traced, weight: Tensor, bias: Tensor | None = None) -> Traced:
    """A linear layer over the last dimension of several: a convolution of width 1."""
    places = x.value.shape[1:-1]
    rows = rearranging.moved(write, f"{name}.rows", x, lambda value: value.movedim(-1, 1).flatten(2))
    value = convolved(write, name, rows, weight.unsqueeze(2), bias)
    return rearranging.moved(write, f"{name}.places", value, lambda value: value.unflatten(2, places).movedim(1, -1))


def average_pool(
    write: Writer,
    name: str,
    x: Traced,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Traced:
    """The call of the average-pool function."""
    length, kernel, pad = _length(x), _one(kernel_size), _one(padding)
    step = _one(stride or kernel)
    if not count_include_pad and pad:
        raise Refused("it leaves the padding out of the mean; set count_include_pad=True (and train with it)")
    if ceil_mode and (length + 2 * pad - kernel) % step:
        raise Refused("ceil_mode=True cuts windows at the end; set ceil_mode=False or pad the signal")
    return write.add(name, "average_pool", (x,), {"kernel": (1, kernel), "stride": (1, step), "padding": (0, pad)})


def adaptive_average_pool(write: Writer, name: str, x: Traced, output_size: Any) -> Traced:
    """The call of the adaptive average-pool function."""
    return rearranging.adaptive_pool(write, name, x, (_length(x) if output_size is None else _one(output_size),))


def max_pool(
    write: Writer,
    name: str,
    x: Traced,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Traced:
    """The call of the max-pool function."""
    _length(x)
    if return_indices:
        raise Refused("it returns indices, which an SNN cannot pass on")
    kernel = _one(kernel_size)
    step = _one(stride or kernel)
    settings = {"kernel": (1, kernel), "stride": (1, step), "padding": (0, _one(padding)), "dilation": (1, _one(dilation))}
    return write.add(name, "max_pool", (x,), {**settings, "ceil_mode": bool(ceil_mode)})


def mean(write: Writer, name: str, x: Traced, dims: Sequence[int], keepdim: bool = False) -> Traced:
    """The mean over any dimensions but the batch: a pool over all of a signal."""
    if 0 in dims:
        raise Refused("it is a mean over the batch")
    shape = x.value.shape
    kept = [dim for dim in range(1, len(shape)) if dim not in dims]
    if not kept and not keepdim:
        raise Refused("it is one number for each sample; keep a dimension")
    length = math.prod(shape[dim] for dim in dims)
    rows = rearranging.moved(
        write, f"{name}.rows", x, lambda value: value.permute(0, *kept, *dims).reshape(len(value), -1, length)
    )
    settings = {"kernel": (1, length), "stride": (1, length), "padding": (0, 0)}
    pooled = rows if length == 1 else write.add(name, "average_pool", (rows,), settings)
    wanted = [1 if dim in dims else size for dim, size in enumerate(shape) if dim and (keepdim or dim not in dims)]
    return rearranging.moved(write, f"{name}.shape", pooled, lambda value: value.reshape(len(value), *wanted))


def _padded(write: Writer, name: str, x: Traced, before: int, after: int) -> Traced:
    return write.add(name, "pad", (x,), {"pads": ((0, 0), (before, after))}) if before or after else x


def _length(x: Traced) -> int:
    if x.value.ndim != 3:
        raise Refused(f"it takes inputs of shape {tuple(x.value.shape[1:])}; it is for signals (C, L)")
    return int(x.value.shape[2])


def _one(value: Any) -> int:
    """A size, given as a number or as a sequence of one."""
    return int(value) if isinstance(value, int) else int(value[0])


_AVERAGE = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad")
_MAXIMUM = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
MODULES: Mapping[type[nn.Module], Callable[..., Any]] = {
    nn.Conv1d: rearranging.of_convolution(convolved),
    nn.AvgPool1d: of_module(average_pool, *_AVERAGE),
    nn.AdaptiveAvgPool1d: of_module(adaptive_average_pool, "output_size"),
    nn.MaxPool1d: of_module(max_pool, *_MAXIMUM),
}
CALLS: Mapping[Any, Callable[..., Any]] = {
    **dict.fromkeys((functional.conv1d, torch.conv1d), convolved),
    **dict.fromkeys((functional.avg_pool1d, torch.avg_pool1d), average_pool),
    **dict.fromkeys((functional.adaptive_avg_pool1d, torch.adaptive_avg_pool1d), adaptive_average_pool),
    **dict.fromkeys((functional.max_pool1d, torch.max_pool1d), max_pool),
}
