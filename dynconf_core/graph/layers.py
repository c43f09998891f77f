"""Translation of layer calls (weights, batch normalisation, pools) into graph nodes."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dynconf_core.errors import InputError
from dynconf_core.graph import limits, rearranging, refusals, signals
from dynconf_core.graph.placeholders import Unsupported
from dynconf_core.graph.writing import Refused, Traced, Writer, layer_tensors, pair

# Weights


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
    if isinstance(weight, Traced) or isinstance(bias, Traced):
        raise Refused("its weights depend on the network's input, which has no spiking counterpart")
    if isinstance(padding, str):
        sizes = [(size - 1) * step for size, step in zip(weight.shape[2:], pair(dilation), strict=True)]
        if padding == "same" and any(size % 2 for size in sizes):
            raise Refused("'same' padding of an even kernel is not the same on both sides; pad explicitly")
        padding = [size // 2 for size in sizes] if padding == "same" else 0
    if x.value.ndim != 4 or weight.ndim != 4:
        one = "; a single image is a batch of one, (1, C, H, W)" if x.value.ndim == 3 else ""
        raise Refused(f"it takes inputs of shape {tuple(x.value.shape[1:])}; convolutions are over images (C, H, W){one}")
    settings = {"stride": pair(stride), "padding": pair(padding), "dilation": pair(dilation), "groups": int(groups)}
    return write.add(name, "convolution", (x,), settings, layer_tensors(weight, bias))


def linear(write: Writer, name: str, x: Traced, weight: Tensor, bias: Tensor | None = None) -> Traced:
    """The call of the linear function."""
    if isinstance(weight, Traced) or isinstance(bias, Traced):
        raise Refused("its weights depend on the network's input, which has no spiking counterpart")
    if x.value.ndim != 2:
        return signals.pointwise(write, name, x, weight, bias)
    return write.add(name, "linear", (x,), {}, layer_tensors(weight, bias))


def linear_layer(write: Writer, name: str, module: Any, x: Traced) -> Traced:
    """The call of a linear module."""
    return linear(write, name, x, module.weight, module.bias)


def product(write: Writer, name: str, x: Any, other: Any) -> Traced:
    """x @ other, with a constant matrix (F, O)."""
    if isinstance(x, Traced) and isinstance(other, Traced):
        raise Refused(f"{refusals.PRODUCT.reason}; {refusals.PRODUCT.instead}")
    if not isinstance(x, Traced) or not isinstance(other, Tensor) or other.ndim != 2:
        raise Refused("only a product x @ W of activations (N, F) with constant weights W (F, O) is supported")
    return linear(write, name, x, other.t())


def product_and_sum(write: Writer, name: str, bias: Any, x: Any, other: Any, beta: float = 1, alpha: float = 1) -> Traced:
    """beta bias + alpha x @ other, with a constant matrix and constant biases."""
    if not isinstance(bias, Tensor) or not isinstance(other, Tensor):
        raise Refused("only constant weights and biases are supported")
    columns = torch.broadcast_to(beta * bias.double(), (1, other.shape[1]))[0] if bias.ndim < 2 or len(bias) == 1 else None
    if columns is None:
        raise Refused("its biases differ between samples")
    return linear(write, name, x, alpha * other.double().t(), columns)


def batch_norm(write: Writer, name: str, module: Any, x: Traced) -> Traced:
    """The call of a batch normalisation module."""
    return _normalised(write, name, x, module.running_mean, module.running_var, module.weight, module.bias, module.eps)


def batch_normalised(
    write: Writer,
    name: str,
    x: Traced,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    **words: Any,
) -> Traced:
    """The call of the batch normalisation function."""
    if training or running_mean is None or running_var is None:
        raise Refused("it normalises by the statistics of the batch; give running statistics and training=self.training")
    return _normalised(write, name, x, running_mean, running_var, weight, bias, eps)


def instance_norm(write: Writer, name: str, module: Any, x: Traced) -> Traced:
    """The call of an instance normalisation module."""
    mean, var = module.running_mean, module.running_var
    return instance_normalised(write, name, x, mean, var, module.weight, module.bias, mean is None, eps=module.eps)


def instance_normalised(
    write: Writer,
    name: str,
    x: Traced,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    **words: Any,
) -> Traced:
    """The call of the instance normalisation function; with running statistics it is a batch normalisation."""
    if use_input_stats or running_mean is None or running_var is None:
        raise Refused(f"{refusals.NORMALISING.reason}; {refusals.NORMALISING.instead}, or with track_running_stats=True")
    return _normalised(write, name, x, running_mean, running_var, weight, bias, eps)


def _normalised(
    write: Writer, name: str, x: Traced, mean: Tensor, var: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> Traced:
    """gamma (x - mean) / sqrt(var + eps) + beta: a factor and an offset for each channel."""
    gamma = weight if weight is not None else torch.ones_like(var)
    beta = bias if bias is not None else torch.zeros_like(mean)
    factor = gamma / torch.sqrt(var + eps)
    return write.add(name, "scale", (x,), {}, {"weight": factor, "bias": beta - factor * mean})


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


def mean(write: Writer, name: str, x: Traced, dim: Any = None, keepdim: bool = False, **words: Any) -> Traced:
    """A mean; over the image it is a global pool."""
    dims = _dimensions(x, dim)
    if x.value.ndim != 4 or not {2, 3}.issuperset(dims):
        return signals.mean(write, name, x, dims, keepdim)
    pooled = adaptive_pool(write, name, x, (1 if 2 in dims else None, 1 if 3 in dims else None))
    return pooled if keepdim else _without(write, name, pooled, dims)


def total(write: Writer, name: str, x: Traced, dim: Any = None, keepdim: bool = False, **words: Any) -> Traced:
    """A sum: the mean times the number of values."""
    count = math.prod(x.value.shape[d] for d in _dimensions(x, dim))
    average = mean(write, name, x, dim, keepdim)
    return write.add(f"{name}.count", "scale", (average,), {}, {"weight": torch.tensor(float(count), dtype=torch.float64)})


def maximum(write: Writer, name: str, x: Traced, dim: Any = None, keepdim: bool = False) -> Traced:
    """The maximum over the image or the signal: a global max pool."""
    dims = _dimensions(x, dim)
    if x.value.ndim == 3 and dims == [2]:
        pooled = signals.max_pool(write, name, x, x.value.shape[2])
    elif x.value.ndim == 4 and {2, 3}.issuperset(dims):
        pooled = adaptive_max_pool(write, name, x, (1 if 2 in dims else None, 1 if 3 in dims else None))
    else:
        raise Refused("only the maximum over the image, amax((2, 3)), its rows or its columns is supported")
    return pooled if keepdim else _without(write, name, pooled, dims)


class Largest(NamedTuple):
    """The largest values and their positions, as ``torch.max`` and the max pools return them."""

    values: Traced
    indices: Unsupported


def _largest(values: Traced, name: str) -> Largest:
    """The positions are refused where they are used."""
    reason = InputError(
        f"the indices of the maximum at {name!r} cannot be converted: an SNN counts spikes, and does not know which value "
        "was the largest; use the values alone."
    )
    return Largest(values, Unsupported(reason, torch.empty(values.value.shape, dtype=torch.int64, device="meta")))


def largest(write: Writer, name: str, x: Any, other: Any = None, keepdim: bool = False, **words: Any) -> Any:
    """The call of ``max``: over a dimension, or the larger of two values."""
    dim = words.pop("dim", other)
    if isinstance(x, Traced) and isinstance(dim, int):
        return _largest(maximum(write, name, x, dim, keepdim), name)
    return limits.at_least(write, name, x, other, **words)


def max_pool_with_indices(write: Writer, name: str, x: Traced, *arguments: Any, **words: Any) -> Largest:
    """The call of the max-pool function that returns indices, too."""
    return _largest(max_pool(write, name, x, *arguments, **{**words, "return_indices": False}), name)


def signal_max_pool_with_indices(write: Writer, name: str, x: Traced, *arguments: Any, **words: Any) -> Largest:
    """The call of the max-pool function for signals that returns indices, too."""
    return _largest(signals.max_pool(write, name, x, *arguments, **{**words, "return_indices": False}), name)


def adaptive_max_pool_with_indices(write: Writer, name: str, x: Traced, output_size: Any, *rest: Any, **words: Any) -> Largest:
    """The call of the adaptive max-pool function that returns indices, too."""
    return _largest(adaptive_max_pool(write, name, x, output_size), name)


def _without(write: Writer, name: str, x: Traced, dims: list[int]) -> Traced:
    """The value without these dimensions, which have one place each."""
    if x.value.ndim - len(dims) == 2:
        return write.add(f"{name}.flatten", "flatten", (x,))
    return rearranging.moved(write, f"{name}.shape", x, lambda value: value.squeeze(dims))


def _dimensions(x: Traced, dim: Any) -> list[int]:
    given = (dim,) if isinstance(dim, int) else dim or range(x.value.ndim)
    return sorted({int(d) % x.value.ndim for d in given})


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
) -> Any:
    """The call of the max-pool function."""
    _image(x)
    window = {"kernel": kernel_size, "stride": stride or kernel_size, "padding": padding, "dilation": dilation}
    settings = {key: pair(value) for key, value in window.items()}
    pooled = write.add(name, "max_pool", (x,), {**settings, "ceil_mode": bool(ceil_mode)})
    return _largest(pooled, name) if return_indices else pooled


def adaptive_max_pool(write: Writer, name: str, x: Traced, output_size: Any, return_indices: bool = False) -> Any:
    """The call of the adaptive max-pool function, for equal windows."""
    height, width = _image(x)
    wanted = output_size if isinstance(output_size, tuple | list) else (output_size, output_size)
    rows, columns = (size if given is None else int(given) for size, given in zip((height, width), wanted, strict=True))
    if (rows, columns) == (height, width):
        return _largest(x, name) if return_indices else x
    if height % rows or width % columns:
        raise Refused(f"{height} x {width} pixels do not divide into {rows} x {columns} equal windows; use another resolution")
    return max_pool(write, name, x, (height // rows, width // columns), return_indices=return_indices)


def _image(x: Traced) -> tuple[int, int]:
    """Height and width in pixels."""
    if x.value.ndim != 4:
        raise Refused(f"it takes inputs of shape {tuple(x.value.shape[1:])}; pools are over images (C, H, W)")
    return int(x.value.shape[2]), int(x.value.shape[3])
