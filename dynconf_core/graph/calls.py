"""Tables of the PyTorch modules, functions and methods that a network may call, each with its translation into graph nodes."""

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from dynconf_core.graph import activating, arrangement, expressing, layers, limits, rearranging, refusals, signals
from dynconf_core.graph.precision import CASTS, called
from dynconf_core.graph.writing import Left, Refused, Traced, Writer, of_module


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


def _dropout(
    write: Writer, name: str, x: Traced, p: float = 0.5, training: bool = True, inplace: bool = False, train: bool | None = None
) -> Traced:
    if (training if train is None else train) and p > 0:
        raise Refused("it drops units in evaluation mode too; pass training=self.training")
    return x


_AVERAGE = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
_MAXIMUM = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")

MODULES: Mapping[type[nn.Module], Callable[..., Any]] = {
    **refusals.MODULES,  # first, for translations below to take precedence
    nn.Conv2d: rearranging.of_convolution(layers.convolved),
    nn.Linear: layers.linear_layer,
    **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm), layers.batch_norm),
    **dict.fromkeys((nn.InstanceNorm1d, nn.InstanceNorm2d), layers.instance_norm),
    nn.AvgPool2d: of_module(layers.average_pool, *_AVERAGE),
    nn.AdaptiveAvgPool2d: of_module(layers.adaptive_pool, "output_size"),
    nn.MaxPool2d: of_module(layers.max_pool, *_MAXIMUM),
    nn.ZeroPad1d: arrangement.zero_pad,
    nn.ZeroPad2d: arrangement.zero_pad,
    nn.Flatten: of_module(arrangement.flatten, "start_dim", "end_dim"),
    nn.Softmax: of_module(_softmax, "dim"),
    nn.LogSoftmax: of_module(_log_softmax, "dim"),
    nn.ReLU6: limits.relu6,
    nn.ReLU: of_module(limits.relu),
    nn.Hardtanh: limits.hardtanh_layer,
    **dict.fromkeys((nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout), _same),
    nn.Identity: _same,
    **activating.MODULES,
    **rearranging.MODULES,
    **signals.MODULES,
    **expressing.MODULES,
}
"""Searched in order: a subclass comes before its base class (ReLU6 is a Hardtanh). Activations that declare their
quantisation need no entry. The code of a module of PyTorch without an entry is run, and its functions are looked up."""

CALLS: Mapping[Any, Callable[..., Any]] = {
    **dict.fromkeys((torch.add, operator.iadd), arrangement.add),
    **dict.fromkeys((torch.sub, torch.subtract, operator.isub), arrangement.subtract),
    **dict.fromkeys((torch.mul, torch.multiply, operator.imul), limits.multiply),
    **dict.fromkeys((torch.div, torch.divide, torch.true_divide, operator.truediv, operator.itruediv), arrangement.divide),
    **dict.fromkeys((torch.neg, torch.negative), arrangement.negative),
    **dict.fromkeys((torch.cat, torch.concat, torch.concatenate), arrangement.concatenate),
    **dict.fromkeys((torch.relu, functional.relu), limits.relu),
    **dict.fromkeys((torch.clamp, torch.clip, functional.hardtanh), limits.clip),
    **dict.fromkeys((functional.dropout, functional.dropout1d, functional.dropout2d, functional.dropout3d), _dropout),
    **dict.fromkeys((functional.alpha_dropout, functional.feature_alpha_dropout, torch.feature_dropout), _dropout),
    **dict.fromkeys((torch.max, torch.maximum), layers.largest),
    **dict.fromkeys((torch.min, torch.minimum), limits.at_most),
    **dict.fromkeys((torch.matmul, torch.mm), layers.product),
    torch.clamp_min: limits.clamp_min,
    torch.clamp_max: limits.clamp_max,
    torch.threshold: limits.threshold,
    **dict.fromkeys((torch.gt, torch.ge, torch.greater, torch.greater_equal), limits.above),
    **dict.fromkeys((torch.lt, torch.le, torch.less, torch.less_equal), limits.below),
    torch.where: limits.where,
    torch.masked_fill: limits.masked_fill,
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
    functional.relu6: limits.relu6,
    functional.softmax: _softmax,
    functional.log_softmax: _log_softmax,
    functional.batch_norm: layers.batch_normalised,
    functional.instance_norm: layers.instance_normalised,
    functional.avg_pool2d: layers.average_pool,
    functional.adaptive_avg_pool2d: layers.adaptive_pool,
    functional.adaptive_max_pool2d: layers.adaptive_max_pool,
    functional.max_pool2d: layers.max_pool,
    functional.max_pool2d_with_indices: layers.max_pool_with_indices,
    functional.max_pool1d_with_indices: layers.signal_max_pool_with_indices,
    functional.adaptive_max_pool2d_with_indices: layers.adaptive_max_pool_with_indices,
    functional.pad: arrangement.pad,
    functional.linear: layers.linear,
    **activating.CALLS,
    **rearranging.CALLS,
    **signals.CALLS,
    **expressing.CALLS,
}

METHODS: Mapping[str, Callable[..., Any]] = {
    "relu_": limits.relu,
    "relu6_": limits.relu6,
    **dict.fromkeys(("clamp_", "clip_", "hardtanh_"), limits.clip),
    "clamp_min_": limits.clamp_min,
    "clamp_max_": limits.clamp_max,
    "threshold_": limits.threshold,
    "add_": arrangement.add,
    "sub_": arrangement.subtract,
    "rsub": arrangement.subtract_from,
    "mul_": limits.multiply,
    "div_": arrangement.divide,
    **dict.fromkeys(("rdiv", "rtruediv"), arrangement.divided_by),
    "neg_": arrangement.negative,
    **dict.fromkeys(("view", "ravel"), arrangement.reshape),
    "squeeze_": arrangement.squeeze,
    "split_with_sizes": arrangement.split,
    **dict.fromkeys(("contiguous", "detach", "detach_", "clone", "data", "alias", "positive", "requires_grad_"), _same),
    **dict.fromkeys(CASTS, limits.cast),
    **activating.METHODS,
    **rearranging.METHODS,
    **expressing.METHODS,
    "masked_fill_": limits.masked_fill,
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

COMPLETING: Mapping[Callable[..., Any], tuple[str, ...]] = {
    **dict.fromkeys(
        (limits.relu, limits.clip, limits.hardtanh_layer, limits.relu6, limits.clamp_min, layers.largest), ("clamp_max",)
    ),
    **dict.fromkeys((limits.where, limits.masked_fill, expressing.assign), ("clamp_max", "above", "below")),
    limits.multiply: ("above",),
    limits.cast: ("above",),
}
"""Translations that make convertible what other calls have left unfinished, with these calls (see ``writing.Left``)."""

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
