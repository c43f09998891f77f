"""Translation of sums, constant factors, concatenation, slicing and reshaping calls into graph nodes."""

from typing import Any

import torch

from dynconf_core.graph import rearranging
from dynconf_core.graph.writing import Refused, Traced, Writer, constant

# Arithmetic


def add(write: Writer, name: str, x: Any, other: Any, alpha: Any = 1) -> Traced:
    """x + alpha other: the sum of two activations, or a bias."""
    if alpha != 1:
        other = multiply(write, f"{name}.alpha", other, alpha) if isinstance(other, Traced) else other * alpha
    if not isinstance(x, Traced) or not isinstance(other, Traced):
        value, offset = (x, other) if isinstance(x, Traced) else (other, x)
        one = torch.ones((), dtype=torch.float64)
        return write.add(name, "scale", (value,), {}, {"weight": one, "bias": _offset(offset, value)})
    if x.value.shape != other.value.shape:
        x, other = _broadcast(write, name, x, other)
    return write.add(name, "add", (x, other))


def _broadcast(write: Writer, name: str, *terms: Traced) -> list[Traced]:
    """The terms of a sum in one shape: what has one place along a dimension is repeated."""
    shapes = [tuple(one.value.shape) for one in terms]
    try:
        shape = torch.broadcast_shapes(*shapes)
    except RuntimeError:
        shape = torch.Size()
    if len({len(one) for one in shapes}) > 1 or not shape or shape[0] != terms[0].value.shape[0]:
        given = " and ".join(str(one[1:]) for one in shapes)
        raise Refused(f"it adds shapes {given}; they must be equal, or 1 where they differ")
    return [rearranging.moved(write, f"{name}.{i}", one, lambda value: value.expand(shape)) for i, one in enumerate(terms)]


def subtract(write: Writer, name: str, x: Any, other: Any, alpha: Any = 1) -> Traced:
    """x - alpha other."""
    if isinstance(other, Traced):
        return add(write, name, multiply(write, f"{name}.negative", other, -alpha), x)
    return add(write, name, x, -other, alpha)


def subtract_from(write: Writer, name: str, x: Any, other: Any) -> Traced:
    """other - x."""
    return subtract(write, name, other, x)


def negative(write: Writer, name: str, x: Traced) -> Traced:
    """-x."""
    return multiply(write, name, x, -1.0)


def multiply(write: Writer, name: str, x: Any, other: Any) -> Traced:
    """x * other, where one of the two is constant."""
    value, factor = (x, other) if isinstance(x, Traced) else (other, x)
    if isinstance(factor, Traced):
        raise Refused("a product of two activations has no spiking counterpart; only a constant factor has")
    return write.add(name, "scale", (value,), {}, {"weight": constant(factor, value)})


def divide(write: Writer, name: str, x: Any, other: Any) -> Traced:
    """x / other, for a constant divisor."""
    if isinstance(other, Traced) or not isinstance(x, Traced):
        raise Refused("a quotient of activations has no spiking counterpart; only a constant divisor has")
    divisor = constant(other, x)
    if not bool(divisor.all()):
        raise Refused("it divides by 0")
    return write.add(name, "scale", (x,), {}, {"weight": 1 / divisor})


def divided_by(write: Writer, name: str, x: Any, other: Any) -> Traced:
    """other / x."""
    return divide(write, name, other, x)


def _offset(value: Any, x: Traced) -> torch.Tensor:
    """A constant expanded to one value per channel: a bias is never a single number."""
    return constant(value, x).expand(x.value.shape[1])


# Concatenating, slicing and padding


def concatenate(write: Writer, name: str, tensors: Any, dim: int = 0) -> Traced:
    """Concatenation along the channels."""
    parts = tuple(tensors)
    if not all(isinstance(part, Traced) for part in parts):
        raise Refused("only activations are concatenated; to add zeros use functional.pad")
    return rearranging.concatenated(write, name, parts, dim % parts[0].value.ndim)


def item(write: Writer, name: str, x: Any, index: Any) -> Any:
    """x[index], for slices of channels, rows and columns."""
    index = index if isinstance(index, tuple) else (index,)
    if not all(isinstance(part, slice) or part is Ellipsis for part in index):
        return rearranging.moved(write, name, x, lambda value: value[index])
    at = next((i for i, part in enumerate(index) if part is Ellipsis), None)
    if at is not None:
        index = (*index[:at], *[slice(None)] * (x.value.ndim - len(index) + 1), *index[at + 1 :])
    if index[0] != slice(None) or len(index) > x.value.ndim:
        raise Refused("it takes a part of the batch; take channels, rows and columns, x[:, a:b, ::2, ::2]")
    index = (*index, *[slice(None)] * (x.value.ndim - len(index)))
    bounds = [part.indices(size) for part, size in zip(index[1:], x.value.shape[1:], strict=True)]
    if any(step < 1 for _, _, step in bounds):
        raise Refused("a slice runs backwards; use a positive step")
    return write.add(name, "slice", (x,), {"slices": tuple(bounds)})


def chunk(write: Writer, name: str, x: Traced, chunks: int, dim: int = 0) -> tuple[Traced, ...]:
    """Split into this many parts."""
    return _parts(write, name, x, torch.arange(_side(x, dim)).chunk(int(chunks)), dim)


def split(write: Writer, name: str, x: Traced, split_size_or_sections: Any, dim: int = 0, **words: Any) -> tuple[Traced, ...]:
    """Split into parts of this size or of these sizes."""
    return _parts(write, name, x, torch.arange(_side(x, dim)).split(split_size_or_sections), dim)


def tensor_split(write: Writer, name: str, x: Traced, indices_or_sections: Any, dim: int = 0) -> tuple[Traced, ...]:
    """Split into this many parts, or at these places."""
    return _parts(write, name, x, torch.arange(_side(x, dim)).tensor_split(indices_or_sections), dim)


def unbind(write: Writer, name: str, x: Traced, dim: int = 0) -> tuple[Traced, ...]:
    """Every channel (or row, or column) for itself."""
    return tuple(item(write, f"{name}.{i}", x, (*_whole(x, dim), i)) for i in range(_side(x, dim)))


def _side(x: Traced, dim: int) -> int:
    if dim % x.value.ndim == 0:
        raise Refused("it splits the batch; split channels (dim=1), rows or columns")
    return int(x.value.shape[dim])


def _whole(x: Traced, dim: int) -> tuple[slice, ...]:
    """The index of all that stands before a dimension."""
    return (slice(None),) * (dim % x.value.ndim)


def _parts(write: Writer, name: str, x: Traced, parts: Any, dim: int) -> tuple[Traced, ...]:
    bounds = [slice(int(part[0]), int(part[-1]) + 1) if len(part) else slice(0, 0) for part in parts]
    return tuple(item(write, f"{name}.{i}", x, (*_whole(x, dim), part)) for i, part in enumerate(bounds))


def pad(write: Writer, name: str, x: Traced, pad: Any, mode: str = "constant", value: Any = None) -> Traced:
    """Padding with zeros."""
    amounts = [int(amount) for amount in pad]
    if mode != "constant":
        return rearranging.padded(write, name, x, amounts, mode)
    if value not in (None, 0, 0.0):
        raise Refused(f"it pads with value={value}; pad with zeros, or with values of the image (mode='replicate')")
    if any(amount < 0 for amount in amounts):
        raise Refused("it pads by a negative amount; slice instead")
    pairs = list(zip(amounts[::2], amounts[1::2], strict=True))[::-1]
    pads = [(0, 0)] * (x.value.ndim - 1 - len(pairs)) + pairs
    if len(pads) != x.value.ndim - 1:
        raise Refused("it pads the batch; pad channels, rows and columns only")
    return write.add(name, "pad", (x,), {"pads": tuple(pads)})


def zero_pad(write: Writer, name: str, module: Any, x: Traced) -> Traced:
    """The call of a zero-padding module."""
    return pad(write, name, x, module.padding)


# Reshaping


def flatten(write: Writer, name: str, x: Traced, start_dim: int = 0, end_dim: int = -1) -> Traced:
    """Flatten everything but the batch."""
    if x.value.ndim == 2 and start_dim % 2 == 1:
        return x
    if start_dim % x.value.ndim != 1 or end_dim % x.value.ndim != x.value.ndim - 1:
        return rearranging.moved(write, name, x, lambda value: value.flatten(start_dim, end_dim))
    return write.add(name, "flatten", (x,))


def reshape(write: Writer, name: str, x: Traced, *shape: Any) -> Traced:
    """A reshape that keeps the batch."""
    given = shape[0] if len(shape) == 1 and isinstance(shape[0], tuple | list | torch.Size) else shape
    wanted = x.value.reshape(tuple(int(size) for size in given)).shape
    if wanted == x.value.shape:
        return x
    return rearranging.moved(write, name, x, lambda value: value.reshape(wanted))


def squeeze(write: Writer, name: str, x: Traced, *dims: Any, **words: Any) -> Traced:
    """A squeeze that keeps the batch."""
    return reshape(write, name, x, tuple(x.value.squeeze(*dims, **words).shape))


def shaped_as(write: Writer, name: str, x: Any, other: Any) -> Traced:
    """The value in the shape of another one."""
    shape = other.value.shape if isinstance(other, Traced) else other.shape
    if x.value.numel() == shape.numel():
        return reshape(write, name, x, tuple(shape))
    return rearranging.moved(write, name, x, lambda value: value.expand(shape))
