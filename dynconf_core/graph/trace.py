"""From an ``nn.Module`` to a graph: its code is run once on an input without values, recorded, compared, and simplified.

The simplifications change no value: batch normalisation becomes part of the preceding weights, and activations are moved before
max pools and flattening.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from dynconf_core.errors import InputError
from dynconf_core.graph.copying import in_float64, unwrapped
from dynconf_core.graph.graph import Graph, Node
from dynconf_core.graph.operations import channels_read, run
from dynconf_core.graph.precision import InFloat64
from dynconf_core.graph.rearranging import joined
from dynconf_core.graph.recording import Recording
from dynconf_core.graph.writing import first_line
from dynconf_core.wording import an

NORMS = nn.modules.batchnorm._BatchNorm
MODAL = (NORMS, nn.modules.dropout._DropoutNd)
"""Modules that behave differently in training mode."""
CLOSE = 1e-6
"""The largest permitted difference between the outputs of the graph and of the network, both in float64, relative to the
largest output."""
SAMPLES = 2
"""Images of the comparison: not as many as were traced with, which reveals a number of samples in the network's code."""


def traced(network: nn.Module, example: Tensor) -> Graph:
    """The network's graph, in float64; the network itself is not changed.

    Args:
        network: in evaluation mode.
        example: a normalised input ``(N, C, H, W)`` or ``(N, F)``, for its shape.

    Raises:
        InputError: for what is no ``nn.Module`` of Python code, a network in training mode, batch normalisation without running
            statistics, weights that are missing or not finite, an example that does not fit, code that branches on values, an
            operation that conversion does not support (with its position), or a graph that does not compute what the network
            computes.
    """
    _check_kind(network)
    network = unwrapped(network)
    _check(network)
    copied = in_float64(network)
    try:
        graph = recorded(copied, example)
        _check_same(copied, graph, example)
    finally:
        for module in list(copied.modules()):
            # The copy's modules and their recorded calls refer to each other until garbage collection; the weights are
            # released now.
            module.__dict__.clear()
    return graph


def recorded(network: nn.Module, example: Tensor) -> Graph:
    """The graph of a network that belongs to the caller, and is changed; its weights need no values.

    Raises:
        InputError: as ``traced``, which compares the graph with the network too.
    """
    return Recording(network, example[:1], example.dtype).graph()


def folded(graph: Graph) -> Graph:
    """The graph with every factor and offset folded into the preceding weights, unless something else reads their result, and
    with consecutive rearrangements joined.

    A factor without such weights, such as the area of a sum over the image, goes into the weights that follow, if it is one
    number and they alone read it.
    """
    graph = joined(graph)
    for name in [node.name for node in graph.of_kind("scale")]:
        scale = graph.by_name[name]
        before = graph.by_name[scale.inputs[0]]
        if before.kind in ("convolution", "linear", "scale") and len(graph.readers[before.name]) == 1:
            graph = graph.map({before.name: _scaled(before, scale)}).without(scale.name)
    for scale in graph.of_kind("scale"):
        reader = _weights_that_follow(graph, scale)
        if reader is not None:
            weight = reader.tensors["weight"] * scale.tensors["weight"]
            graph = graph.map({reader.name: reader.with_tensors(weight=weight)}).without(scale.name)
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


def _check_kind(network: nn.Module) -> None:
    """Whether the network is Python code that can be run."""
    if isinstance(network, torch.export.ExportedProgram):
        raise InputError("the network is an ExportedProgram: give the nn.Module it was made of.")
    if isinstance(network, torch.jit.ScriptFunction):
        raise InputError("the network is a TorchScript function: give the nn.Module it was made of.")
    if not isinstance(network, nn.Module):
        raise InputError(f"the network is {an(network)}: give a torch.nn.Module.")
    for name, module in network.named_modules():
        what = f"{name} ({type(module).__name__})" if name else type(module).__name__
        if isinstance(module, torch.jit.ScriptModule):
            raise InputError(f"{what} is TorchScript: give the nn.Module it was made of.")
        if type(module).__module__.startswith(("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized")):
            raise InputError(f"{what} is a quantised module: give the nn.Module with real weights that it was made of.")


def _check(network: nn.Module) -> None:
    tensors = (*network.named_parameters(), *network.named_buffers())
    for name, value in tensors:
        if is_lazy(value):
            raise InputError(f"{name} has no shape yet: run the network once on an image before it is converted.")
        if value.is_meta:
            raise InputError(f"{name} is on the meta device, without values: use to_empty() and load_state_dict() first.")
    if network.training:
        raise InputError(f"{type(network).__name__} is in training mode: call .eval() before it is converted.")
    for name, module in network.named_modules():
        if isinstance(module, NORMS) and module.running_mean is None:
            raise InputError(
                f"{name} is a batch normalisation without running statistics: train with track_running_stats=True."
            )
        if (isinstance(module, MODAL) or parametrize.is_parametrized(module)) and module.training:
            raise InputError(f"{name} is in training mode: call .eval() on the whole network before it is converted.")
    for name, value in tensors:
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise InputError(f"{name} holds NaN or infinite values: the training diverged, or the checkpoint is damaged.")
    for name, module in network.named_modules():
        variance = module.running_var if isinstance(module, NORMS) else None
        if variance is not None and float(variance.min()) + float(getattr(module, "eps", 0)) <= 0:
            raise InputError(
                f"{name}.running_var holds {float(variance.min()):g}: its root is NaN, and so is what the network "
                "itself returns; the checkpoint is damaged, or is not of this network."
            )


@torch.no_grad()
def _check_same(network: nn.Module, graph: Graph, example: Tensor) -> None:
    """Check that graph and network agree on noise images; reveals views that are changed in place, and what is random."""
    start = example[:1].detach().double().cpu().expand(SAMPLES, *example.shape[1:])
    images = start + torch.randn(start.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    try:
        with InFloat64(example.dtype):
            expected = network(images.clone())
    except Exception as error:  # the network's own code raises almost anything
        raise InputError(
            f"{type(network).__name__} does not run on {SAMPLES} images ({type(error).__name__}: {first_line(error)}): its "
            "code must take any number of them."
        ) from error
    found = run(graph, images)
    for name in graph.left_out:
        found = getattr(torch, name)(found, 1)
    if not isinstance(expected, Tensor) or expected.shape != found.shape:
        shape = tuple(expected.shape) if isinstance(expected, Tensor) else type(expected).__name__
        raise InputError(
            f"{type(network).__name__} returns {shape} for {SAMPLES} images: its code must take any number of them."
        )
    if not bool(torch.isfinite(expected).all()):
        raise InputError(
            f"{type(network).__name__} itself returns NaN or infinite values for images of noise: look for a root or a "
            "quotient of constants in it, such as a batch normalisation with a running variance below 0."
        )
    largest = float((expected - found).abs().max())
    if not largest <= CLOSE * max(float(expected.abs().max()), CLOSE):
        raise InputError(
            f"{type(network).__name__} does more than its traced operations (outputs differ by {largest:.2g}): a value "
            "that is still needed may be changed in place (relu(inplace=True) or += on a part of it), or a hook or something "
            "random changes a value."
        )


def _weights_that_follow(graph: Graph, scale: Node) -> Node | None:
    """The layer with weights that alone reads a plain factor, through what moves values at most; None if there is none."""
    if scale.tensors["weight"].ndim or "bias" in scale.tensors:
        return None
    readers = graph.readers[scale.name]
    while len(readers) == 1 and readers[0].kind in ("average_pool", "flatten", "rearrange"):
        readers = graph.readers[readers[0].name]
    return readers[0] if len(readers) == 1 and readers[0].kind in ("convolution", "linear") else None


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
    return replace(graph, nodes=tuple(nodes))
