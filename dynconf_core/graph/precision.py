"""Running a network's own code in float64 on the CPU, whatever precision and device it asks for.

Casts between floating-point types change nothing, devices are ignored, and constants that the code makes in a smaller type are
widened. Active in one thread only.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

CASTS = {
    "float": torch.float64,
    "double": torch.float64,
    "half": torch.float64,
    "bfloat16": torch.float64,
    "to": None,
    "type": None,
    "type_as": None,
    "cuda": None,
    "cpu": None,
}
"""Methods that change the type of the values or their device."""


_NUMBERS = ("bool", "int", "float", "complex", "index", "contains")
"""Operators that have the name of a method which does something else."""


def called(function: Any) -> str:
    """The name under which a function, method, operator or attribute of a tensor is called: "add" for ``+``."""
    name = str(getattr(function, "__name__", function))
    if name in ("__get__", "__set__", "__delete__"):
        attribute = str(function.__self__.__name__)
        return attribute if name == "__get__" else f"{attribute} ="
    if name.startswith("__") and name.endswith("__"):
        return name if name[2:-2] in _NUMBERS else name[2:-2]
    return name.split(".")[0].lstrip("_")


def changed(value: Any, change: Callable[[Tensor], Any]) -> Any:
    """The value with every tensor in it, at any depth of lists, tuples, dictionaries and slices, replaced."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, list):
        return [changed(part, change) for part in value]
    if isinstance(value, tuple):
        parts = [changed(part, change) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if isinstance(value, dict):
        return {key: changed(part, change) for key, part in value.items()}
    if isinstance(value, slice):
        return slice(*(changed(part, change) for part in (value.start, value.stop, value.step)))
    return value


def wanted_type(name: str, arguments: Iterable[Any]) -> torch.dtype | None:
    """The type of values to which the call of a cast converts; None for its present one."""
    if name in CASTS and CASTS[name] is not None:
        return CASTS[name]
    types = [one.dtype if isinstance(one, Tensor) else one for one in arguments]
    named = {"torch.FloatTensor": torch.float32, "torch.DoubleTensor": torch.float64, "torch.LongTensor": torch.int64}
    types = [named.get(one, one) if isinstance(one, str) else one for one in types]
    return next((one for one in types if isinstance(one, torch.dtype)), None)


class InFloat64(TorchFunctionMode):
    """Runs PyTorch's functions in float64 on the CPU.

    Args:
        dtype: the type that the network's code is told its values have.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.computed(func, args, kwargs or {})

    def computed(self, function: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """The value of a call whose arguments are known."""
        name = called(function)
        keywords = dict(keywords)
        if name == "dtype" and isinstance(arguments[0], Tensor):
            return self.dtype if arguments[0].dtype == torch.float64 else arguments[0].dtype
        if name in CASTS and arguments and isinstance(arguments[0], Tensor):
            return _cast(name, arguments, keywords)
        if keywords.get("device") is not None:
            keywords["device"] = "cpu"
        given = [one for one in (*arguments, *keywords.values()) if isinstance(one, Tensor)]
        in_place = name.endswith(("_", " =")) or name == "setitem"
        first = (arguments[0],) if in_place and arguments else ()
        arguments = (*first, *changed(tuple(arguments[len(first) :]), _widened))
        keywords = changed(keywords, _widened)
        if given and isinstance(keywords.get("dtype"), torch.dtype) and keywords["dtype"].is_floating_point:
            keywords["dtype"] = torch.float64
        result = function(*arguments, **keywords)
        return result if in_place else changed(result, _widened)


def _widened(value: Tensor) -> Tensor:
    return value.double() if value.is_floating_point() and value.dtype != torch.float64 else value


def _cast(name: str, arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> Any:
    value = _widened(arguments[0])
    if name == "type" and len(arguments) == 1 and not keywords:
        return value.type()
    dtype = wanted_type(name, (*arguments[1:], *keywords.values()))
    if dtype is None or (dtype.is_floating_point and value.is_floating_point()):
        return value
    return value.to(torch.float64 if dtype.is_floating_point else dtype)
