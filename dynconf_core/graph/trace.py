"""From an ``nn.Module`` to a graph: traced by torch.fx, run once on an example so that all sizes are numbers, then simplified.

The simplifications change no value: batch normalisation becomes part of the preceding weights, and activations are moved before
max pools and flattening.
"""

import copy
import math
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from dynconf_core.activations.quantisation import Quantised
from dynconf_core.errors import InputError
from dynconf_core.graph.graph import Graph, Node
from dynconf_core.graph.operations import channels_read, run
from dynconf_core.graph.rearranging import joined
from dynconf_core.graph.recording import Recording
from dynconf_core.graph.writing import first_line

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
MODAL = (*NORMS, nn.modules.dropout._DropoutNd)
"""Modules that behave differently in training mode."""
CLOSE = 1e-6
"""The largest permitted difference between the outputs of the graph and of the network, both in float64, relative to the
largest output."""


def traced(network: nn.Module, example: Tensor) -> Graph:
    """The network's graph, in float64; the network itself is not changed.

    Args:
        network: in evaluation mode.
        example: a normalised input ``(N, C, H, W)`` or ``(N, F)``, for its shape; one sample of it is run.

    Raises:
        InputError: for a network in training mode, batch normalisation without running statistics, weights that are not finite,
            an example that does not fit, an operation that conversion does not support (with its position), or a graph that
            does not compute what the network computes.
    """
    network = _unwrapped(network)
    _check(network)
    copied = _in_float64(network)
    example = example[:1].detach().double().cpu()
    try:
        program = fx.GraphModule(copied, _Tracer().trace(copied))
    except Exception as error:  # the network's own code, run on placeholders, raises almost anything
        raise InputError(
            f"{type(network).__name__} cannot be traced ({first_line(error)}): its forward must not branch on the values of a "
            "tensor or convert them to Python numbers."
        ) from error
    graph = Recording(program, example).graph()
    _check_same(copied, graph, example)
    for module in (*copied.modules(), *program.modules()):
        # A GraphModule and its graph refer to each other until garbage collection; the weights are released now.
        module._parameters.clear()
        module._buffers.clear()
    return graph


def folded(graph: Graph) -> Graph:
    """The graph with every factor and offset folded into the preceding weights, unless something else reads their result, and
    with consecutive rearrangements joined."""
    graph = joined(graph)
    for name in [node.name for node in graph.of_kind("scale")]:
        scale = graph.by_name[name]
        before = graph.by_name[scale.inputs[0]]
        if before.kind in ("convolution", "linear", "scale") and len(graph.readers[before.name]) == 1:
            graph = graph.map({before.name: _scaled(before, scale)}).without(scale.name)
    return graph


def activations_first(graph: Graph) -> Graph:
    """The graph with every activation that follows a max pool, a flattening or a rearrangement moved before it.

    Most activations are non-decreasing, so the maximum is the same; the pool then selects among spikes, and the activation
    still sees the channels.
    """
    for name in [node.name for node in reversed(graph.of_kind("max_pool", "flatten", "rearrange"))]:
        readers = graph.readers[name]
        if len(readers) == 1 and readers[0].kind == "activation" and _may_precede(readers[0], graph.by_name[name], graph):
            graph = _swapped(graph, graph.by_name[name], readers[0])
    return joined(graph)


def _may_precede(activation: Node, before: Node, graph: Graph) -> bool:
    """Whether an activation is the same before what moves its input, and not worse."""
    if before.kind == "max_pool":
        return not bool((activation.tensors.get("slope", torch.zeros(())) < 0).any())  # which does not rise everywhere
    if any(tensor.ndim for tensor in activation.tensors.values()):  # one for each channel, and these would be others
        return False
    if before.kind == "flatten" or all(reader.kind == "rearrange" for reader in graph.readers[activation.name]):
        return True
    source = graph.by_name[before.inputs[0]]
    read = channels_read(before, source)
    # Thresholds of several channels must not meet in one; and what is left out needs no neurons.
    return bool((read == read[:, :1]).all()) and math.prod(source.shape) <= math.prod(before.shape)


def _unwrapped(network: nn.Module) -> nn.Module:
    """The network itself, if torch.compile or DataParallel wraps it."""
    network = network.module if isinstance(network, nn.DataParallel) else network
    original = getattr(network, "_orig_mod", None)
    return original if isinstance(original, nn.Module) else network


def _in_float64(network: nn.Module) -> nn.Module:
    """A copy on the CPU, with parameters and buffers converted while they are copied."""
    wide: dict[int, Any] = {}
    for value in (*network.parameters(), *network.buffers()):
        if value.is_floating_point():
            converted = value.detach().to("cpu", torch.float64, copy=True)
            wide[id(value)] = nn.Parameter(converted, value.requires_grad) if isinstance(value, nn.Parameter) else converted
    return copy.deepcopy(network, wide).double().cpu()


def _check(network: nn.Module) -> None:
    if not isinstance(network, nn.Module):
        raise InputError(f"the network is a {type(network).__name__}: give a torch.nn.Module.")
    if network.training:
        raise InputError(f"{type(network).__name__} is in training mode: call .eval() before it is converted.")
    for name, module in network.named_modules():
        if isinstance(module, NORMS) and module.running_mean is None:
            raise InputError(
                f"{name} is a batch normalisation without running statistics: train with track_running_stats=True."
            )
        if isinstance(module, MODAL) and module.training:
            raise InputError(f"{name} is in training mode: call .eval() on the whole network before it is converted.")
    for name, value in (*network.named_parameters(), *network.named_buffers()):
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise InputError(f"{name} holds NaN or infinite values: the training diverged, or the checkpoint is damaged.")


@torch.no_grad()
def _check_same(network: nn.Module, graph: Graph, example: Tensor) -> None:
    """Check that graph and network agree on a noise image; reveals in-place changes and hooks."""
    image = example + torch.randn(example.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected, found = network(image.clone()), run(graph, image)
    largest = float((expected - found).abs().max())
    if not largest <= CLOSE * max(float(expected.abs().max()), CLOSE):
        raise InputError(
            f"{type(network).__name__} does more than its traced operations (outputs differ by {largest:.2g}): a value "
            "that is still needed may be changed in place (relu(inplace=True) or += on a part of it), or a hook or something "
            "random changes a value."
        )


def _scaled(before: Node, scale: Node) -> Node:
    factor = scale.tensors["weight"]
    weight, bias = before.tensors["weight"], before.tensors.get("bias")
    scaled = weight * (factor.view(-1, *[1] * (weight.ndim - 1)) if factor.ndim and weight.ndim else factor)
    offset = scale.tensors.get("bias")
    if bias is not None:
        offset = bias * factor if offset is None else bias * factor + offset
    return before.with_tensors(weight=scaled, bias=offset)


def _swapped(graph: Graph, before: Node, activation: Node) -> Graph:
    source = graph.by_name[before.inputs[0]]
    first = replace(activation, inputs=before.inputs, shape=source.shape)
    second = replace(before, inputs=(activation.name,))
    nodes: list[Node] = []
    for node in graph.nodes:
        if node.name == before.name:
            nodes += [first, second]
        elif node.name != activation.name:
            renamed = tuple(before.name if name == activation.name else name for name in node.inputs)
            nodes.append(replace(node, inputs=renamed))
    return Graph(tuple(nodes))


class _Tracer(fx.Tracer):
    """Traces one network at a time.

    While tracing, torch.fx replaces the call of every module in the process; a network that is being trained in another thread
    would otherwise be taken for a part of this one.
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
        """Activations that declare their quantisation are one operation each, whatever they compute inside."""
        return isinstance(m, Quantised) or super().is_leaf_module(m, module_qualified_name)
