"""Translation of sums, constant factors, concatenation and padding into graph nodes."""

from typing import Any

import torch

from dynconf_core.graph.writing import Refused, Traced, Writer, constant, viewed

# Arithmetic


def add(write: Writer, name: str, x: Any, other: Any, alpha: Any = 1) -> Traced:
    """x + alpha other: the sum of two activations, or a bias."""
    if alpha != 1:
        other = multiply(write, f"{name}.alpha", other, alpha) if isinstance(other, Traced) else other * alpha
    if not isinstance(x, Traced) or not isinstance(other, Traced):
        value, offset = (x, other) if isinstance(x, Traced) else (other, x)
        one = torch.ones((), dtype=torch.float64)
        return write.add(name, "scale", (value,), {}, {"weight": one, "bias": _offset(offset, value)})
    if x.shape != other.shape or x.stored != other.stored:
        raise Refused(f"it adds shapes {x.shape} and {other.shape}; they must be equal")
    if x.node_shape is not None:
        return viewed(write.add(name, "add", (write.stored(x.name), write.stored(other.name))), x.shape)
    return write.add(name, "add", (x, other))


def subtract(write: Writer, name: str, x: Any, other: Any, alpha: Any = 1) -> Traced:
    """x - alpha other."""
    if isinstance(other, Traced):
        return (
            add(write, name, negative(write, f"{name}.negative", other), x, 1)
            if alpha == 1
            else add(write, name, x, multiply(write, f"{name}.alpha", other, -alpha))
        )
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
    weight = constant(factor, value)
    if value.node_shape is not None:
        if weight.ndim:
            raise Refused(f"it multiplies {value.stored} reshaped to {value.shape} by several factors; reshape it back first")
        return viewed(write.add(name, "scale", (write.stored(value.name),), {}, {"weight": weight}), value.shape)
    return write.add(name, "scale", (value,), {}, {"weight": weight})


def divide(write: Writer, name: str, x: Any, other: Any) -> Traced:
    """x / other, for a constant divisor."""
    if isinstance(other, Traced) or not isinstance(x, Traced):
        raise Refused("a quotient of activations has no spiking counterpart; only a constant divisor has")
    divisor = constant(other, x)
    if not bool(divisor.all()):
        raise Refused("it divides by 0")
    return multiply(write, name, x, _like(1 / divisor, x))


def divided_by(write: Writer, name: str, x: Any, other: Any) -> Traced:
    """other / x."""
    return divide(write, name, other, x)


def _like(values: torch.Tensor, x: Traced) -> torch.Tensor:
    """One number, or one per channel, in a shape that broadcasts with x."""
    return values.view(-1, *[1] * (len(x.shape) - 1)) if values.ndim else values


def _offset(value: Any, x: Traced) -> torch.Tensor:
    """A constant expanded to one value per channel: a bias is never a single number."""
    return constant(value, x).expand(x.value.shape[1])


# Concatenating, slicing and padding


def concatenate(write: Writer, name: str, tensors: Any, dim: int = 0) -> Traced:
    """Concatenation along the channels."""
    parts: tuple[Traced, ...] = tuple(tensors)
    if not all(isinstance(part, Traced) for part in parts) or dim % parts[0].value.ndim != 1:
        raise Refused("only activations are concatenated, and only along the channels (dim=1); to add zeros use functional.pad")
    if len(parts) == 1:
        return parts[0]
    if all(part.node_shape is None for part in parts):
        return write.add(name, "concatenate", parts)
    # Reshaped values: what stands along the first dimension must be whole channels of the nodes, equally many of each.
    of_one = {(part.shape[1:], part.stored[1:], part.stored[0] / part.shape[0]) for part in parts}
    if len(of_one) != 1 or parts[0].stored[0] % parts[0].shape[0]:
        raise Refused(f"it concatenates reshaped values of {[part.shape for part in parts]}; concatenate before reshaping")
    joined = write.add(name, "concatenate", tuple(write.stored(part.name) for part in parts))
    return viewed(joined, (sum(part.shape[0] for part in parts), *parts[0].shape[1:]))


def stack(write: Writer, name: str, tensors: Any, dim: int = 0) -> Traced:
    """Tensors beside each other along a new dimension before the channels."""
    parts = tuple(tensors)
    if not all(isinstance(part, Traced) for part in parts) or dim % (parts[0].value.ndim + 1) != 1:
        raise Refused("only activations are stacked, and only before the channels (dim=1)")
    if len({(part.shape, part.stored) for part in parts}) != 1:
        raise Refused(f"it stacks values of {[part.shape for part in parts]} that are stored differently")
    return (
        concatenate(write, name, [viewed(part, (1, *part.shape)) for part in parts], 1)
        if len(parts) > 1
        else viewed(parts[0], (1, *parts[0].shape))
    )


def pad(write: Writer, name: str, x: Traced, pad: Any, mode: str = "constant", value: Any = None) -> Traced:
    """Padding with zeros."""
    if mode != "constant" or value not in (None, 0, 0.0):
        raise Refused(f"it pads with mode={mode!r}, value={value}; pad with zeros")
    amounts = [int(amount) for amount in pad]
    if not any(amounts):
        return x
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
