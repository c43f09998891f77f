"""A trained network as a graph of the operations that conversion knows, with batch normalisation folded away."""

import copy
import operator
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from dynconf_core.activations.lsq import LSQ
from dynconf_core.activations.qcfs import QCFS
from dynconf_core.errors import InputError

ACTIVATIONS = (QCFS, LSQ)
WEIGHTED = (nn.Conv2d, nn.Linear)
LINEAR = (*WEIGHTED, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Flatten, nn.Identity, nn.Dropout)
ADDITIONS: tuple[Callable[..., Any], ...] = (operator.add, torch.add)
FUNCTIONS = (*ADDITIONS, torch.flatten)


class _Tracer(fx.Tracer):
    """A tracer that leaves other threads alone.

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
        """Activations are one operation each, whatever they do inside."""
        return isinstance(m, ACTIVATIONS) or super().is_leaf_module(m, module_qualified_name)


def folded(network: nn.Module) -> fx.GraphModule:
    """The network in evaluation mode as a graph: every batch normalisation is part of the convolution before it.

    The network itself stays as it is.

    Raises:
        InputError: naming the operation that conversion does not know, and its place.
    """
    copied = copy.deepcopy(network).eval()
    graph = fx.GraphModule(copied, _Tracer().trace(copied))
    modules = dict(graph.named_modules())
    calls = Counter(str(node.target) for node in graph.graph.nodes if node.op == "call_module")
    for node in list(graph.graph.nodes):
        norm = modules.get(str(node.target)) if node.op == "call_module" else None
        if not isinstance(norm, nn.BatchNorm2d):
            continue
        before = node.args[0]
        convolution = modules.get(str(before.target)) if before.op == "call_module" else None
        if not isinstance(convolution, nn.Conv2d) or len(before.users) != 1 or calls[str(before.target)] != 1:
            raise InputError(
                f"{node.target} is a batch normalisation that follows no convolution of its own: it cannot be folded."
            )
        graph.set_submodule(str(before.target), fuse_conv_bn_eval(convolution, norm))
        node.replace_all_uses_with(before)
        graph.graph.erase_node(node)
    graph.delete_all_unused_submodules()
    graph.graph.lint()
    graph.recompile()
    _check(graph)
    return graph


def _check(graph: fx.GraphModule) -> None:
    modules = dict(graph.named_modules())
    for node in graph.graph.nodes:
        if node.op in ("placeholder", "output"):
            continue
        if node.op == "call_module":
            kind = modules[str(node.target)]
            known = isinstance(kind, (*LINEAR, *ACTIVATIONS))
            named = type(kind).__name__
        else:
            known = node.op == "call_function" and node.target in FUNCTIONS
            if node.target in ADDITIONS:  # a constant would be a bias that nobody switches off
                known = known and all(isinstance(argument, fx.Node) for argument in node.args)
            named = getattr(node.target, "__name__", str(node.target))
        if not known:
            raise InputError(
                f"{named} at {node.name!r} cannot be converted: use convolutions, linear layers, average pools, additions and "
                "QCFS or LSQ activations."
            )
