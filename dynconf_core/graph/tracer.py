"""A torch.fx tracer that leaves other threads alone, and takes an activation for one operation."""

import threading
from collections.abc import Callable
from typing import Any

from torch import fx, nn

from dynconf_core.activations.quantisation import Quantised


class Tracer(fx.Tracer):
    """One network at a time.

    While it traces, torch.fx replaces the call of every module in the process; a network that trains in another thread would
    then be taken for a part of this one.
    """

    _tracing = threading.Lock()

    def trace(self, root: Any, concrete_args: dict[str, Any] | None = None) -> fx.Graph:
        with self._tracing:
            self._thread = threading.get_ident()
            return super().trace(root, concrete_args)

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        if threading.get_ident() != self._thread:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        if threading.get_ident() != self._thread:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Activations that tell their quantisation are one operation each, whatever they do inside."""
        return isinstance(m, Quantised) or super().is_leaf_module(m, module_qualified_name)
