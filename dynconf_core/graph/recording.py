"""Runs a traced program on an example and records every operation that depends on the input as a node.

This resolves everything the network computes from sizes (``x.view(x.size(0), -1)``, a kernel as large as the image). An
operation that conversion does not support is reported with its position in the network.
"""

import itertools
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from dynconf_core.activations.quantisation import Quantised
from dynconf_core.errors import InputError
from dynconf_core.graph.activating import quantised
from dynconf_core.graph.calls import CALLS, METHODS, MODULES
from dynconf_core.graph.graph import Graph, Node, Settings
from dynconf_core.graph.operations import evaluate
from dynconf_core.graph.writing import Refused, Traced, first_line

IN_PLACE = (operator.iadd, operator.isub, operator.imul, operator.itruediv)


class Recording:
    """Runs a traced program on the example and records every operation on values that depend on it."""

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
                raise Refused("conversion does not support it")
            return make(self, name, *arguments, **keywords)
        except Refused as refusal:
            raise InputError(
                f"{what} at {name!r} cannot be converted: {refusal}. Conversion supports convolutions, linear layers, batch "
                "normalisation, average and max pools, additions, concatenations, slices, zero padding, flattening, dropout "
                "and the activations ReLU, ReLU6, clip, QCFS, LSQ and others with a quantisation()."
            ) from None
        except (RuntimeError, LookupError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                f"{what} at {name!r} does not take an input of shape {tuple(self.example.shape)} (a batch of one): "
                f"{first_line(error)}"
            ) from error

    def _known(self, node: fx.Node) -> tuple[Callable[..., Any] | None, str]:
        """The function that translates a call, or None, and the name of the call in messages."""
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
        """The value of a call that does not depend on the network's input: a size, or a weight computed from another."""
        target: Any = node.target
        with torch.no_grad():
            if node.op == "call_module":
                return self.modules[target](*arguments, **keywords)
            if node.op == "call_method":
                return getattr(arguments[0], target)(*arguments[1:], **keywords)
            return target(*arguments, **keywords)

    def _in_place(self, node: fx.Node) -> bool:
        """Whether a call modifies its first argument."""
        if node.op == "call_module":
            return bool(getattr(self.modules[str(node.target)], "inplace", False))
        if node.op == "call_method":
            return str(node.target).endswith("_")
        name = getattr(node.target, "__name__", "")
        return node.op == "call_function" and (
            bool(node.kwargs.get("inplace")) or name.endswith("_") or node.target in IN_PLACE
        )

    def _overwrite(self, old: Any, new: Any) -> None:
        """Every name that held the old value holds the new one from now on."""
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
        """Record an operation and run it."""
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
        """The name, with a number appended if another node has it: a layer may be called "input"."""
        numbered = (f"{name}#{number}" for number in itertools.count(2))
        return name if name not in self.names else next(one for one in numbered if one not in self.names)


def _place(node: fx.Node) -> str:
    """The position of the operation: the path of the module, or that of the enclosing module and the name of the call."""
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
    """The nodes on which the output depends, the output last."""
    needed = {output}
    for node in reversed(nodes):
        if node.name in needed:
            needed.update(node.inputs)
    if nodes[0].name not in needed:
        raise InputError("the network's output does not depend on its input.")
    kept = [node for node in nodes if node.name in needed]
    kept.sort(key=lambda node: node.name == output)
    return Graph(tuple(kept))
