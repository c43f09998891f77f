"""Translation of calls that limit values: ReLU, clips, maxima and minima with constants, choices between value and constant."""

from numbers import Real
from typing import Any

import torch
from torch import Tensor

from dynconf_core.graph import activating, arrangement
from dynconf_core.graph.graph import Node
from dynconf_core.graph.precision import wanted_type
from dynconf_core.graph.writing import Left, Refused, Traced, Writer


def relu(write: Writer, name: str, x: Any, inplace: bool = False) -> Traced:
    if not isinstance(x, Traced):  # max(min(x, top), 0)
        return clip(write, name, x.of, 0.0, x.limit)
    return write.add(name, "activation", (x,), {"function": "relu"})


def clip(write: Writer, name: str, x: Traced | Left, low: Any = None, high: Any = None, **words: Any) -> Traced:
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
        return relu(write, name, x)
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


def at_least(write: Writer, name: str, x: Any, other: Any = None, *rest: Any, **words: Any) -> Any:
    """max(x, other), for a constant other, or for x times a constant."""
    if rest or (other is None and "min" not in words):
        raise Refused("it is one number for the whole batch; use amax over the image, or a max pool")
    if isinstance(x, Traced) and isinstance(other, Traced):
        return _larger(write, name, x, other)
    x, other = _value_and_limit(x, words.get("min", other))
    return clip(write, name, x, other, None)


def at_most(write: Writer, name: str, x: Any, other: Any = None, *rest: Any, **words: Any) -> Any:
    """min(x, other), for a constant other."""
    if rest or isinstance(other, int) or {"dim", "keepdim"} & words.keys() or (other is None and "max" not in words):
        raise Refused("a minimum over values has no spiking counterpart; use the maximum, amax or a max pool")
    x, other = _value_and_limit(x, words.get("max", other))
    return clip(write, name, x, None, other)


def _larger(write: Writer, name: str, x: Traced, other: Traced) -> Traced:
    """max(x, a x), a LeakyReLU of x if a <= 1, and of a x, with the slope 1 / a, if a >= 1."""
    for value, multiple in ((x, other), (other, x)):
        factor = _factor(write, multiple, value)
        if factor is not None and bool((factor <= 1).all()):
            return activating.leaky(write, name, value, factor)
        if factor is not None and bool((factor >= 1).all()):
            return activating.leaky(write, name, multiple, 1 / factor)
    raise Refused(
        "the larger of two activations has no spiking counterpart; only the larger of x and a constant, or of x and a "
        "constant times x (LeakyReLU), has"
    )


def clamp_min(write: Writer, name: str, x: Traced, min: Any) -> Any:
    return clip(write, name, x, min, None)


def clamp_max(write: Writer, name: str, x: Traced, max: Any) -> Any:
    return clip(write, name, x, None, max)


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


def threshold(write: Writer, name: str, x: Traced, threshold: float, value: float, inplace: bool = False) -> Traced:
    if threshold != 0 or value != 0:
        raise Refused(f"threshold={threshold}, value={value}; only Threshold(0, 0), which is ReLU, has a spiking counterpart")
    return relu(write, name, x)


def hardtanh_layer(write: Writer, name: str, module: Any, x: Traced) -> Traced:
    return clip(write, name, x, module.min_val, module.max_val)


def relu6(write: Writer, name: str, *arguments: Any, **words: Any) -> Traced:
    return clip(write, name, next(one for one in arguments if isinstance(one, Traced | Left)), 0.0, 6.0)


# Choosing by a comparison

COMPARED = "a comparison has no spiking counterpart; as torch.where(x > 0, x, 0) and x * (x > 0) it is ReLU"


def above(write: Writer, name: str, x: Any, other: Any) -> Any:
    """x > other or x >= other, of which one is constant."""
    raise _compared(x, other, "above", "below")


def below(write: Writer, name: str, x: Any, other: Any) -> Any:
    """x < other or x <= other, of which one is constant."""
    raise _compared(x, other, "below", "above")


def _compared(x: Any, other: Any, call: str, reverse: str) -> Refused:
    if isinstance(x, Traced) and not isinstance(other, Traced | Left):
        return Refused(COMPARED, Left(call, x, _number(other)))
    if isinstance(other, Traced) and not isinstance(x, Traced | Left):
        return Refused(COMPARED, Left(reverse, other, _number(x)))
    return Refused(COMPARED)


def where(write: Writer, name: str, condition: Any, chosen: Any = None, other: Any = None) -> Traced:
    """where(x > c, x, c), which is max(x, c), and its other forms; one may be the same with another limit."""
    if isinstance(chosen, Left) and not isinstance(condition, Left):  # the method x.where(condition, other)
        condition, chosen = chosen, condition
    if not isinstance(condition, Left) or condition.call not in ("above", "below"):
        raise Refused("only a choice by comparing the chosen value with a constant, torch.where(x > 0, x, 0), is supported")
    if condition.call == "below":
        chosen, other = other, chosen
    # x above the limit: ``chosen``, else ``other``; one of them is the limit.
    x, limit = condition.of, condition.limit
    if _same_beyond(write, chosen, x) and not isinstance(other, Traced | Left) and _number(other) == limit:
        return clip(write, name, chosen, limit, None)
    if _same_beyond(write, other, x) and not isinstance(chosen, Traced | Left) and _number(chosen) == limit:
        return clip(write, name, other, None, limit)
    slope = _factor(write, other, x) if limit == 0 and isinstance(chosen, Traced) and chosen.name == x.name else None
    if slope is not None:
        return activating.leaky(write, name, x, slope)
    raise Refused("only a choice between a value and the constant that it is compared with is supported")


def masked_fill(write: Writer, name: str, x: Any, mask: Any, value: Any) -> Traced:
    """The value where a comparison of x holds, else x; or zeros where a constant mask holds."""
    if isinstance(mask, Left):
        return where(write, name, mask, value, x)
    if not isinstance(x, Traced) or not isinstance(mask, Tensor) or isinstance(value, Traced | Left) or _number(value) != 0:
        raise Refused("only x.masked_fill(x < 0, 0), which is ReLU, and zeros by a constant mask are supported")
    return arrangement.multiply(write, name, x, (~mask).double())


def _same_beyond(write: Writer, value: Any, x: Traced) -> bool:
    """Whether the value is x, or x with a limit on its other side."""
    if isinstance(value, Left):
        return value.call == "clamp_max" and value.of.name == x.name
    if not isinstance(value, Traced):
        return False
    before = write.node(value)
    return value.name == x.name or (_one_sided(before) and before.inputs == (x.name,))


def _factor(write: Writer, value: Any, x: Traced) -> Tensor | None:
    """The number by which x has been multiplied; None if the value is something else."""
    node = write.node(value) if isinstance(value, Traced) else None
    times = node is not None and node.kind == "scale" and node.inputs == (x.name,) and "bias" not in node.tensors
    return node.tensors["weight"] if node is not None and times else None


def multiply(write: Writer, name: str, x: Any, other: Any) -> Traced:
    """x * other, where one of the two is constant, or the comparison of x with 0."""
    for value, mask in ((x, other), (other, x)):
        if isinstance(mask, Left) and mask.call == "above" and isinstance(value, Traced):
            if mask.limit != 0 or mask.of.name != value.name:
                raise Refused("only x * (x > 0), which is ReLU, is a supported product with a comparison")
            return relu(write, name, value)
    if isinstance(x, Left) or isinstance(other, Left):
        raise Refused(COMPARED)
    return arrangement.multiply(write, name, x, other)


def cast(write: Writer, name: str, x: Any, *arguments: Any, **words: Any) -> Any:
    """A change of type or device; a comparison stays one."""
    dtype = wanted_type("to", (*arguments, *words.values()))
    if isinstance(x, Left):
        raise Refused(COMPARED, x)
    if dtype is not None and not dtype.is_floating_point:
        raise Refused(f"it converts to {dtype}; activations are real numbers")
    return x
