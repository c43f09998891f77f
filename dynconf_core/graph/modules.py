"""The modules of a network while it is traced: which are one operation, and how their calls are seen."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from torch import nn

from dynconf_core.activations.quantisation import Quantised
from dynconf_core.graph.activating import quantised
from dynconf_core.graph.calls import MODULES
from dynconf_core.graph.placeholders import ReadsValues


class Watching(Protocol):
    """Sees the calls of modules."""

    def enter(self, called: "Called", arguments: Any, keywords: Any) -> Any:
        """The call of a module."""


class Frame(NamedTuple):
    """A module whose code is running.

    Attributes:
        path: its position and, for a module of PyTorch, the number of its call.
        what: the class of a module of PyTorch, which is one operation; None for others.
    """

    path: str
    what: str | None


class Called(NamedTuple):
    """A module of the network: whether it is one operation, and the function that translates it."""

    path: str
    module: nn.Module
    forward: Callable[..., Any]
    leaf: bool
    known: Callable[..., Any] | None


class Call:
    """The call of a module as a function."""

    def __init__(self, make: Callable[..., Any], module: nn.Module) -> None:
        self.make, self.module, self.__name__ = make, module, type(module).__name__


def _is_leaf(module: nn.Module) -> bool:
    """Whether a module is one operation, whatever it computes inside: those of PyTorch, and activations that declare their
    quantisation."""
    containers = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
    return isinstance(module, Quantised) or (
        type(module).__module__.startswith("torch.nn.") and not isinstance(module, containers)
    )


def _translation(module: nn.Module) -> Callable[..., Any] | None:
    """The function that translates the call of a module as one, or None: then its code is run."""
    if isinstance(module, Quantised):
        return quantised
    return next((make for kind, make in MODULES.items() if isinstance(module, kind)), None)


def instrument(recording: Watching, path: str, module: nn.Module) -> None:
    """From now on, calls of the module are seen, and its hooks may read values if they change none."""
    state = module.__dict__
    # A module whose forward has been replaced is not what its class says.
    leaf = "forward" not in state and _is_leaf(module)
    called = Called(path, module, module.forward, leaf, _translation(module) if leaf else None)

    def seen(*arguments: Any, **keywords: Any) -> Any:
        return recording.enter(called, arguments, keywords)

    state["forward"] = seen
    for kind in ("_forward_pre_hooks", "_forward_hooks"):
        for key, hook in state[kind].items():
            state[kind][key] = _tolerant(hook)


def _tolerant(hook: Callable[..., Any]) -> Callable[..., Any]:
    """A hook that may look at values, as profilers do; if it changes one too, the comparison with the network reveals it."""

    def called_hook(*arguments: Any, **keywords: Any) -> Any:
        try:
            return hook(*arguments, **keywords)
        except ReadsValues:
            return None

    return called_hook
