"""Runs a network's own code on an input without values and records every operation that depends on it as a node.

Shapes, ranks and numbers of parts are plain Python numbers to the code: it may assert, branch and loop on them. What it asks of
the values themselves is refused. An operation that conversion does not support is reported with its position in the network, if
the output depends on it.
"""

import itertools
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import handle_torch_function

from dynconf_core.errors import InputError
from dynconf_core.graph.calls import COMPLETING, FUNCTIONS, PROPERTIES, VALUES
from dynconf_core.graph.graph import Graph, Node, Settings
from dynconf_core.graph.modules import Call, Called, Frame, instrument
from dynconf_core.graph.operations import evaluate
from dynconf_core.graph.placeholders import ReadsValues, Recorded, Unsupported, given, held_in, meta, recorded_in
from dynconf_core.graph.precision import InFloat64, called, changed
from dynconf_core.graph.writing import Left, Refused, Traced, first_line
from dynconf_core.wording import an

SUPPORTED = (
    "Conversion supports convolutions, linear layers, batch normalisation, average and max pools, additions, concatenations, "
    "whatever moves values, padding, dropout and the activations ReLU, LeakyReLU, PReLU, clip, QCFS, LSQ and others with a "
    "quantisation()"
)
BATCH = 3
"""Samples of the input without values: with one, squeeze() would take the batch away."""


class Recording(InFloat64):
    """Records the operations of one network.

    Args:
        network: a copy, which is changed.
        example: an input, for its shape.
        dtype: the type that the network's code is told its values have.
    """

    def __init__(self, network: nn.Module, example: Tensor, dtype: torch.dtype) -> None:
        super().__init__(dtype)
        self.network, self.example = network, example
        self.nodes: dict[str, Node] = {}
        self.frames: list[Frame] = []
        self.calls, self.names = Counter[str](), Counter[str]()
        self.failed_at: str | None = None
        for path, module in network.named_modules():
            instrument(self, path, module)

    @torch.no_grad()
    def graph(self) -> Graph:
        """The graph of what the network computes.

        Raises:
            InputError: see ``trace.traced``.
        """
        shape = tuple(self.example.shape[1:])
        first = Recorded(self._added(Node("input", "input", (), shape), self._empty(shape)))
        try:
            with self:
                output = self.network(first)
        except InputError:
            raise
        except Exception as error:  # the network's own code raises almost anything
            at = f" at {self.failed_at!r}" if self.failed_at else ""
            raise InputError(
                f"{type(self.network).__name__} cannot be traced on an input of shape {tuple(self.example.shape)}: its "
                f"code{at} raises {type(error).__name__}: {first_line(error)}"
            ) from error
        return self._finished(output)

    # The network's code

    def enter(self, called: Called, arguments: Any, keywords: Any) -> Any:
        """The call of a module."""
        path, module, forward, leaf, known = called
        number = 0
        if leaf:
            number = self.calls[path]
            self.calls[path] += 1
        self.frames.append(Frame(f"{path}#{number + 1}" if number else path, type(module).__name__ if leaf else None))
        try:
            values = recorded_in((arguments, keywords))
            if known is not None and values and all(_acceptable(one.held, known) for one in values):
                call: Any = Call(known, module)
                return handle_torch_function(call, values, *arguments, **keywords)
            return forward(*arguments, **keywords)
        except InputError:
            raise
        except Exception:
            self.failed_at = self.failed_at or path
            raise
        finally:
            self.frames.pop()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        keywords = dict(kwargs or {})
        recorded = recorded_in((args, keywords))
        if not recorded:
            return self.computed(func, args, keywords)
        name = called(func)
        if name in VALUES:
            raise ReadsValues(
                f"{type(self.network).__name__} cannot be traced ({name} at {self._position(name)!r}): its forward must not "
                "branch on the values of a tensor or convert them to Python numbers."
            )
        only_shape = name in ("view_as", "reshape_as", "expand_as", "type_as", "to") and not isinstance(args[0], Recorded)
        if name in PROPERTIES or only_shape or (name == "type" and len(args) == 1 and not keywords):
            return self.computed(func, self._without_values(args), self._without_values(keywords))
        if name in ("repr", "str", "format"):
            return f"<{type(self.network).__name__}: a traced value of shape {tuple(recorded[0].held.value.shape)}>"
        if name == "is_contiguous":
            return True
        return self._operation(func, name, args, keywords, recorded)

    def _operation(
        self, func: Any, name: str, args: tuple[Any, ...], keywords: dict[str, Any], recorded: list[Recorded]
    ) -> Any:
        make = func.make if isinstance(func, Call) else FUNCTIONS.get(name)
        place, what = self._place(name)
        in_place = _in_place(func, name, keywords)
        if "input" in keywords and not args:
            args = (keywords.pop("input"),)
        unsupported = next((one.held for one in recorded if not _acceptable(one.held, make)), None)
        keywords = {_KEYWORDS.get(key, key): value for key, value in keywords.items()}
        held: Any
        try:
            if in_place and not isinstance(args[0], Recorded):
                raise InputError(
                    f"{what} at {place!r} cannot be converted: it writes values that depend on the input into another tensor; "
                    "use torch.cat or functional.pad instead."
                )
            if keywords.pop("out", None) is not None:
                raise Refused("it writes into another tensor (out=); use its result")
            if isinstance(unsupported, Unsupported):
                held = self._unsupported(func, args, keywords, unsupported.reason, None)
            elif make is None:
                raise Refused(f"conversion does not support it. {SUPPORTED}")
            else:
                module = (func.module,) if isinstance(func, Call) else ()
                held = self._made(make, place, (*module, *args), keywords)
        except Refused as refusal:
            reason = InputError(f"{what} at {place!r} cannot be converted: {refusal}.")
            held = self._unsupported(func, args, keywords, reason, refusal.left)
        except (RuntimeError, LookupError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"{what} at {place!r} does not take an input of shape {tuple(self.example.shape)}: {first_line(error)}"
            ) from error
        if in_place:
            args[0].held = held
            return args[0]
        return given(held, recorded, copied=name == "clone")

    def _made(self, make: Callable[..., Any], place: str, args: Any, keywords: Any) -> Any:
        """The translation of a call."""

        def held(one: Tensor) -> Any:
            if not isinstance(one, Recorded):
                return one
            return one.held.left if isinstance(one.held, Unsupported) else one.held

        return make(self, place, *changed(args, held), **changed(keywords, held))

    def _unsupported(self, func: Any, args: Any, keywords: Any, reason: InputError, left: Left | None) -> Any:
        """What the call returns, marked: refused only if the output depends on it."""
        if isinstance(func, Call):
            if left is None:
                raise reason
            return Unsupported(reason, left.of.value, left)
        try:
            result = func(*changed(args, meta), **changed(keywords, meta))
        except Exception:
            raise reason from None
        found = changed(result, lambda value: Unsupported(reason, value, left))
        if result is None or not held_in(found, Unsupported):
            raise reason
        return found

    # Writing

    def add(
        self,
        name: str,
        kind: str,
        inputs: tuple[Traced, ...],
        settings: Settings | None = None,
        tensors: dict[str, Tensor] | None = None,
    ) -> Traced:
        """Record an operation and run it on shapes."""
        kept = {key: value.detach() for key, value in (tensors or {}).items()}
        kept = {key: value.double() if value.is_floating_point() else value for key, value in kept.items()}
        name = self._unused(name)
        node = Node(name, kind, tuple(one.name for one in inputs), (), settings or {}, kept)
        if kind in ("scale", "activation"):
            value = _of_each_value(inputs[0], kept)
        else:
            value = evaluate(node, [one.value for one in inputs], {key: tensor.to("meta") for key, tensor in kept.items()})
        return self._added(Node(name, kind, node.inputs, tuple(value.shape[1:]), node.settings, kept), value)

    def node(self, x: Traced) -> Node:
        """The node that computes a value."""
        return self.nodes[x.name]

    def of(self, name: str) -> Traced:
        """The value of a node."""
        return Traced(name, self._empty(self.nodes[name].shape))

    def _added(self, node: Node, value: Tensor) -> Traced:
        if value.numel() == 0:
            raise Refused(f"its result is empty, of shape {tuple(value.shape)}")
        self.nodes[node.name] = node
        return Traced(node.name, value)

    def _unused(self, name: str) -> str:
        """The name, with a number appended if another node has it: a layer may be called "input"."""
        numbered = (f"{name}#{number}" for number in itertools.count(2))
        return name if name not in self.nodes else next(one for one in numbered if one not in self.nodes)

    def _position(self, name: str) -> str:
        frame = self.frames[-1] if self.frames else Frame("", None)
        return f"{frame.path}.{name}" if frame.path else name

    def _place(self, name: str) -> tuple[str, str]:
        """The position of an operation, and what it is called in messages: for a module of PyTorch its path and class, for
        other calls the path of the enclosing module and the name of the call, numbered if there are several."""
        outer = next((frame for frame in self.frames if frame.what is not None), None)
        if outer is not None:
            return outer.path, str(outer.what)
        number = self.names[name]
        self.names[name] += 1
        return self._position(f"{name}_{number}" if number else name), name

    def _empty(self, shape: tuple[int, ...]) -> Tensor:
        return torch.empty((BATCH, *shape), dtype=torch.float64, device="meta")

    def _stand_in(self, recorded: Recorded) -> Tensor:
        """A tensor of the same shape that takes no memory."""
        return torch.zeros((), dtype=torch.float64).expand(recorded.held.value.shape)

    def _without_values(self, arguments: Any) -> Any:
        return changed(arguments, lambda one: self._stand_in(one) if isinstance(one, Recorded) else one)

    # The result

    def _finished(self, output: Any) -> Graph:
        held: Any = output.held if isinstance(output, Recorded) else None
        left_out: tuple[str, ...] = ()
        if isinstance(held, Unsupported):
            if held.left is None or "softmax" not in held.left.call:
                raise held.reason
            held, left_out = held.left.of, (held.left.call,)
        if held is None:
            raise InputError(_not_logits(output))
        if held.value.ndim != 2:
            shape = ", ".join(map(str, ("N", *held.value.shape[1:])))
            raise InputError(f"the network's output has the shape ({shape}): logits (N, C) are needed.")
        return _reaching(list(self.nodes.values()), held.name, left_out)


_KEYWORDS = {"axis": "dim", "keepdims": "keepdim", "x2": "other"}
"""Names of arguments that PyTorch takes as numpy has them."""


def _not_logits(output: Any) -> str:
    """What is wrong with an output that is no value of the trace."""
    if isinstance(output, Tensor):
        return "the network's output does not depend on its input: conversion needs the logits of the images."
    if isinstance(output, dict):
        what = f"a dictionary with {', '.join(map(repr, output)) or 'nothing in it'}"
    elif isinstance(output, list | tuple):
        what = f"{an(output)} of {len(output)}"
    else:
        what = "None" if output is None else f"an object of the type {type(output).__name__}"
    return (
        f"the network returns {what}, not one tensor: conversion needs the logits (N, C); wrap the network in one that "
        "returns them alone."
    )


def _acceptable(held: Traced | Unsupported, make: Callable[..., Any] | None) -> bool:
    """Whether a translation takes the value."""
    if isinstance(held, Traced):
        return True
    return make is not None and held.left is not None and held.left.call in COMPLETING.get(make, ())


def _in_place(func: Any, name: str, keywords: dict[str, Any]) -> bool:
    """Whether a call modifies its first argument."""
    if isinstance(func, Call):
        return bool(getattr(func.module, "inplace", False))
    return name.endswith(("_", " =")) or name == "setitem" or bool(keywords.get("inplace"))


def _of_each_value(x: Traced, tensors: dict[str, Tensor]) -> Tensor:
    """The shape of an operation on every value for itself."""
    wrong = next((tensor for tensor in tensors.values() if tensor.ndim and tuple(tensor.shape) != (x.value.shape[1],)), None)
    if wrong is not None:
        raise ValueError(f"it has {len(wrong)} channels, its input {x.value.shape[1]}")
    return x.value


def _reaching(nodes: list[Node], output: str, left_out: tuple[str, ...]) -> Graph:
    """The nodes on which the output depends, the output last."""
    needed = {output}
    for node in reversed(nodes):
        if node.name in needed:
            needed.update(node.inputs)
    if nodes[0].name not in needed:
        raise InputError("the network's output does not depend on its input.")
    kept = [node for node in nodes if node.name in needed]
    kept.sort(key=lambda node: node.name == output)
    return Graph(tuple(kept), left_out)
