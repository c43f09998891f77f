"""What the network's code gets in place of tensors while it is traced: values without numbers."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from dynconf_core.errors import InputError
from dynconf_core.graph.precision import changed
from dynconf_core.graph.writing import Left, Traced

CPU = torch.device("cpu")


class ReadsValues(InputError):
    """The network's code asks for the numbers in a tensor that depends on its input."""


class Unsupported(NamedTuple):
    """A value that cannot be converted.

    Attributes:
        reason: raised if the output depends on it.
        value: of its shape and type, without values.
        left: what another call can still make convertible.
    """

    reason: InputError
    value: Tensor
    left: Left | None = None


class Recorded(Tensor):
    """What the network's code gets in place of a tensor: a value that depends on the input, without its numbers."""

    held: Traced | Unsupported

    @staticmethod
    def __new__(cls, held: Traced | Unsupported) -> "Recorded":
        value = held.value
        recorded: Recorded = Tensor._make_wrapper_subclass(cls, value.shape, dtype=value.dtype, device=CPU)
        recorded.held = held
        return recorded

    def __init__(self, held: Traced | Unsupported) -> None:
        """All is done in ``__new__``."""

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        raise ReadsValues(f"{func} reads a value of a network that was being traced: it has none.")


def given(held: Any, recorded: list[Recorded], copied: bool) -> Any:
    """What the network's code gets: a call that changes nothing returns its argument itself, so that a change in place is seen
    under both names."""
    if isinstance(held, Traced | Unsupported):
        same = next((one for one in recorded if one.held is held), None)
        return same if same is not None and not copied else Recorded(held)
    if isinstance(held, dict):
        return {key: given(part, recorded, copied) for key, part in held.items()}
    if isinstance(held, list | tuple):
        parts = [given(part, recorded, copied) for part in held]
        return type(held)(*parts) if hasattr(held, "_fields") else type(held)(parts)
    return held


def meta(one: Tensor) -> Tensor:
    return one.held.value.clone() if isinstance(one, Recorded) else one.to("meta")


def recorded_in(value: Any) -> list[Recorded]:
    found: list[Recorded] = []

    def look(one: Tensor) -> Tensor:
        if isinstance(one, Recorded):
            found.append(one)
        return one

    changed(value, look)
    return found


def held_in(value: Any, kind: Any = Traced) -> list[Any]:
    if isinstance(value, kind):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [one for part in parts for one in held_in(part, kind)]
