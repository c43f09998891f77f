"""The vocabulary of the translation into graph nodes: traced values, the writer of nodes, and refusals."""

from collections.abc import Callable
from numbers import Real
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from dynconf_core.graph.graph import Node, Settings


class Refused(Exception):
    """The call cannot be converted; the message gives the reason and an alternative.

    Attributes:
        left: what the call computes, where another call can still make it convertible.
    """

    def __init__(self, message: str, left: "Left | None" = None) -> None:
        super().__init__(message)
        self.left = left


class Traced(NamedTuple):
    """A value that depends on the network's input: the name of the node that computes it, and a tensor of its shape and type,
    batch first, that holds no numbers (on the meta device)."""

    name: str
    value: Tensor


class Left(NamedTuple):
    """A call that converts together with another one only.

    Attributes:
        call: "softmax" or "log_softmax", which may come last; "clamp_max", which needs a lower limit; "above" or "below", a
            comparison, which needs a choice between its input and its limit.
        of: its input.
        limit: the number with which the input is limited or compared.
    """

    call: str
    of: Traced
    limit: float = 0.0


class Writer(Protocol):
    """Records operations as nodes."""

    def add(
        self,
        name: str,
        kind: str,
        inputs: tuple[Traced, ...],
        settings: Settings | None = None,
        tensors: dict[str, Tensor] | None = None,
    ) -> Traced:
        """Add a node and return its value."""

    def node(self, x: Traced) -> Node:
        """The node that computes a value."""

    def of(self, name: str) -> Traced:
        """The value of a node."""


def of_module(function: Callable[..., Any], *fields: str) -> Callable[..., Any]:
    """A module's call as a call of its function, with the module's own settings."""

    def call(write: Writer, name: str, module: Any, x: Traced) -> Any:
        return function(write, name, x, **{field: getattr(module, field) for field in fields})

    return call


def layer_tensors(weight: Tensor, bias: Tensor | None) -> dict[str, Tensor]:
    """The tensors of a convolution or linear layer."""
    return {"weight": weight} if bias is None else {"weight": weight, "bias": bias}


def pair(value: Any) -> tuple[int, int]:
    """One size for both directions, or one for each."""
    return (int(value), int(value)) if isinstance(value, int) else (int(value[0]), int(value[-1]))


def constant(value: Any, x: Traced) -> Tensor:
    """A number, or one per channel of ``x``, as float64 ``()`` or ``(C,)``.

    Raises:
        Refused: for anything else.
    """
    if isinstance(value, Real):
        return torch.as_tensor(float(value), dtype=torch.float64)
    channels = x.value.shape[1] if x.value.ndim > 1 else 0
    if isinstance(value, Tensor) and _fits(value, x):
        field = value.detach().double().reshape(*[1] * (x.value.ndim - value.ndim), *value.shape)
        if field.numel() == 1:
            return field.reshape(())
        first = field[:1].reshape(1, field.shape[1], -1)[:, :, :1].reshape(1, -1, *[1] * (field.ndim - 2))
        if field.shape[1] == channels and bool((field == first).all()):
            return first.flatten()
        if bool((field == first.flatten()[0]).all()):
            return first.flatten()[0]
    given = f"the shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"the type {type(value).__name__}"
    raise Refused(f"its constant has {given}; one number, or one for each of the {channels} channels, works")


def _fits(value: Tensor, x: Traced) -> bool:
    """Whether x keeps its shape when the two are combined."""
    sizes = zip(reversed(value.shape), reversed(x.value.shape), strict=False)
    return value.ndim <= x.value.ndim and all(size in (1, wanted) for size, wanted in sizes)


def first_line(error: BaseException) -> str:
    """The error message, shortened to one line."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
