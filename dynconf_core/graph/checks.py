"""Validation of a graph that comes from a file: its nodes, their order, settings, tensors and shapes.

Shapes are computed without data, so a graph that asks for more memory than there is is refused before any is taken.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch

from dynconf_core.errors import InputError
from dynconf_core.graph.graph import Graph, Node
from dynconf_core.graph.operations import evaluate

LARGEST = 2**28
"""Values of one node for one sample: 1 GiB as float32."""
RANK = 8
"""Dimensions of a value, without the batch."""
PLACES = 256
"""Binary places of weights and rounded values."""
Check = Callable[[Any], bool]


class _Kind(NamedTuple):
    """What a kind of node has: least and most inputs, settings and tensors; those of ``more`` and ``bias`` may be missing."""

    inputs: tuple[int, float]
    settings: Mapping[str, Check]
    tensors: tuple[str, ...] = ()
    more: Mapping[str, Check] = {}
    bias: tuple[str, ...] = ()


def _whole(value: Any, least: int, most: int = 2**31) -> bool:
    return type(value) is int and least <= value <= most


def _pair(least: int) -> Check:
    return lambda value: isinstance(value, tuple | list) and len(value) == 2 and all(_whole(one, least) for one in value)


def _by_dimension(length: int, *, none: bool) -> Check:
    def check(value: Any) -> bool:
        if not isinstance(value, tuple | list) or not 1 <= len(value) <= RANK:
            return False
        rows = all(isinstance(row, tuple | list) and len(row) == length for row in value)
        return rows and all((none and one is None) or _whole(one, -(2**31)) for row in value for one in row)

    return check


_GEOMETRY: dict[str, Check] = {
    "stride": _pair(1),
    "padding": _pair(0),
    "dilation": _pair(1),
    "groups": lambda value: _whole(value, 1),
}
_WINDOW: dict[str, Check] = {"kernel": _pair(1), "stride": _pair(1), "padding": _pair(0)}
_FLAG: Check = lambda value: isinstance(value, bool)  # noqa: E731
_LEVELS: Check = lambda value: value is None or _whole(value, 1)  # noqa: E731
_BITS: Check = lambda value: _whole(value, -PLACES, PLACES)  # noqa: E731
KINDS: Mapping[str, _Kind] = {
    "input": _Kind((0, 0), {}),
    "convolution": _Kind((1, 1), _GEOMETRY, ("weight",), {"bits": _BITS}, ("bias",)),
    "linear": _Kind((1, 1), {}, ("weight",), {"bits": _BITS}, ("bias",)),
    "scale": _Kind((1, 1), {}, ("weight",), {"bits": _BITS, "identity": _FLAG}, ("bias",)),
    "average_pool": _Kind((1, 1), _WINDOW),
    "sum_pool": _Kind((1, 1), _WINDOW),
    "max_pool": _Kind((1, 1), {**_WINDOW, "dilation": _pair(1), "ceil_mode": _FLAG}),
    "add": _Kind((2, math.inf), {}),
    "concatenate": _Kind((1, math.inf), {}),
    "slice": _Kind((1, 1), {"slices": _by_dimension(3, none=True)}),
    "pad": _Kind((1, 1), {"pads": _by_dimension(2, none=False)}),
    "flatten": _Kind((1, 1), {}),
    "round": _Kind((1, 1), {"bits": _BITS}),
    "neurons": _Kind((1, 1), {"levels": _LEVELS, "clipped": _FLAG}, ("threshold", "initial")),
}
"""The kinds of a converted network, whose activations are neurons."""


def checked(graph: Graph) -> Graph:
    """The graph, if it can be computed.

    Raises:
        InputError: naming the first node at fault, and what is wrong with it.
    """
    if not graph.nodes or graph.input.kind != "input":
        raise InputError("its graph does not begin with an input.")
    known: dict[str, Node] = {}
    for place, node in enumerate(graph.nodes):
        fault = _fault(node, place, known)
        if fault is not None:
            name = node.name if isinstance(node.name, str) else place
            raise InputError(f"node {str(name)[:80]!r} of its graph {fault}.")
        known[node.name] = node
    if len(graph.output.shape) != 1:
        raise InputError(f"its graph ends in values of the shape {graph.output.shape}, not in logits (C,).")
    return graph


def _fault(node: Node, place: int, known: Mapping[str, Node]) -> str | None:
    """What is wrong with a node, given those before it; None if nothing is."""
    if not isinstance(node.name, str) or not node.name:
        return "has no name"
    if node.name in known:
        return "has the name of another one"
    kind = KINDS.get(node.kind) if isinstance(node.kind, str) else None
    if kind is None:
        return f"is of the unknown kind {str(node.kind)[:40]!r} (known are {', '.join(KINDS)})"
    if (node.kind == "input") != (place == 0):
        return "is a second input"
    if (missing := next((name for name in node.inputs if not isinstance(name, str) or name not in known), None)) is not None:
        return f"reads {str(missing)[:80]!r}, which no node before it is called (a cycle, or a node that is missing)"
    least, most = kind.inputs
    if not least <= len(node.inputs) <= most:
        return f"has {len(node.inputs)} inputs, which no {node.kind} has"
    if not 1 <= len(node.shape) <= RANK or not all(_whole(side, 1) for side in node.shape):
        return f"has the shape {str(node.shape)[:80]}"
    if math.prod(node.shape) > LARGEST:
        return f"has the shape {node.shape}, more than {LARGEST} values for one sample"
    return _fault_of_settings(node, kind) or _fault_of_tensors(node, kind) or _fault_of_shape(node, known)


def _fault_of_settings(node: Node, kind: _Kind) -> str | None:
    allowed = {**kind.settings, **kind.more}
    if not kind.settings.keys() <= node.settings.keys() <= allowed.keys():
        return f"has the settings {sorted(map(str, node.settings))[:8]}, not {sorted(kind.settings)}"
    wrong = next((name for name, value in node.settings.items() if not allowed[name](value)), None)
    return None if wrong is None else f"has the setting {wrong} = {str(node.settings[wrong])[:80]}"


def _fault_of_tensors(node: Node, kind: _Kind) -> str | None:
    if not set(kind.tensors) <= node.tensors.keys() <= {*kind.tensors, *kind.bias}:
        return f"has the tensors {sorted(map(str, node.tensors))[:8]}, not {sorted(kind.tensors)}"
    by_channel = ((), (node.channels,))
    one_each = node.tensors if node.kind in ("neurons", "scale") else {}
    wrong = next((name for name in one_each if tuple(node.tensors[name].shape) not in by_channel), None)
    return (
        None if wrong is None else f"has {wrong} of the shape {tuple(node.tensors[wrong].shape)}, not () or ({node.channels},)"
    )


def _fault_of_shape(node: Node, known: Mapping[str, Node]) -> str | None:
    """Whether the node's operation yields its shape, computed on tensors without data."""
    if node.kind == "input":
        return None
    batch = 2  # a single sample could be taken for a value without a batch
    given = [torch.empty((batch, *known[name].shape), device="meta") for name in node.inputs]
    tensors = {name: torch.empty(tensor.shape, device="meta") for name, tensor in node.tensors.items()}
    try:
        found = given[0] if node.kind == "neurons" else evaluate(node, given, tensors)
    except Exception as error:  # of any kind, since any numbers may be asked for
        return f"cannot be computed ({(str(error).splitlines() or [type(error).__name__])[0][:200]})"
    if tuple(found.shape) == (batch, *node.shape):
        return None
    return f"has the shape {tuple(node.shape)}, but its inputs give {tuple(found.shape[1:])}"
