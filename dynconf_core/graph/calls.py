"""Tables of the PyTorch modules, functions and methods that a network may call, each with its translation into graph nodes."""

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from dynconf_core.graph import activating, arrangement, layers, rearranging, refusals, signals
from dynconf_core.graph.writing import Refused, Traced, Writer

# Activations


def _relu(write: Writer, name: str, x: Traced, inplace: bool = False) -> Traced:
    return write.add(name, "activation", (x,), {"function": "relu"})


def _clip(write: Writer, name: str, x: Traced, low: Any = None, high: Any = None, **words: Any) -> Traced:
    low, high = words.get("min", words.get("min_val", low)), words.get("max", words.get("max_val", high))
    if low is not None and high is not None and float(low) < 0 < float(high) and float(low) > -float("inf"):
        return activating.clip(write, name, x, float(low), float(high))
    if low is None or float(low) != 0:
        raise Refused(f"its lower limit is {low}; it must be 0, because a firing rate is not negative")
    if high is None or float(high) == float("inf"):
        return _relu(write, name, x)
    if not float(high) > 0:
        raise Refused(f"its upper limit is {high}; it becomes the threshold, which must be above 0")
    top = torch.as_tensor(float(high), dtype=torch.float64)
    return write.add(name, "activation", (x,), {"function": "clip"}, {"threshold": top})


def _of_threshold(write: Writer, name: str, module: Any, x: Traced) -> Traced:
    return _clip(write, name, x, module.min_val, module.max_val)


def _of_relu6(write: Writer, name: str, *arguments: Any, **words: Any) -> Traced:
    return _clip(write, name, next(one for one in arguments if isinstance(one, Traced)), 0.0, 6.0)


# Calls without effect, and properties of a value


def _same(write: Writer, name: str, *arguments: Any, **words: Any) -> Any:
    """A call that does nothing in evaluation mode."""
    return next(argument for argument in arguments if isinstance(argument, Traced))


def _dropout(write: Writer, name: str, x: Traced, p: float = 0.5, training: bool = True, inplace: bool = False) -> Traced:
    if training and p > 0:
        raise Refused("it drops units in evaluation mode too; pass training=self.training")
    return x


def _size(write: Writer, name: str, x: Traced, dim: int | None = None) -> Any:
    return tuple(x.value.shape) if dim is None else x.value.shape[dim]


def _dimensions(write: Writer, name: str, x: Traced) -> int:
    return x.value.ndim


def _attribute(write: Writer, name: str, x: Any, attribute: str) -> Any:
    if not isinstance(x, Traced):
        return getattr(x, attribute)
    if attribute not in ("shape", "ndim", "dtype", "device"):
        raise Refused(f"it reads {attribute!r} of an activation")
    return tuple(x.value.shape) if attribute == "shape" else getattr(x.value, attribute)


def _of_module(function: Callable[..., Any], *fields: str) -> Callable[..., Any]:
    """A module's call as a call of its function, with the module's own settings."""

    def call(write: Writer, name: str, module: Any, x: Traced) -> Any:
        return function(write, name, x, **{field: getattr(module, field) for field in fields})

    return call


_AVERAGE = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
_MAXIMUM = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")

MODULES: Mapping[type[nn.Module], Callable[..., Any]] = {
    nn.Conv2d: layers.convolution,
    nn.Linear: layers.linear_layer,
    nn.BatchNorm1d: layers.batch_norm,
    nn.BatchNorm2d: layers.batch_norm,
    nn.AvgPool2d: _of_module(layers.average_pool, *_AVERAGE),
    nn.AdaptiveAvgPool2d: _of_module(layers.adaptive_pool, "output_size"),
    nn.MaxPool2d: _of_module(layers.max_pool, *_MAXIMUM),
    nn.ZeroPad1d: arrangement.zero_pad,
    nn.ZeroPad2d: arrangement.zero_pad,
    nn.Flatten: _of_module(arrangement.flatten, "start_dim", "end_dim"),
    nn.ReLU6: _of_relu6,
    nn.ReLU: _of_module(_relu),
    nn.Hardtanh: _of_threshold,
    nn.Dropout: _same,
    nn.Dropout1d: _same,
    nn.Dropout2d: _same,
    nn.Identity: _same,
    **activating.MODULES,
    **rearranging.MODULES,
    **signals.MODULES,
    **refusals.MODULES,
}
"""Searched in order: a subclass comes before its base class (ReLU6 is a Hardtanh). Activations that declare their
quantisation need no entry."""

CALLS: Mapping[Any, Callable[..., Any]] = {
    **refusals.CALLS,  # first, for translations below to take precedence
    **dict.fromkeys((operator.add, operator.iadd, torch.add), arrangement.add),
    **dict.fromkeys((operator.sub, operator.isub, torch.sub), arrangement.subtract),
    **dict.fromkeys((operator.mul, operator.imul, torch.mul), arrangement.multiply),
    **dict.fromkeys((operator.truediv, operator.itruediv, torch.div), arrangement.divide),
    **dict.fromkeys((operator.neg, torch.neg), arrangement.negative),
    **dict.fromkeys((torch.cat, torch.concat), arrangement.concatenate),
    **dict.fromkeys((torch.relu, functional.relu, functional.relu_), _relu),
    **dict.fromkeys((torch.clamp, torch.clip, functional.hardtanh), _clip),
    **dict.fromkeys((functional.dropout, functional.dropout1d, functional.dropout2d), _dropout),
    **dict.fromkeys((functional.conv2d, torch.conv2d), layers.convolved),
    torch.flatten: arrangement.flatten,
    torch.mean: layers.mean,
    torch.reshape: arrangement.reshape,
    torch.squeeze: arrangement.squeeze,
    torch.chunk: arrangement.chunk,
    torch.split: arrangement.split,
    functional.relu6: _of_relu6,
    functional.avg_pool2d: layers.average_pool,
    functional.adaptive_avg_pool2d: layers.adaptive_pool,
    functional.max_pool2d: layers.max_pool,
    functional.pad: arrangement.pad,
    functional.linear: layers.linear,
    operator.getitem: arrangement.item,
    **activating.CALLS,
    **rearranging.CALLS,
    **signals.CALLS,
    getattr: _attribute,
}

METHODS: Mapping[str, Callable[..., Any]] = {
    **refusals.METHODS,
    **dict.fromkeys(("relu", "relu_"), _relu),
    **dict.fromkeys(("add", "add_"), arrangement.add),
    **dict.fromkeys(("sub", "sub_"), arrangement.subtract),
    **dict.fromkeys(("mul", "mul_"), arrangement.multiply),
    **dict.fromkeys(("div", "div_"), arrangement.divide),
    **dict.fromkeys(("neg", "neg_"), arrangement.negative),
    **dict.fromkeys(("clamp", "clamp_", "clip", "clip_"), _clip),
    **dict.fromkeys(("view", "reshape"), arrangement.reshape),
    **dict.fromkeys(("contiguous", "detach", "clone"), _same),
    "flatten": arrangement.flatten,
    "mean": layers.mean,
    "size": _size,
    "squeeze": arrangement.squeeze,
    "chunk": arrangement.chunk,
    "split": arrangement.split,
    "dim": _dimensions,
    **activating.METHODS,
    **rearranging.METHODS,
}
