"""The vocabulary of the translation into graph nodes: traced values, the writer of nodes, and refusals."""

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from dynconf_core.graph.graph import Settings


class Refused(Exception):
    """The call cannot be converted; the message gives the reason and an alternative."""


class Traced(NamedTuple):
    """A value that depends on the network's input: the name of the node that computes it, and its value for the example."""

    name: str
    value: Tensor


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


def pair(value: Any) -> tuple[int, int]:
    """One size for both directions, or one for each."""
    return (int(value), int(value)) if isinstance(value, int) else (int(value[0]), int(value[-1]))


def constant(value: Any, x: Traced) -> Tensor:
    """A number, or one per channel of ``x``, as float64 ``()`` or ``(C,)``.

    Raises:
        Refused: for anything else.
    """
    if isinstance(value, int | float):
        return torch.as_tensor(float(value), dtype=torch.float64)
    if isinstance(value, Tensor) and value.numel() == 1:
        return value.detach().double().reshape(())
    channels = x.value.shape[1]
    if isinstance(value, Tensor) and value.ndim <= x.value.ndim:
        shape = (*[1] * (x.value.ndim - value.ndim), *value.shape)
        if shape == (1, channels, *[1] * (x.value.ndim - 2)):
            return value.detach().double().flatten()
    given = f"the shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"the type {type(value).__name__}"
    raise Refused(f"its constant has {given}; one number, or one for each of the {channels} channels, works")


def first_line(error: Exception) -> str:
    """The error message, shortened to one line."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
