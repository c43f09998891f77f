"""Translation of layer calls (weights, batch normalisation, pools) into graph nodes."""

from typing import Any

import torch
from torch import Tensor

from dynconf_core.graph import rearranging, signals
from dynconf_core.graph.writing import Refused, Traced, Writer, pair

# Weights


def convolution(write: Writer, name: str, module: Any, x: Traced) -> Traced:
    """The call of a convolution module."""
    padding = module.padding
    if module.padding_mode != "zeros":
        # What the module itself pads by, which "same" means, too.
        amounts = module._reversed_padding_repeated_twice
        x, padding = rearranging.padded(write, f"{name}.pad", x, amounts, module.padding_mode), 0
    return convolved(write, name, x, module.weight, module.bias, module.stride, padding, module.dilation, module.groups)


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
    if isinstance(padding, str):
        sizes = [(size - 1) * step for size, step in zip(weight.shape[2:], pair(dilation), strict=True)]
        if padding == "same" and any(size % 2 for size in sizes):
            raise Refused("'same' padding of an even kernel is not the same on both sides; pad explicitly")
        padding = [size // 2 for size in sizes] if padding == "same" else 0
    if x.value.ndim != 4 or weight.ndim != 4:
        raise Refused(f"it takes inputs of shape {tuple(x.value.shape[1:])}; convolutions are over images (C, H, W)")
    settings = {"stride": pair(stride), "padding": pair(padding), "dilation": pair(dilation), "groups": int(groups)}
    return write.add(name, "convolution", (x,), settings, _weights(weight, bias))


def linear(write: Writer, name: str, x: Traced, weight: Tensor, bias: Tensor | None = None) -> Traced:
    """The call of the linear function."""
    if x.value.ndim != 2:
        return signals.pointwise(write, name, x, weight, bias)
    return write.add(name, "linear", (x,), {}, _weights(weight, bias))


def linear_layer(write: Writer, name: str, module: Any, x: Traced) -> Traced:
    """The call of a linear module."""
    return linear(write, name, x, module.weight, module.bias)


def batch_norm(write: Writer, name: str, module: Any, x: Traced) -> Traced:
    """gamma (x - mean) / sqrt(var + eps) + beta: a factor and an offset for each channel."""
    gamma = module.weight if module.weight is not None else torch.ones_like(module.running_var)
    beta = module.bias if module.bias is not None else torch.zeros_like(module.running_mean)
    factor = gamma / torch.sqrt(module.running_var + module.eps)
    return write.add(name, "scale", (x,), {}, {"weight": factor, "bias": beta - factor * module.running_mean})


def _weights(weight: Tensor, bias: Tensor | None) -> dict[str, Tensor]:
    return {"weight": weight} if bias is None else {"weight": weight, "bias": bias}


# Pools


def average_pool(
    write: Writer,
    name: str,
    x: Traced,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Traced:
    """The call of the average-pool function."""
    height, width = _image(x)
    kernel, stride, padding = pair(kernel_size), pair(stride or kernel_size), pair(padding)
    if divisor_override is not None:
        raise Refused("it has a divisor of its own; use the plain mean")
    if not count_include_pad and any(padding):
        raise Refused("it leaves the padding out of the mean; set count_include_pad=True (and train with it)")
    left = [(size + 2 * p - k) % s for size, p, k, s in zip((height, width), padding, kernel, stride, strict=True)]
    if ceil_mode and any(left):
        raise Refused("ceil_mode=True cuts windows at the border; set ceil_mode=False or pad the image")
    return write.add(name, "average_pool", (x,), {"kernel": kernel, "stride": stride, "padding": padding})


def adaptive_pool(write: Writer, name: str, x: Traced, output_size: Any) -> Traced:
    """The call of the adaptive average-pool function, for equal windows."""
    height, width = _image(x)
    wanted = output_size if isinstance(output_size, tuple | list) else (output_size, output_size)
    rows, columns = (size if given is None else int(given) for size, given in zip((height, width), wanted, strict=True))
    if (rows, columns) == (height, width):
        return x
    if height % rows or width % columns:
        return rearranging.adaptive_pool(write, name, x, (rows, columns))
    kernel = (height // rows, width // columns)
    return write.add(name, "average_pool", (x,), {"kernel": kernel, "stride": kernel, "padding": (0, 0)})


def mean(write: Writer, name: str, x: Traced, dim: Any = None, keepdim: bool = False) -> Traced:
    """A mean; over the image it is a global pool."""
    dims = sorted(d % x.value.ndim for d in ((dim,) if isinstance(dim, int) else dim or range(x.value.ndim)))
    if x.value.ndim != 4 or dims != [2, 3]:
        return signals.mean(write, name, x, dims, keepdim)
    pooled = adaptive_pool(write, name, x, 1)
    return pooled if keepdim else write.add(f"{name}.flatten", "flatten", (pooled,))


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
    _image(x)
    if return_indices:
        raise Refused("it returns indices, which an SNN cannot pass on")
    window = {"kernel": kernel_size, "stride": stride or kernel_size, "padding": padding, "dilation": dilation}
    settings = {key: pair(value) for key, value in window.items()}
    return write.add(name, "max_pool", (x,), {**settings, "ceil_mode": bool(ceil_mode)})


def _image(x: Traced) -> tuple[int, int]:
    """Height and width in pixels."""
    if x.value.ndim != 4:
        raise Refused(f"it takes inputs of shape {tuple(x.value.shape[1:])}; pools are over images (C, H, W)")
    return int(x.value.shape[2]), int(x.value.shape[3])
