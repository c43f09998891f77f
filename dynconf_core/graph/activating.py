"""Translation of activations that declare their quantisation, and of those with two sides, whose negative inputs pass, too."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dynconf_core.activations.quantisation import Quantised
from dynconf_core.graph.writing import Refused, Traced, Writer


def quantised(write: Writer, name: str, module: Quantised, x: Traced) -> Traced:
    """The call of an activation that declares its quantisation."""
    declared = module.quantisation()
    levels, neurons = declared.levels, declared.neurons
    if isinstance(levels, bool) or not isinstance(levels, int) or levels < 1:
        raise Refused(f"its quantisation() has levels={levels!r}; give a whole number above 0")
    threshold = by_channel(declared.threshold, x, "threshold")
    least = float(threshold.min())
    if not least > 0:
        raise Refused(f"its threshold is {least}, which must be above 0: the training diverged")
    settings = {"function": "quantised", "levels": levels, "neurons": neurons}
    tensors = {"threshold": threshold}
    slope = by_channel(declared.slope, x, "slope")
    if bool(slope.any()):
        tensors["slope"] = slope
    for what, given in declared.charge().items():
        tensors[what] = by_channel(given, x, what)
        if not bool(((tensors[what] >= 0) & (tensors[what] <= 1)).all()):
            raise Refused(f"its {what} is {float(tensors[what].flatten()[0])}; give 0 to 1, in units of the threshold")
    return write.add(name, "activation", (x,), settings, tensors)


def by_channel(values: Any, x: Traced, what: str) -> Tensor:
    """One number ``()``, or one for each channel of ``x``, ``(C,)``, float64, from a tensor of any shape such as (1,) or
    (1, C, 1, 1).

    Raises:
        Refused: for another number of values, or values for rows or columns.
    """
    given = torch.as_tensor(values, dtype=torch.float64).detach()
    if given.numel() == 1:
        return given.reshape(())
    channels = x.value.shape[1]
    around = [size for size in given.shape if size != 1]
    from_the_end = given.shape[::-1]
    placed = given.ndim == 1 or (len(from_the_end) >= x.value.ndim - 1 and from_the_end[x.value.ndim - 2] == channels)
    if around != [channels] or not placed:
        raise Refused(
            f"its {what} has the shape {tuple(given.shape)}; give one number, or one for each of the {channels} channels"
        )
    return given.flatten()


def leaky(write: Writer, name: str, x: Traced, negative_slope: Any = 0.01, inplace: bool = False) -> Traced:
    """max(x, 0) + slope min(x, 0), for a slope that is one number or one for each channel."""
    slope = by_channel(negative_slope, x, "slope")
    tensors = {"slope": slope} if bool(slope.any()) else {}
    return write.add(name, "activation", (x,), {"function": "relu"}, tensors)


def clip(write: Writer, name: str, x: Traced, low: float, high: float) -> Traced:
    """The input limited to ``low < 0`` and ``high > 0``."""
    limits = {"threshold": torch.tensor(high, dtype=torch.float64), "below": torch.tensor(-low, dtype=torch.float64)}
    return write.add(name, "activation", (x,), {"function": "clip"}, {**limits, "slope": torch.ones((), dtype=torch.float64)})


def _leaky_layer(write: Writer, name: str, module: nn.LeakyReLU, x: Traced) -> Traced:
    return leaky(write, name, x, module.negative_slope)


def _parametric(write: Writer, name: str, x: Traced, weight: Tensor) -> Traced:
    return leaky(write, name, x, weight)


def _parametric_layer(write: Writer, name: str, module: nn.PReLU, x: Traced) -> Traced:
    return leaky(write, name, x, module.weight)


def _randomised(
    write: Writer,
    name: str,
    x: Traced,
    lower: float = 1 / 8,
    upper: float = 1 / 3,
    training: bool = False,
    inplace: bool = False,
) -> Traced:
    if training:
        raise Refused("its slopes are random in evaluation mode too; pass training=self.training")
    return leaky(write, name, x, (lower + upper) / 2)


def _randomised_layer(write: Writer, name: str, module: nn.RReLU, x: Traced) -> Traced:
    return _randomised(write, name, x, module.lower, module.upper)


def _absolute(write: Writer, name: str, x: Traced) -> Traced:
    return leaky(write, name, x, -1.0)


def hard_sigmoid(write: Writer, name: str, x: Traced, inplace: bool = False) -> Traced:
    """x / 6 + 1 / 2, limited to 0 and 1."""
    sixth, half = torch.tensor(1 / 6, dtype=torch.float64), torch.full((x.value.shape[1],), 0.5, dtype=torch.float64)
    scaled = write.add(f"{name}.scale", "scale", (x,), {}, {"weight": sixth, "bias": half})
    return write.add(name, "activation", (scaled,), {"function": "clip"}, {"threshold": torch.ones((), dtype=torch.float64)})


def _hard_sigmoid_layer(write: Writer, name: str, module: nn.Hardsigmoid, x: Traced) -> Traced:
    return hard_sigmoid(write, name, x)


MODULES: Mapping[type[nn.Module], Callable[..., Any]] = {
    nn.LeakyReLU: _leaky_layer,
    nn.PReLU: _parametric_layer,
    nn.RReLU: _randomised_layer,
    nn.Hardsigmoid: _hard_sigmoid_layer,
}
CALLS: Mapping[Any, Callable[..., Any]] = {
    **dict.fromkeys((functional.leaky_relu, functional.leaky_relu_), leaky),
    **dict.fromkeys((functional.prelu, torch.prelu), _parametric),
    **dict.fromkeys((functional.rrelu, torch.rrelu), _randomised),
    **dict.fromkeys((torch.abs, torch.absolute, abs), _absolute),
    functional.hardsigmoid: hard_sigmoid,
}
METHODS: Mapping[str, Callable[..., Any]] = {**dict.fromkeys(("abs", "absolute", "abs_"), _absolute), "prelu": _parametric}
