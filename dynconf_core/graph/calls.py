"""Tables of the PyTorch modules, functions and methods that a network may call, each with its translation into graph nodes."""

import operator
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dynconf_core.graph import activating, arrangement, layers, rearranging, refusals, signals
from dynconf_core.graph.graph import Node
from dynconf_core.graph.precision import CASTS, called, wanted_type
from dynconf_core.graph.writing import Left, Refused, Traced, Writer

# Activations


def _relu(write: Writer, name: str, x: Any, inplace: bool = False) -> Traced:
    if not isinstance(x, Traced):  # max(min(x, top), 0)
        return _clip(write, name, x.of, 0.0, x.limit)
    return write.add(name, "activation", (x,), {"function": "relu"})


def _clip(write: Writer, name: str, x: Traced | Left, low: Any = None, high: Any = None, **words: Any) -> Traced:
    low, high = words.get("min", words.get("min_val", low)), words.get("max", words.get("max_val", high))
    low = None if low is None else _number(low)
    high = float("inf") if high is None else _number(high)
    if isinstance(x, Left):
        high = min(high, x.limit)
        x = x.of
    if low is None:
        return _limited(write, name, x, high)
    if -float("inf") < low < 0 < high:
        return activating.clip(write, name, x, low, high)
    if low != 0:
        raise Refused(f"its lower limit is {low}; it must be 0, because a firing rate is not negative")
    if _one_sided(write.node(x)) and high < float("inf"):
        return _limited(write, name, x, high)
    if high == float("inf"):
        return _relu(write, name, x)
    return _clipped(write, name, x, high)


def _limited(write: Writer, name: str, x: Traced, high: float) -> Traced:
    """min(x, high), after or before a limit of 0."""
    before = write.node(x)
    if _one_sided(before):
        top = before.tensors.get("threshold")
        limit = high if top is None else min(high, float(top))
        return _clipped(write, name, write.of(before.inputs[0]), limit)
    raise Refused("it has an upper limit alone; give it the lower limit 0 too, as clamp(0, top)", Left("clamp_max", x, high))


def _one_sided(node: Node) -> bool:
    """Whether a node is an activation that is 0 below 0 and not quantised."""
    return node.kind == "activation" and node.settings["function"] in ("relu", "clip") and "slope" not in node.tensors


def _clipped(write: Writer, name: str, x: Traced, high: float) -> Traced:
    if not high > 0:
        raise Refused(f"its upper limit is {high}; it becomes the threshold, which must be above 0")
    top = torch.as_tensor(high, dtype=torch.float64)
    return write.add(name, "activation", (x,), {"function": "clip"}, {"threshold": top})


def _at_least(write: Writer, name: str, x: Any, other: Any = None, *rest: Any, **words: Any) -> Any:
    """max(x, other), for a constant other; torch.max over dimensions is refused."""
    if rest or isinstance(other, int) or {"dim", "keepdim"} & words.keys() or (other is None and "min" not in words):
        raise Refused("a maximum with its positions has no spiking counterpart; use amax or a max pool")
    x, other = _value_and_limit(x, words.get("min", other))
    return _clip(write, name, x, other, None)


def _at_most(write: Writer, name: str, x: Any, other: Any = None, *rest: Any, **words: Any) -> Any:
    """min(x, other), for a constant other."""
    if rest or isinstance(other, int) or {"dim", "keepdim"} & words.keys() or (other is None and "max" not in words):
        raise Refused("a minimum over values has no spiking counterpart")
    x, other = _value_and_limit(x, words.get("max", other))
    return _clip(write, name, x, None, other)


def _clamp_min(write: Writer, name: str, x: Traced, min: Any) -> Any:
    return _clip(write, name, x, min, None)


def _clamp_max(write: Writer, name: str, x: Traced, max: Any) -> Any:
    return _clip(write, name, x, None, max)


def _value_and_limit(x: Any, other: Any) -> tuple[Any, Any]:
    if isinstance(other, Traced | Left):
        x, other = other, x
    if isinstance(other, Traced | Left):
        raise Refused("the larger of two activations has no spiking counterpart; only a constant limit has")
    return x, other


def _number(value: Any) -> float:
    """A limit as one number."""
    if isinstance(value, Tensor):
        if value.numel() != 1 and not bool((value == value.flatten()[0]).all()):
            raise Refused("its limit differs from place to place; give one number")
        return float(value.flatten()[0])
    if not isinstance(value, Real):
        raise Refused(f"its limit is of the type {type(value).__name__}; give one number")
    return float(value)


def _threshold(write: Writer, name: str, x: Traced, threshold: float, value: float, inplace: bool = False) -> Traced:
    if threshold != 0 or value != 0:
        raise Refused(f"threshold={threshold}, value={value}; only Threshold(0, 0), which is ReLU, has a spiking counterpart")
    return _relu(write, name, x)


def _of_threshold(write: Writer, name: str, module: Any, x: Traced) -> Traced:
    return _clip(write, name, x, module.min_val, module.max_val)


def _of_relu6(write: Writer, name: str, *arguments: Any, **words: Any) -> Traced:
    return _clip(write, name, next(one for one in arguments if isinstance(one, Traced | Left)), 0.0, 6.0)


def _softmax(write: Writer, name: str, x: Traced, dim: Any = None, *rest: Any, **words: Any) -> Traced:
    return _probabilities(x, dim, "softmax")


def _log_softmax(write: Writer, name: str, x: Traced, dim: Any = None, *rest: Any, **words: Any) -> Traced:
    return _probabilities(x, dim, "log_softmax")


def _probabilities(x: Traced, dim: Any, call: str) -> Traced:
    last = x.value.ndim == 2 and dim in (None, 1, -1)
    raise Refused(f"{refusals.SOFTMAX.reason}; {refusals.SOFTMAX.instead}", Left(call, x) if last else None)


# Calls without effect


def _same(write: Writer, name: str, *arguments: Any, **words: Any) -> Any:
    """A call that does nothing in evaluation mode."""
    return next(argument for argument in arguments if isinstance(argument, Traced))


def _cast(write: Writer, name: str, x: Traced, *arguments: Any, **words: Any) -> Any:
    dtype = wanted_type("to", (*arguments, *words.values()))
    if dtype is not None and not dtype.is_floating_point:
        raise Refused(f"it converts to {dtype}; activations are real numbers")
    return x


def _dropout(
    write: Writer, name: str, x: Traced, p: float = 0.5, training: bool = True, inplace: bool = False, train: bool | None = None
) -> Traced:
    if (training if train is None else train) and p > 0:
        raise Refused("it drops units in evaluation mode too; pass training=self.training")
    return x


def _of_module(function: Callable[..., Any], *fields: str) -> Callable[..., Any]:
    """A module's call as a call of its function, with the module's own settings."""

    def call(write: Writer, name: str, module: Any, x: Traced) -> Any:
        return function(write, name, x, **{field: getattr(module, field) for field in fields})

    return call


_AVERAGE = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
_MAXIMUM = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")

MODULES: Mapping[type[nn.Module], Callable[..., Any]] = {
    **refusals.MODULES,  # first, for translations below to take precedence
    nn.Conv2d: layers.convolution,
    nn.Linear: layers.linear_layer,
    **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm), layers.batch_norm),
    **dict.fromkeys((nn.InstanceNorm1d, nn.InstanceNorm2d), layers.instance_norm),
    nn.AvgPool2d: _of_module(layers.average_pool, *_AVERAGE),
    nn.AdaptiveAvgPool2d: _of_module(layers.adaptive_pool, "output_size"),
    nn.MaxPool2d: _of_module(layers.max_pool, *_MAXIMUM),
    nn.ZeroPad1d: arrangement.zero_pad,
    nn.ZeroPad2d: arrangement.zero_pad,
    nn.Flatten: _of_module(arrangement.flatten, "start_dim", "end_dim"),
    nn.Softmax: _of_module(_softmax, "dim"),
    nn.LogSoftmax: _of_module(_log_softmax, "dim"),
    nn.ReLU6: _of_relu6,
    nn.ReLU: _of_module(_relu),
    nn.Hardtanh: _of_threshold,
    **dict.fromkeys((nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout), _same),
    nn.Identity: _same,
    **activating.MODULES,
    **rearranging.MODULES,
    **signals.MODULES,
}
"""Searched in order: a subclass comes before its base class (ReLU6 is a Hardtanh). Activations that declare their
quantisation need no entry. The code of a module of PyTorch without an entry is run, and its functions are looked up."""

CALLS: Mapping[Any, Callable[..., Any]] = {
    **dict.fromkeys((torch.add, operator.iadd), arrangement.add),
    **dict.fromkeys((torch.sub, torch.subtract, operator.isub), arrangement.subtract),
    **dict.fromkeys((torch.mul, torch.multiply, operator.imul), arrangement.multiply),
    **dict.fromkeys((torch.div, torch.divide, torch.true_divide, operator.truediv, operator.itruediv), arrangement.divide),
    **dict.fromkeys((torch.neg, torch.negative), arrangement.negative),
    **dict.fromkeys((torch.cat, torch.concat, torch.concatenate), arrangement.concatenate),
    **dict.fromkeys((torch.relu, functional.relu), _relu),
    **dict.fromkeys((torch.clamp, torch.clip, functional.hardtanh), _clip),
    **dict.fromkeys((functional.dropout, functional.dropout1d, functional.dropout2d, functional.dropout3d), _dropout),
    **dict.fromkeys((functional.alpha_dropout, functional.feature_alpha_dropout, torch.feature_dropout), _dropout),
    **dict.fromkeys((torch.max, torch.maximum), _at_least),
    **dict.fromkeys((torch.min, torch.minimum), _at_most),
    **dict.fromkeys((torch.matmul, torch.mm), layers.product),
    torch.clamp_min: _clamp_min,
    torch.clamp_max: _clamp_max,
    torch.threshold: _threshold,
    torch.addmm: layers.product_and_sum,
    torch.mean: layers.mean,
    torch.sum: layers.total,
    torch.amax: layers.maximum,
    torch.reshape: arrangement.reshape,
    torch.flatten: arrangement.flatten,
    torch.squeeze: arrangement.squeeze,
    torch.chunk: arrangement.chunk,
    torch.split: arrangement.split,
    torch.tensor_split: arrangement.tensor_split,
    torch.unbind: arrangement.unbind,
    operator.getitem: arrangement.item,
    functional.conv2d: layers.convolved,
    functional.relu6: _of_relu6,
    functional.softmax: _softmax,
    functional.log_softmax: _log_softmax,
    functional.batch_norm: layers.batch_normalised,
    functional.instance_norm: layers.instance_normalised,
    functional.avg_pool2d: layers.average_pool,
    functional.adaptive_avg_pool2d: layers.adaptive_pool,
    functional.adaptive_max_pool2d: layers.adaptive_max_pool,
    functional.max_pool2d: layers.max_pool,
    functional.pad: arrangement.pad,
    functional.linear: layers.linear,
    **activating.CALLS,
    **rearranging.CALLS,
    **signals.CALLS,
}

METHODS: Mapping[str, Callable[..., Any]] = {
    "relu_": _relu,
    "relu6_": _of_relu6,
    **dict.fromkeys(("clamp_", "clip_", "hardtanh_"), _clip),
    "clamp_min_": _clamp_min,
    "clamp_max_": _clamp_max,
    "threshold_": _threshold,
    "add_": arrangement.add,
    "sub_": arrangement.subtract,
    "rsub": arrangement.subtract_from,
    "mul_": arrangement.multiply,
    "div_": arrangement.divide,
    **dict.fromkeys(("rdiv", "rtruediv"), arrangement.divided_by),
    "neg_": arrangement.negative,
    **dict.fromkeys(("view", "ravel"), arrangement.reshape),
    "squeeze_": arrangement.squeeze,
    "split_with_sizes": arrangement.split,
    **dict.fromkeys(("contiguous", "detach", "detach_", "clone", "data", "alias", "positive", "requires_grad_"), _same),
    **dict.fromkeys(CASTS, _cast),
    **activating.METHODS,
    **rearranging.METHODS,
    **{name: rearranging.by_attribute(name) for name in ("T", "mT")},
    **dict.fromkeys(("view_as", "reshape_as", "expand_as"), arrangement.shaped_as),
}
"""Methods and attributes of tensors that are not functions too."""

FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    **{called(function): make for function, make in refusals.CALLS.items()},
    **refusals.METHODS,
    **{called(function): make for function, make in CALLS.items()},
    **METHODS,
}
"""Translations by the name of the call: an operator, a function and a method of one name are one operation."""

COMPLETING = frozenset((_relu, _clip, _of_threshold, _of_relu6, _clamp_min, _at_least))
"""Translations that give a value limited from above its lower limit."""

VALUES = frozenset(
    (
        *("__bool__", "__int__", "__float__", "__complex__", "__index__", "__contains__", "item", "tolist", "numpy", "array"),
        *("equal", "allclose", "is_nonzero", "dlpack", "reduce_ex", "nonzero"),
    )
)
"""Calls whose result depends on the values of a tensor."""
PROPERTIES = frozenset(
    (
        *("shape", "size", "dim", "ndim", "ndimension", "numel", "nelement", "len", "stride", "storage_offset", "element_size"),
        *(
            "dtype",
            "device",
            "layout",
            "names",
            "is_cuda",
            "is_cpu",
            "is_meta",
            "is_mps",
            "is_xpu",
            "is_sparse",
            "is_quantized",
        ),
        *("is_floating_point", "is_complex", "is_signed", "is_inference", "is_leaf", "is_nested", "get_device"),
        *("requires_grad", "grad", "grad_fn", "retain_grad", "result_type", "itemsize", "nbytes", "is_same_size", "is_conj"),
        *("zeros_like", "ones_like", "full_like", "empty_like", "new_zeros", "new_ones", "new_full", "new_empty", "new_tensor"),
    )
)
"""Calls whose result depends only on the shape and the type of a tensor."""
