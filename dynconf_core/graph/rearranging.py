"""Translation of calls that move, repeat or leave out values, and the joining of such operations that follow one another.

Which value goes where is found by the call itself: it is made on the positions of the values in their place. So every call that
computes nothing is covered: permutations, flips, shuffles, views, repeats, nearest upsampling, padding with values of the
image.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dynconf_core.graph.graph import Graph, Node
from dynconf_core.graph.writing import Refused, Traced, Writer, pair

Move = Callable[[Tensor], Any]
"""A call on a tensor, batch first, that moves, repeats or leaves out values and changes none."""


def moved(write: Writer, name: str, x: Traced, move: Move) -> Traced:
    """The call ``move`` of ``x``.

    Raises:
        Refused: if it moves values from one sample to another, or does not keep the batch first.
    """
    value = x.value
    size = value[0].numel()
    positions = torch.arange(value.numel(), dtype=torch.float64).view(value.shape)
    found = move(positions)
    if not isinstance(found, Tensor) or found.ndim < 2 or len(found) != len(value) or not found.numel():
        raise Refused(f"it makes {_shape(found)} of {tuple(value.shape)}; the first dimension is the batch, and must stay")
    index = found - size * torch.arange(len(value), dtype=torch.float64).view(-1, *[1] * (found.ndim - 1))
    if bool((index != index[0]).any()) or float(index.min()) < 0 or float(index.max()) >= size:
        raise Refused("it changes values, or moves them from one sample to another")
    return x if torch.equal(found, positions) else _written(write, name, x, index[0])


def _written(write: Writer, name: str, x: Traced, index: Tensor) -> Traced:
    kind, settings, tensors = _simplest(index, tuple(x.value.shape[1:]))
    return write.add(name, kind, (x,), settings, tensors)


def by_method(of: str) -> Callable[..., Traced]:
    """The translation of a tensor's method."""

    def make(write: Writer, name: str, x: Traced, *arguments: Any, **words: Any) -> Traced:
        return moved(write, name, x, lambda value: getattr(value, of)(*arguments, **words))

    return make


def by_attribute(of: str) -> Callable[..., Traced]:
    """The translation of a tensor's attribute."""

    def make(write: Writer, name: str, x: Traced) -> Traced:
        return moved(write, name, x, lambda value: getattr(value, of))

    return make


def by_function(of: Callable[..., Any]) -> Callable[..., Traced]:
    """The translation of a function whose first argument is the tensor."""

    def make(write: Writer, name: str, x: Traced, *arguments: Any, **words: Any) -> Traced:
        return moved(write, name, x, lambda value: of(value, *arguments, **words))

    return make


def by_module(write: Writer, name: str, module: Any, x: Traced) -> Traced:
    """The call of a module."""
    return moved(write, name, x, module)


def upsample(write: Writer, name: str, x: Traced, *arguments: Any, **words: Any) -> Traced:
    """The call of ``interpolate`` by the nearest value."""
    mode = str(words.get("mode", arguments[2] if len(arguments) > 2 else "nearest"))
    if not mode.startswith("nearest"):
        raise Refused(f"it interpolates with mode={mode!r}, which adds up values; use mode='nearest'")
    return moved(write, name, x, lambda value: functional.interpolate(value, *arguments, **words))


def upsample_layer(write: Writer, name: str, module: Any, x: Traced) -> Traced:
    """The call of an upsampling module."""
    return upsample(write, name, x, module.size, module.scale_factor, module.mode, module.align_corners)


def unfold(write: Writer, name: str, x: Traced, *arguments: Any, **words: Any) -> Traced:
    """The windows of ``functional.unfold``, (C k k, L), or those along one dimension of the method of this name."""
    if not {"kernel_size", "dilation", "padding", "stride"} & words.keys():
        return moved(write, name, x, lambda value: value.unfold(*arguments, **words))
    rows, columns = pair(words.pop("padding", 0))
    if rows or columns:
        pads = ((0, 0), (rows, rows), (columns, columns))
        x = write.add(f"{name}.pad", "pad", (x,), {"pads": pads})
    return moved(write, name, x, lambda value: functional.unfold(value, *arguments, **words))


def unfold_layer(write: Writer, name: str, module: Any, x: Traced) -> Traced:
    """The call of a module that unfolds."""
    sizes = {field: getattr(module, field) for field in ("kernel_size", "dilation", "padding", "stride")}
    return unfold(write, name, x, **sizes)


def stack(write: Writer, name: str, tensors: Sequence[Any], dim: int = 0) -> Traced:
    """The call of ``stack``: a concatenation along a new dimension."""
    if not all(isinstance(one, Traced) for one in tensors):
        raise Refused("only activations are stacked")
    at = dim % (tensors[0].value.ndim + 1)
    if at == 0:
        raise Refused("it puts the activations before the batch; stack them behind it, torch.stack(parts, 1), and use mean(1)")
    parts = [moved(write, f"{name}.{i}", one, lambda value: value.unsqueeze(at)) for i, one in enumerate(tensors)]
    return concatenated(write, name, parts, at)


def concatenated(write: Writer, name: str, parts: Sequence[Traced], dim: int) -> Traced:
    """A concatenation along any dimension but the batch."""
    if dim == 1 or len(parts) == 1:
        return parts[0] if len(parts) == 1 else write.add(name, "concatenate", tuple(parts))
    if dim == 0:
        raise Refused("it puts activations together along the batch")
    sizes = [one.value[0].numel() for one in parts]
    flat = [moved(write, f"{name}.{i}", one, lambda value: value.flatten(1)) for i, one in enumerate(parts)]

    def together(values: Tensor) -> Tensor:
        pieces = [piece.reshape(one.value.shape) for piece, one in zip(values.split(sizes, 1), parts, strict=True)]
        return torch.cat(pieces, dim)

    return moved(write, f"{name}.places", write.add(name, "concatenate", tuple(flat)), together)


def padded(write: Writer, name: str, x: Traced, amounts: Sequence[int], mode: str) -> Traced:
    """Padding with values of the image itself ("reflect", "replicate", "circular"), or by negative amounts."""
    return moved(write, name, x, lambda value: functional.pad(value, list(amounts), mode=mode))


def of_convolution(convolved: Callable[..., Traced]) -> Callable[..., Traced]:
    """A convolution module's call as a call of its function, after its own way of padding."""

    def call(write: Writer, name: str, module: Any, x: Traced) -> Traced:
        padding = module.padding
        if module.padding_mode != "zeros":
            # What the module itself pads by, which "same" means, too.
            amounts = module._reversed_padding_repeated_twice
            x, padding = padded(write, f"{name}.pad", x, amounts, module.padding_mode), 0
        return convolved(write, name, x, module.weight, module.bias, module.stride, padding, module.dilation, module.groups)

    return call


def adaptive_pool(write: Writer, name: str, x: Traced, sizes: Sequence[int]) -> Traced:
    """The adaptive average pool to ``sizes`` of windows that are not all equal, or that repeat values.

    Every window is laid out as one of a common length, in which each of its values stands equally often; the mean over these
    is a plain average pool.
    """
    rows, repeated = [], []
    for side, wanted in zip(x.value.shape[2:], sizes, strict=True):
        windows = [range(i * side // wanted, -(-(i + 1) * side // wanted)) for i in range(wanted)]
        length = math.lcm(*(len(window) for window in windows))
        repeated.append(length)
        rows.append(torch.tensor([at for window in windows for at in window for _ in range(length // len(window))]))

    def laid_out(value: Tensor) -> Tensor:
        for dim, row in enumerate(rows, start=2):
            value = value.index_select(dim, row)
        return value

    if max(repeated) == 1:
        return moved(write, name, x, laid_out)
    kernel = pair(repeated) if len(repeated) == 2 else (1, repeated[0])
    laid = moved(write, f"{name}.windows", x, laid_out)
    return write.add(name, "average_pool", (laid,), {"kernel": kernel, "stride": kernel, "padding": (0, 0)})


MODULES: Mapping[type[nn.Module], Callable[..., Any]] = {
    nn.Upsample: upsample_layer,
    nn.Unfold: unfold_layer,
    **dict.fromkeys((nn.ChannelShuffle, nn.PixelShuffle, nn.PixelUnshuffle, nn.Unflatten), by_module),
    **dict.fromkeys((nn.ReflectionPad1d, nn.ReplicationPad1d, nn.CircularPad1d), by_module),
    **dict.fromkeys((nn.ReflectionPad2d, nn.ReplicationPad2d, nn.CircularPad2d), by_module),
}
CALLS: Mapping[Any, Callable[..., Any]] = {
    **{
        of: by_function(of)
        for of in (
            *(torch.permute, torch.transpose, torch.swapaxes, torch.swapdims, torch.movedim, torch.moveaxis),
            *(torch.unsqueeze, torch.unflatten, torch.narrow, torch.select, torch.index_select),
            *(torch.flip, torch.fliplr, torch.flipud, torch.roll, torch.rot90, torch.repeat_interleave, torch.tile),
            *(functional.channel_shuffle, functional.pixel_shuffle, functional.pixel_unshuffle),
        )
    },
    torch.stack: stack,
    functional.interpolate: upsample,
}
METHODS: Mapping[str, Callable[..., Any]] = {
    of: by_method(of)
    for of in (
        *("permute", "transpose", "swapaxes", "swapdims", "movedim", "moveaxis", "unsqueeze", "unflatten", "narrow", "select"),
        *("index_select", "flip", "fliplr", "flipud", "roll", "rot90", "repeat", "repeat_interleave", "tile", "expand"),
        *("expand_as", "view_as", "reshape_as"),
    )
} | {"unfold": unfold}

# Joining


def joined(graph: Graph) -> Graph:
    """The graph in which rearrangements and flattenings that follow one another are one, and those without effect left out."""
    roots: dict[str, tuple[Node, Tensor]] = {}
    nodes: dict[str, Node] = {}
    same: dict[str, str] = {}
    for node in graph.nodes:
        node = replace(node, inputs=tuple(same.get(name, name) for name in node.inputs))
        if node.kind in ("rearrange", "flatten"):
            source = nodes[node.inputs[0]]
            root, through = roots.get(source.name, (source, _positions(source)))
            index = through.flatten()[_index(node, source).flatten()].view(node.shape)
            if node.kind == "rearrange" or source.name in roots:
                if index.shape == root.shape and torch.equal(index, _positions(root)):
                    same[node.name] = root.name
                    if node.name != graph.output.name:
                        continue
                kind, settings, tensors = _simplest(index, root.shape)
                node = Node(node.name, kind, (root.name,), node.shape, settings, tensors)
            roots[node.name] = (root, index)
        nodes[node.name] = node
    return replace(graph, nodes=_needed(tuple(nodes.values())))


def _simplest(index: Tensor, shape: tuple[int, ...]) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    """Kind, settings and tensors of the node that reads ``index`` of values of this shape."""
    index = index.contiguous()
    size = index[0].numel()
    plain = torch.arange(index.numel(), dtype=index.dtype)
    if index.ndim == 1 and len(shape) > 1 and len(index) == _size(shape) and torch.equal(index, plain):
        return "flatten", {}, {}
    if index.shape[1:] == shape[1:]:
        rows = index.view(len(index), -1)
        first = rows[:, :1]
        if torch.equal(rows, first + plain[:size]) and bool((first % size == 0).all()):
            return "rearrange", {"of": "channels"}, {"index": (first[:, 0] // size).to(torch.int32)}
    return "rearrange", {"of": "values"}, {"index": index.to(torch.int32)}


def _index(node: Node, source: Node) -> Tensor:
    """The positions in the flattened input that the node reads."""
    if node.kind == "flatten":
        return _positions(source).flatten()
    index = node.tensors["index"].long()
    return _positions(source)[index] if node.settings["of"] == "channels" else index


def _positions(node: Node) -> Tensor:
    return torch.arange(_size(node.shape)).view(node.shape)


def _size(shape: tuple[int, ...]) -> int:
    return int(torch.Size(shape).numel())


def _needed(nodes: tuple[Node, ...]) -> tuple[Node, ...]:
    """The nodes that the last one depends on."""
    wanted = {nodes[-1].name}
    for node in reversed(nodes):
        if node.name in wanted:
            wanted.update(node.inputs)
    return tuple(node for node in nodes if node.name in wanted)


def _shape(found: Any) -> Any:
    return tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
