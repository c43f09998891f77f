"""Validation of a graph that comes from a file: its nodes, their order, settings, tensors and shapes.

Shapes are computed from the settings alone, so that a graph that asks for too much memory is refused before any is taken.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from dynconf_core.errors import InputError
from dynconf_core.graph.graph import Graph, Node

LARGEST = 2**28
"""Values of one node for one sample: 1 GiB as float32."""
RANK = 8
"""Dimensions of a value, without the batch."""
PLACES = 256
"""Binary places of weights and rounded values."""
Check = Callable[[Any], bool]
Shape = tuple[int, ...]


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
_ANY: dict[str, Check] = {"wide": _FLAG}
_BITS: Check = lambda value: _whole(value, -PLACES, PLACES)  # noqa: E731
KINDS: Mapping[str, _Kind] = {
    "input": _Kind((0, 0), {}),
    "convolution": _Kind((1, 1), _GEOMETRY, ("weight",), {"bits": _BITS}, ("bias",)),
    "linear": _Kind((1, 1), {}, ("weight",), {"bits": _BITS}, ("bias",)),
    "scale": _Kind((1, 1), {}, ("weight",), {"bits": _BITS, "identity": _FLAG}, ("bias",)),
    "average_pool": _Kind((1, 1), _WINDOW),
    "sum_pool": _Kind((1, 1), _WINDOW),
    "max_pool": _Kind((1, 1), {**_WINDOW, "dilation": _pair(1), "ceil_mode": _FLAG}, more={"least": _FLAG}),
    "add": _Kind((2, math.inf), {}),
    "concatenate": _Kind((1, math.inf), {}),
    "slice": _Kind((1, 1), {"slices": _by_dimension(3, none=True)}),
    "pad": _Kind((1, 1), {"pads": _by_dimension(2, none=False)}),
    "flatten": _Kind((1, 1), {}),
    "rearrange": _Kind((1, 1), {"of": lambda value: value in ("values", "channels")}, ("index",)),
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


def check_indices(graph: Graph) -> None:
    """Check the positions that rearrangements read, in a graph that is ``checked`` and whose tensors are known to be dense.

    Raises:
        InputError: naming the first node with a position outside its input.
    """
    for node in graph.of_kind("rearrange"):
        shape = graph.by_name[node.inputs[0]].shape
        there = shape[0] if node.settings["of"] == "channels" else math.prod(shape)
        least, most = (int(end) for end in node.tensors["index"].aminmax())
        if least < 0 or most >= there:
            raise InputError(
                f"node {node.name!r} of its graph reads the positions {least} to {most} of {there} {node.settings['of']}."
            )


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
    allowed = {**kind.settings, **kind.more, **_ANY}
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
    """Whether the node's operation yields its shape."""
    if node.kind == "input":
        return None
    found = computed_shape(node, [tuple(known[name].shape) for name in node.inputs])
    if found is None:
        return f"cannot be computed: {node.kind} of {[tuple(known[name].shape) for name in node.inputs]}"
    return None if found == tuple(node.shape) else f"has the shape {tuple(node.shape)}, but its inputs give {found}"


def computed_shape(node: Node, given: list[Shape]) -> Shape | None:
    """The shape that a node's operation gives for inputs of these shapes; None where it cannot be computed."""
    try:
        found = _SHAPES[node.kind](node, given)
    except ValueError:
        return None
    return None if found is None or any(side < 1 for side in found) else found


# Shapes: of a node's value, for the shapes of its inputs; ValueError or None where there is none.


def _of_convolution(node: Node, given: list[Shape]) -> Shape | None:
    (channels, *image), settings = _as_image(given[0]), node.settings
    outputs, inputs, *kernel = node.tensors["weight"].shape
    groups = settings["groups"]
    if len(image) != 2 or len(kernel) != 2 or inputs * groups != channels or outputs % groups:
        return None
    if "bias" in node.tensors and tuple(node.tensors["bias"].shape) != (outputs,):
        return None
    geometry = zip(image, kernel, settings["stride"], settings["padding"], settings["dilation"], strict=True)
    found = [(side + 2 * pad - step * (size - 1) - 1) // stride + 1 for side, size, stride, pad, step in geometry]
    return _like((outputs, *found), given[0])


def _as_image(shape: Shape) -> Shape:
    """A signal (C, L) is an image (C, 1, L)."""
    return (shape[0], 1, shape[1]) if len(shape) == 2 else shape


def _like(image: Shape, given: Shape) -> Shape | None:
    """The shape of a signal again, where one was given."""
    if len(given) == 2:
        return (image[0], image[2]) if image[1] == 1 else None
    return image


def _of_linear(node: Node, given: list[Shape]) -> Shape | None:
    (features,) = given[0]
    outputs, inputs = node.tensors["weight"].shape
    biased = "bias" not in node.tensors or tuple(node.tensors["bias"].shape) == (outputs,)
    return (outputs,) if inputs == features and biased else None


def _of_pool(node: Node, given: list[Shape]) -> Shape | None:
    channels, *image = _as_image(given[0])
    settings = node.settings
    if len(image) != 2:
        return None
    found = [channels]
    dilation, ceil = settings.get("dilation", (1, 1)), bool(settings.get("ceil_mode", False))
    for side, size, stride, pad, step in zip(
        image, settings["kernel"], settings["stride"], settings["padding"], dilation, strict=True
    ):
        span = side + 2 * pad - step * (size - 1) - 1
        if 2 * pad > size or span < 0:
            return None
        windows = (span + (stride - 1 if ceil else 0)) // stride + 1
        # With ceil_mode, a last window that would begin in the padding is left out.
        found.append(windows - 1 if ceil and (windows - 1) * stride >= side + pad else windows)
    return _like(tuple(found), given[0])


def _of_one_shape(node: Node, given: list[Shape]) -> Shape | None:
    return given[0] if len({*given}) == 1 else None


def _of_concatenation(node: Node, given: list[Shape]) -> Shape | None:
    return (sum(shape[0] for shape in given), *given[0][1:]) if len({shape[1:] for shape in given}) == 1 else None


def _of_slices(node: Node, given: list[Shape]) -> Shape | None:
    slices = node.settings["slices"]
    if len(slices) > len(given[0]) or any(step is not None and step < 1 for _, _, step in slices):
        return None
    cut = (len(range(*slice(*bounds).indices(side))) for bounds, side in zip(slices, given[0], strict=False))
    return (*cut, *given[0][len(slices) :])


def _of_pads(node: Node, given: list[Shape]) -> Shape | None:
    return tuple(before + side + after for (before, after), side in zip(node.settings["pads"], given[0], strict=True))


def _of_rearrangement(node: Node, given: list[Shape]) -> Shape | None:
    index = tuple(node.tensors["index"].shape)
    if node.settings["of"] == "values":
        return index
    return (*index, *given[0][1:]) if len(index) == 1 else None


_SHAPES: Mapping[str, Callable[[Node, list[Shape]], Shape | None]] = {
    "convolution": _of_convolution,
    "linear": _of_linear,
    "scale": _of_one_shape,
    "average_pool": _of_pool,
    "sum_pool": _of_pool,
    "max_pool": _of_pool,
    "add": _of_one_shape,
    "concatenate": _of_concatenation,
    "slice": _of_slices,
    "pad": _of_pads,
    "flatten": lambda node, given: (math.prod(given[0]),),
    "rearrange": _of_rearrangement,
    "round": _of_one_shape,
    "neurons": _of_one_shape,
}
