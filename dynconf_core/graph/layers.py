"""Translation of layer calls (weights, batch normalisation, pools) into graph nodes."""

from typing import Any

import torch
from torch import Tensor

from dynconf_core.graph.writing import Refused, Traced, Writer, pair, viewed

# Weights


def convolution(write: Writer, name: str, module: Any, x: Traced) -> Traced:
    """The call of a convolution module."""
    if module.padding_mode != "zeros":
        raise Refused(f"it pads with {module.padding_mode!r}; pad with zeros")
    return convolved(write, name, x, module.weight, module.bias, module.stride, module.padding, module.dilation, module.groups)


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
    if isinstance(weight, Traced) or isinstance(bias, Traced):
        raise Refused("its weights depend on the network's input, which has no spiking counterpart")
    if x.stored == (x.shape[0],) and x.shape[1:] == (1, 1) and weight.ndim == 4:
        return _of_one_pixel(write, name, x, weight, bias, pair(padding), pair(dilation), int(groups))
    if x.value.ndim != 4 or weight.ndim != 4 or x.node_shape is not None:
        raise Refused(f"it takes inputs of shape {tuple(x.value.shape[1:])}; convolutions are over images (C, H, W)")
    settings = {"stride": pair(stride), "padding": pair(padding), "dilation": pair(dilation), "groups": int(groups)}
    return write.add(name, "convolution", (x,), settings, _weights(weight, bias))


def _of_one_pixel(
    write: Writer,
    name: str,
    x: Traced,
    weight: Tensor,
    bias: Tensor | None,
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
) -> Traced:
    """A convolution over features (N, F) seen as an image of one pixel: a linear layer of the weight that meets the pixel."""
    sizes = zip(weight.shape[2:], padding, dilation, strict=True)
    if any(2 * pad != step * (size - 1) for size, pad, step in sizes):
        raise Refused(f"it makes {x.shape} larger or smaller; use a 1 x 1 kernel")
    # The padding on each side holds (size - 1) / 2 steps: only the middle weight meets the pixel, unless there is none.
    if any(size % 2 == 0 for size in weight.shape[2:]):
        raise Refused("an even kernel has no middle; use a 1 x 1 kernel")
    middle = weight[:, :, weight.shape[2] // 2, weight.shape[3] // 2]
    if groups > 1:
        middle = torch.block_diag(*middle.chunk(groups))
    y = write.add(name, "linear", (write.stored(x.name),), {}, _weights(middle, bias))
    return viewed(y, (*y.shape, 1, 1))


def linear(write: Writer, name: str, x: Traced, weight: Tensor, bias: Tensor | None = None) -> Traced:
    """The call of the linear function."""
    if isinstance(weight, Traced) or not isinstance(x, Traced):
        raise Refused("its weights depend on the network's input, which has no spiking counterpart")
    if x.value.ndim != 2:
        raise Refused(f"it takes inputs of shape {tuple(x.value.shape[1:])}; flatten them to (N, F) first")
    return write.add(name, "linear", (x,), {}, _weights(weight, bias))


def linear_layer(write: Writer, name: str, module: Any, x: Traced) -> Traced:
    """The call of a linear module."""
    return linear(write, name, x, module.weight, module.bias)


def product(write: Writer, name: str, x: Any, other: Any) -> Traced:
    """x @ other, with a constant matrix (F, O)."""
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
        raise Refused("it normalises every image by its own statistics; use BatchNorm2d, or track_running_stats=True")
    return _normalised(write, name, x, running_mean, running_var, weight, bias, eps)


def _normalised(
    write: Writer, name: str, x: Traced, mean: Tensor, var: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> Traced:
    """gamma (x - mean) / sqrt(var + eps) + beta: a factor and an offset for each channel."""
    gamma = weight if weight is not None else torch.ones_like(var)
    beta = bias if bias is not None else torch.zeros_like(mean)
    factor = gamma / torch.sqrt(var + eps)
    return write.add(name, "scale", (x,), {}, {"weight": factor, "bias": beta - factor * mean})


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
    if height % rows or width % columns:
        raise Refused(f"{height} x {width} pixels do not divide into {rows} x {columns} equal windows; use another resolution")
    if (rows, columns) == (height, width):
        return x
    kernel = (height // rows, width // columns)
    return write.add(name, "average_pool", (x,), {"kernel": kernel, "stride": kernel, "padding": (0, 0)})


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


def adaptive_max_pool(write: Writer, name: str, x: Traced, output_size: Any, return_indices: bool = False) -> Traced:
    """The call of the adaptive max-pool function, for equal windows."""
    height, width = _image(x)
    wanted = output_size if isinstance(output_size, tuple | list) else (output_size, output_size)
    rows, columns = (size if given is None else int(given) for size, given in zip((height, width), wanted, strict=True))
    if height % rows or width % columns:
        raise Refused(f"{height} x {width} pixels do not divide into {rows} x {columns} equal windows; use another resolution")
    if (rows, columns) == (height, width):
        return x
    return max_pool(write, name, x, (height // rows, width // columns), return_indices=return_indices)


def _image(x: Traced) -> tuple[int, int]:
    """Height and width in pixels."""
    if x.value.ndim != 4:
        raise Refused(f"it takes inputs of shape {tuple(x.value.shape[1:])}; pools are over images (C, H, W)")
    return int(x.value.shape[2]), int(x.value.shape[3])
