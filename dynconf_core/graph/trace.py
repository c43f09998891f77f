"""From an ``nn.Module`` to a graph: traced by torch.fx, then run once on an example, so that shapes and sizes are numbers.

What the network computes from sizes (``x.view(x.size(0), -1)``, a kernel as large as the image) is thereby known. An
operation that conversion does not know is named with its place.
"""

import copy
import itertools
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

from dynconf_core.activations.quantisation import Quantised
from dynconf_core.errors import InputError
from dynconf_core.graph.calls import CALLS, METHODS, MODULES, quantised
from dynconf_core.graph.graph import Graph, Node, Settings
from dynconf_core.graph.operations import evaluate
from dynconf_core.graph.run import run
from dynconf_core.graph.tracer import Tracer
from dynconf_core.graph.writing import Refused, Traced

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
MODAL = (*NORMS, nn.modules.dropout._DropoutNd)
"""Modules that do something else in training mode."""
IN_PLACE = (operator.iadd, operator.isub, operator.imul, operator.itruediv)
CLOSE = 1e-6
"""How far the graph's outputs may be from the network's, both in float64, as a share of the largest."""


def traced(network: nn.Module, example: Tensor) -> Graph:
    """The network's graph, in float64; the network itself stays as it is.

    Args:
        network: in evaluation mode.
        example: a normalised input ``(N, C, H, W)`` or ``(N, F)``, for its shape; one sample of it is run.

    Raises:
        InputError: for a network in training mode, batch normalisation without running statistics, weights that are not
            finite, an example that does not fit, an operation that conversion does not know (with its place), or a graph that
            does not compute what the network computes.
    """
    network = _unwrapped(network)
    _check(network)
    copied = _in_float64(network)
    example = example[:1].detach().double().cpu()
    try:
        program = fx.GraphModule(copied, Tracer().trace(copied))
    except Exception as error:  # the network's own Python, run on placeholders, raises nearly anything
        raise InputError(
            f"{type(network).__name__} cannot be traced ({_reason(error)}): its forward must not branch on the values of a "
            "tensor, nor make Python numbers of them."
        ) from error
    graph = _Run(program, example).graph()
    _check_same(copied, graph, example)
    for module in (*copied.modules(), *program.modules()):
        # A GraphModule and its graph hold each other until the garbage is collected: they need not hold the weights.
        module._parameters.clear()
        module._buffers.clear()
    return graph


def _unwrapped(network: nn.Module) -> nn.Module:
    """The network itself, where torch.compile or DataParallel wraps it."""
    network = network.module if isinstance(network, nn.DataParallel) else network
    original = getattr(network, "_orig_mod", None)
    return original if isinstance(original, nn.Module) else network


def _in_float64(network: nn.Module) -> nn.Module:
    """A copy on the CPU, whose parameters and buffers are converted as they are copied, not after."""
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
            raise InputError(f"{name} holds NaN or infinite values: the training went astray, or the checkpoint is damaged.")


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


@torch.no_grad()
def _check_same(network: nn.Module, graph: Graph, example: Tensor) -> None:
    """The graph's output is the network's, on an image of noise: what happened in place, or in a hook, shows."""
    image = example + torch.randn(example.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected, found = network(image.clone()), run(graph, image)
    largest = float((expected - found).abs().max())
    if not largest <= CLOSE * max(float(expected.abs().max()), CLOSE):
        raise InputError(
            f"{type(network).__name__} does more than its operations one by one (outputs differ by {largest:.2g}): a value "
            "that is still needed may be changed in place (relu(inplace=True) or += on a part of it), or a hook or something "
            "random changes a value."
        )


class _Run:
    """Runs a traced program on the example and writes down every operation on values that depend on it."""

    def __init__(self, program: fx.GraphModule, example: Tensor) -> None:
        self.program, self.example = program, example
        self.modules = dict(program.named_modules())
        self.nodes: list[Node] = []
        self.names = set[str]()
        self.values: dict[fx.Node, Any] = {}

    def graph(self) -> Graph:
        for node in self.program.graph.nodes:
            self.values[node] = self._visited(node)
            if self._in_place(node):
                self._overwrite(self.nodes_of(node.args[0]), self.values[node])
        output = self.nodes_of(self.program.graph.output_node().args[0])
        if not isinstance(output, Traced):
            raise InputError("the network returns no tensor (or several): conversion needs one output, the logits.")
        if output.value.ndim != 2:
            raise InputError(f"the network's output has the shape {tuple(output.value.shape)}: logits (N, C) are needed.")
        return _reaching(self.nodes, output.name)

    def nodes_of(self, argument: Any) -> Any:
        return fx.node.map_arg(argument, self.values.__getitem__)

    def _visited(self, node: fx.Node) -> Any:
        if node.op == "placeholder":
            if self.nodes:
                return node.args[0] if node.args else None  # a further argument keeps its default
            return self._added(Node("input", "input", (), tuple(self.example.shape[1:])), self.example)
        if node.op == "output":
            return None
        if node.op == "get_attr":
            return operator.attrgetter(str(node.target))(self.program)
        arguments, keywords = self.nodes_of(node.args), self.nodes_of(node.kwargs)
        name = _place(node)
        make, what = self._known(node)
        try:
            if not _holds_traced((arguments, keywords)):
                return self._constant(node, arguments, keywords)
            if make is None:
                raise Refused("conversion does not know it")
            return make(self, name, *arguments, **keywords)
        except Refused as refusal:
            raise InputError(
                f"{what} at {name!r} cannot be converted: {refusal}. Conversion knows convolutions, linear layers, batch "
                "normalisation, average and max pools, additions, concatenations, slices, zero padding, flattening, dropout "
                "and the activations ReLU, ReLU6, clip, QCFS and LSQ."
            ) from None
        except (RuntimeError, LookupError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                f"{what} at {name!r} does not take an input of shape {tuple(self.example.shape)} (a batch of one): "
                f"{_reason(error)}"
            ) from error

    def _known(self, node: fx.Node) -> tuple[Callable[..., Any] | None, str]:
        """What writes a call down, if anything does, and what to call it in a message."""
        target: Any = node.target
        if node.op == "call_module":
            module = self.modules[target]
            known = (make for kind, make in MODULES.items() if isinstance(module, kind))
            make = quantised if isinstance(module, Quantised) else next(known, None)
            bound = None if make is None else lambda write, name, *a, **k: make(write, name, module, *a, **k)
            return bound, type(module).__name__
        if node.op == "call_method":
            return METHODS.get(target), str(target)
        return CALLS.get(target), getattr(target, "__name__", str(target))

    def _constant(self, node: fx.Node, arguments: Any, keywords: Any) -> Any:
        """The value of a call that does not depend on the network's input: a size, a weight made of another."""
        target: Any = node.target
        with torch.no_grad():
            if node.op == "call_module":
                return self.modules[target](*arguments, **keywords)
            if node.op == "call_method":
                return getattr(arguments[0], target)(*arguments[1:], **keywords)
            return target(*arguments, **keywords)

    def _in_place(self, node: fx.Node) -> bool:
        """Whether a call changes its first argument."""
        if node.op == "call_module":
            return bool(getattr(self.modules[str(node.target)], "inplace", False))
        if node.op == "call_method":
            return str(node.target).endswith("_")
        name = getattr(node.target, "__name__", "")
        return node.op == "call_function" and (
            bool(node.kwargs.get("inplace")) or name.endswith("_") or node.target in IN_PLACE
        )

    def _overwrite(self, old: Any, new: Any) -> None:
        """Whoever holds the old value holds the new one from now on."""
        if isinstance(old, Traced) and isinstance(new, Traced):
            for node, value in self.values.items():
                if isinstance(value, Traced) and value.name == old.name:
                    self.values[node] = new

    def add(
        self,
        name: str,
        kind: str,
        inputs: tuple[Traced, ...],
        settings: Settings | None = None,
        tensors: dict[str, Tensor] | None = None,
    ) -> Traced:
        """Write an operation down and run it."""
        kept = {key: value.detach() for key, value in (tensors or {}).items()}
        name = self._unused(name)
        node = Node(name, kind, tuple(one.name for one in inputs), (), settings or {}, kept)
        with torch.no_grad():
            value = evaluate(node, [one.value for one in inputs], kept)
        return self._added(Node(name, kind, node.inputs, tuple(value.shape[1:]), node.settings, kept), value)

    def _added(self, node: Node, value: Tensor) -> Traced:
        if value.numel() == 0:
            raise Refused(f"its result is empty, of shape {tuple(value.shape)}")
        self.nodes.append(node)
        self.names.add(node.name)
        return Traced(node.name, value)

    def _unused(self, name: str) -> str:
        """The name, numbered where another node has it: a layer may be called "input"."""
        numbered = (f"{name}#{number}" for number in itertools.count(2))
        return name if name not in self.names else next(one for one in numbered if one not in self.names)


def _place(node: fx.Node) -> str:
    """Where the operation stands: the module's path, or that of the module around it, and the name of the call."""
    if node.op == "call_module":
        earlier = [other for other in node.graph.nodes if other.op == "call_module" and other.target == node.target]
        number = earlier.index(node)
        return f"{node.target}" + (f"#{number + 1}" if number else "")
    around = list((node.meta.get("nn_module_stack") or {}).values())
    path = around[-1][0] if around else ""
    return f"{path}.{node.name}" if path else node.name


def _holds_traced(value: Any) -> bool:
    found: list[Traced] = []

    def look(one: Any) -> None:
        if isinstance(one, Traced):
            found.append(one)
        elif isinstance(one, list | tuple):
            for part in one:
                look(part)
        elif isinstance(one, dict):
            for part in one.values():
                look(part)

    look(value)
    return bool(found)


def _reaching(nodes: list[Node], output: str) -> Graph:
    """The nodes that the output depends on, the output last."""
    needed = {output}
    for node in reversed(nodes):
        if node.name in needed:
            needed.update(node.inputs)
    if nodes[0].name not in needed:
        raise InputError("the network's output does not depend on its input.")
    kept = [node for node in nodes if node.name in needed]
    kept.sort(key=lambda node: node.name == output)
    return Graph(tuple(kept))
