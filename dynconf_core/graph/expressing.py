"""Translation of calls that others express: writing into a part, powers, interpolation between two values, Einstein sums,
transposed convolutions."""

from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dynconf_core.graph import arrangement, layers, limits, rearranging, refusals, signals
from dynconf_core.graph.writing import Left, Refused, Traced, Writer


def power(write: Writer, name: str, x: Any, exponent: Any, *rest: Any) -> Traced:
    """x to the power of 1."""
    if isinstance(x, Traced) and isinstance(exponent, Real) and exponent == 1:
        return x
    raise Refused(f"{refusals.ROOTS.reason}; {refusals.ROOTS.instead}")


def between(write: Writer, name: str, x: Any, end: Any, weight: Any) -> Traced:
    """x + weight (end - x), for a constant weight."""
    if isinstance(weight, Traced):
        raise Refused(f"{refusals.PRODUCT.reason}; {refusals.PRODUCT.instead}")
    parts = [
        limits.multiply(write, f"{name}.{i}", one, factor) if isinstance(one, Traced) else one * factor
        for i, (one, factor) in enumerate(((x, 1 - weight), (end, weight)))
    ]
    return arrangement.add(write, name, *parts)


def assign(write: Writer, name: str, x: Traced, index: Any, value: Any) -> Any:
    """x[index] = value, for zeros or activations; x[x < 0] = 0 is a choice."""
    if isinstance(index, Left):
        return limits.masked_fill(write, name, x, index, value)
    if isinstance(x, Left) or isinstance(value, Left):
        raise Refused(limits.COMPARED)
    size, shape = x.value[0].numel(), x.value.shape
    part = torch.empty(shape)[index].shape
    if not part or part[0] != shape[0]:
        raise Refused("it writes into a part of the batch; write into channels, rows and columns, x[:, a:b] = 0")
    if isinstance(value, Traced):
        if value.value.ndim > len(part) or value.value.shape[0] != shape[0]:
            raise Refused(f"it writes values of shape {tuple(value.value.shape[1:])} into a part of shape {tuple(part[1:])}")
        flat = [rearranging.moved(write, f"{name}.{i}", one, lambda v: v.flatten(1)) for i, one in enumerate((x, value))]
        both, given = write.add(f"{name}.both", "concatenate", tuple(flat)), tuple(value.value.shape[1:])
    else:
        if bool(torch.as_tensor(value).any()):
            raise Refused("it writes constants other than 0 into a part; write zeros, or put the parts together by torch.cat")
        both, given = with_zero(write, name, x), (1,) * (len(part) - 1)

    def written(values: Tensor) -> Tensor:
        whole = values[:, :size].reshape(shape).clone()
        whole[index] = values[:, size:].reshape(-1, *given)
        return whole

    return rearranging.moved(write, name, both, written)


def with_zero(write: Writer, name: str, x: Traced) -> Traced:
    """The flattened values, and a zero behind them."""
    flat = rearranging.moved(write, f"{name}.flat", x, lambda value: value.flatten(1))
    return write.add(f"{name}.zero", "pad", (flat,), {"pads": ((0, 1),)})


def einstein_sum(write: Writer, name: str, equation: Any, *operands: Any) -> Traced:
    """The call of ``einsum`` on activations, alone or with one constant: a scale, or a layer over the shared dimensions."""
    operands = tuple(operands[0]) if len(operands) == 1 and isinstance(operands[0], list | tuple) else operands
    if sum(isinstance(one, Traced) for one in operands) > 1:
        raise Refused(f"{refusals.PRODUCT.reason}; {refusals.PRODUCT.instead}")
    terms, arrow, result = str(equation).replace(" ", "").partition("->")
    letters = terms.split(",")
    known = isinstance(equation, str) and arrow and "." not in equation and len(letters) == len(operands) < 3
    if not known or any(len(set(one)) != len(one) for one in letters):
        raise Refused("only einsum('...->...') of activations and one constant, with a letter for each dimension, is supported")
    at = next(i for i, one in enumerate(operands) if isinstance(one, Traced))
    x, own = operands[at], letters[at]
    weight, other = (operands[1 - at], letters[1 - at]) if len(operands) == 2 else (torch.ones(()), "")
    if not result.startswith(own[0]) or own[0] in other:
        raise Refused("its constant or its result has another batch; the first letter of the activations is the batch")
    dropped = [dim for dim, one in enumerate(own) if one not in other + result]
    if dropped:
        x = layers.total(write, f"{name}.sum", x, dropped)
        own = "".join(one for one in own if one in other + result)
    unread = [dim for dim, one in enumerate(other) if one not in own + result]
    weight = weight.double().sum(unread) if unread else weight.double()
    other = "".join(one for one in other if one in own + result)
    shared = [one for one in own[1:] if one in other and one in result]
    summed = [one for one in own[1:] if one in other and one not in result]
    kept = [one for one in own[1:] if one not in other]
    made = [one for one in other if one not in own]
    sizes = {**dict(zip(own, x.value.shape, strict=True)), **dict(zip(other, weight.shape, strict=True))}
    groups, inputs, outputs, length = (_count(part, sizes) for part in (shared, summed, made, kept))
    order = [own.index(one) for one in (own[0], *shared, *summed, *kept)]
    rows = rearranging.moved(
        write, f"{name}.rows", x, lambda value: value.permute(order).reshape(len(value), groups * inputs, length)
    )
    matrix = weight.permute([other.index(one) for one in (*shared, *made, *summed)]).reshape(groups * outputs, inputs, 1)
    if not other:
        found = rows
    elif inputs == outputs == 1:
        found = write.add(f"{name}.scale", "scale", (rows,), {}, {"weight": matrix.flatten()})
    else:
        found = signals.convolved(write, f"{name}.layer", rows, matrix, groups=groups)
    laid = [own[0], *shared, *made, *kept]
    places = [sizes[one] for one in laid[1:]]
    final = [laid.index(one) for one in result]
    return rearranging.moved(write, name, found, lambda value: value.reshape(len(value), *places).permute(final))


def _count(letters: Sequence[str], sizes: Mapping[str, int]) -> int:
    return int(torch.Size([sizes[one] for one in letters]).numel())


def transposed(
    write: Writer,
    name: str,
    x: Traced,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Traced:
    """The transposed convolution: zeros between the pixels, and the convolution with the kernel turned round."""
    sides = x.value.ndim - 2
    if isinstance(weight, Traced) or isinstance(bias, Traced) or weight.ndim != sides + 2 or sides not in (1, 2):
        raise Refused(f"it takes inputs of shape {tuple(x.value.shape[1:])}; give images (C, H, W) or signals (C, L)")
    steps, pads, more, apart = (_each(value, sides) for value in (stride, padding, output_padding, dilation))
    spans = [step * (size - 1) for step, size in zip(apart, weight.shape[2:], strict=True)]
    shape = x.value.shape
    size = shape[1:].numel()
    # The room around the pixels, of the size that the kernel needs; a negative one is cut off.
    rooms = [(span - pad, span - pad + extra) for span, pad, extra in zip(spans, pads, more, strict=True)]
    inner = [(side - 1) * step + 1 for side, step in zip(shape[2:], steps, strict=True)]
    amounts = [amount for room in reversed(rooms) for amount in room]

    def spread(values: Tensor) -> Tensor:
        zero = values[:, size:].reshape(-1, *[1] * (sides + 1))
        whole = zero.expand(-1, shape[1], *inner).clone()
        at: Any = (..., *(slice(None, None, step) for step in steps))
        whole[at] = values[:, :size].reshape(shape)
        # Padding with a mark, which then becomes the zero's place.
        padded = functional.pad(whole, amounts, value=-1.0)
        return torch.where(padded < 0, zero, padded)

    places = rearranging.moved(write, f"{name}.places", with_zero(write, name, x), spread)
    turned = weight.flip(list(range(2, weight.ndim))).unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)
    convolved: Callable[..., Traced] = signals.convolved if sides == 1 else layers.convolved
    return convolved(write, name, places, turned, bias, dilation=apart if sides == 2 else apart[0], groups=groups)


def _each(value: Any, sides: int) -> tuple[int, ...]:
    return (int(value),) * sides if isinstance(value, int) else tuple(int(one) for one in value)


def transposed_layer(write: Writer, name: str, module: Any, x: Traced, output_size: Any = None) -> Traced:
    """The call of a transposed convolution module."""
    if output_size is not None:
        raise Refused("it is called with an output_size; give the module an output_padding")
    sizes = (module.stride, module.padding, module.output_padding, module.groups, module.dilation)
    return transposed(write, name, x, module.weight, module.bias, *sizes)


MODULES: Mapping[type[nn.Module], Callable[..., Any]] = {
    **dict.fromkeys((nn.ConvTranspose1d, nn.ConvTranspose2d), transposed_layer),
}
CALLS: Mapping[Any, Callable[..., Any]] = {
    torch.pow: power,
    torch.lerp: between,
    torch.einsum: einstein_sum,
    **dict.fromkeys((functional.conv_transpose1d, functional.conv_transpose2d), transposed),
}
METHODS: Mapping[str, Callable[..., Any]] = {"setitem": assign, "pow_": power, "lerp_": between}
