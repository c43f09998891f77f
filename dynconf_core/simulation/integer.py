"""Products of spikes and weights in integer arithmetic: exact, and several times faster than float32 on a CPU with VNNI.

If all weights of an output channel are multiples of a power of two g, ``w = g W`` with whole W, then the layer's current is g
times a whole number. oneDNN multiplies unsigned by signed bytes and accumulates in 32 bits, so W is represented by byte digits:

- one byte: ``|W| <= 127``, one product;
- paired bytes: ``W = low + base high``, with each input x repeated as x and base x in neighbouring channels, so that one
  product over twice as many channels adds low and high (up to 32 512 for spikes, 16 256 for signed spikes);
- halves: ``W = low + 256 high``, the sum of two products, for inputs too large to be multiplied by a base.

Inputs that may be negative are shifted by an offset; the constant current of that offset is subtracted again. Nothing is
rounded: a product exists only if every sum is a whole number below 2^24.

This needs a CPU with VNNI and private operations of PyTorch, which are looked up and compared with float arithmetic before use.
If anything is missing, differs or is not faster, the result is None and the caller computes in float32.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

_DIGIT = 127
_FINEST = 24  # weights are multiples of 2^-24, or have no product
_AT_A_TIME = 2**20  # weights
_KINDS = 4
_ROUNDS = 5


class Layout(NamedTuple):
    """The byte form of an input x: ``x + offset``, followed by ``base (x + offset)`` if ``base`` is not 0."""

    base: int
    offset: int


class Geometry(NamedTuple):
    """Stride, padding, dilation and groups of a convolution; None stands for a linear layer."""

    stride: list[int]
    padding: list[int]
    dilation: list[int]
    groups: int


def packed(values: Tensor, layout: Layout) -> Tensor:
    """Whole-numbered ``values (N, C, H, W)`` or ``(N, C)`` as unsigned bytes ``(N, C', ...)``, channels-last; signals
    ``(N, C, L)`` as images of height 1.

    C' is 2 C if the layout has a base. Float32 values in channels-last order are fastest.
    """
    values = values.unsqueeze(2) if values.dim() == 3 else values
    last = values.permute(0, 2, 3, 1).contiguous() if values.dim() == 4 else values.contiguous()
    flat = last.reshape(-1)
    if layout.base:
        # A 16-bit number holds both bytes, the first in its lower half; its sign bit is the highest bit of the second.
        flat = flat.to(torch.int16, copy=True)
        flat = flat.add_(layout.offset) if layout.offset else flat
        flat = flat.mul_((1 + 256 * layout.base + 0x8000) % 0x10000 - 0x8000).view(torch.uint8)
    else:
        flat = (flat if flat.dtype == torch.uint8 else flat.to(torch.int8)).view(torch.uint8)
        flat = flat + layout.offset if layout.offset else flat
    if values.dim() == 4:
        return flat.view(*last.shape[:3], -1).permute(0, 3, 1, 2)
    return flat.view(last.shape[0], -1)


@dataclass(frozen=True)
class Factor:
    """One packed weight with its scale per output channel, and the zero points that the operation requires."""

    weight: Tensor
    scale: Tensor
    zeros: Tensor

    def times(self, values: Tensor, geometry: Geometry | None, bias: Tensor | None) -> Tensor:
        ops: Any = torch.ops.onednn
        given = (values, 1.0, 0, self.weight, self.scale, self.zeros, bias)
        wanted: tuple[Any, ...] = (1.0, 0, torch.float32, "none", [], "")
        result: Tensor
        if geometry is None:
            result = ops.qlinear_pointwise(*given, *wanted)
        else:
            result = ops.qconv2d_pointwise(*given, *geometry, *wanted)
        return result


@dataclass(frozen=True)
class SpikeProduct:
    """A layer's exact current as a function of its whole-numbered inputs.

    Attributes:
        layout: the byte form of the inputs.
        geometry: the convolution's geometry; None for a linear layer.
        shape: the shape of one sample's bytes, ``(C', H, W)`` or ``(C',)``.
        factors: the packed weights.
        bias: per output channel, ``(O,)``, or None.
        constant: the current caused by the layout's offset, ``(1, O, H', W')`` or ``(1, O)``, or None.
    """

    layout: Layout
    geometry: Geometry | None
    shape: tuple[int, ...]
    factors: tuple[Factor, ...]
    bias: Tensor | None
    constant: Tensor | None

    def __call__(self, spikes: Tensor, into: Tensor | None = None, biased: bool = True) -> Tensor:
        """The float32 current ``(N, O, H', W')``, channels-last, or ``(N, O)``; added in place to ``into`` if that is given.

        Args:
            spikes: whole numbers within the bounds given to ``prepare``, of any type, ``(N, C, ...)``.
            into: usually the membrane potential, float32 and channels-last.
            biased: whether to add the bias.
        """
        return self.of_packed(packed(spikes, self.layout), into, biased)

    def of_packed(self, values: Tensor, into: Tensor | None = None, biased: bool = True) -> Tensor:
        """The current for inputs that ``packed`` has already converted to this layout."""
        if values.shape[1:] != self.shape:
            raise ValueError(
                f"bytes of shape {tuple(values.shape)}: this product was prepared for (N, {', '.join(map(str, self.shape))})."
            )
        current = self.factors[0].times(values, self.geometry, self.bias if biased else None)
        for factor in self.factors[1:]:
            current.add_(factor.times(values, self.geometry, None))
        if self.constant is not None:
            current.sub_(self.constant)
        return current if into is None else into.add_(current)


def prepare(
    weight: Tensor,
    *,
    shape: Sequence[int],
    signed: bool,
    largest: int = 1,
    bias: Tensor | None = None,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
    must_pay: bool = True,
    rival: Callable[[Tensor], Tensor] | None = None,
) -> SpikeProduct | None:
    """The exact product of a layer; None if there is none or, with ``must_pay``, if float32 is as fast.

    Args:
        weight: float32 ``(O, C / groups, kh, kw)`` of a convolution or ``(O, C)`` of a linear layer, on the CPU; each output
            channel a whole multiple, up to 32 512, of a power of two not below 2^-24.
        shape: the input's shape, ``(N, C, H, W)`` or ``(N, C)``; later inputs may have another N.
        signed: whether inputs are whole numbers from ``-largest``; otherwise from 0.
        largest: the largest input.
        bias: float32 ``(O,)``, in fixed point too.
        stride, padding, dilation, groups: the convolution's geometry; padding is with zeros.
        must_pay: whether to time it against float32, which takes some milliseconds.
        rival: the layer in float32, bias included, as the caller would compute it; None stands for PyTorch's public
            operations.
    """
    if not available() or weight.device.type != "cpu" or weight.dtype != torch.float32 or 0 in shape:
        return None
    geometry = Geometry(list(stride), list(padding), list(dilation), groups) if weight.dim() == 4 else None
    weight, bias = weight.detach(), None if bias is None else bias.detach()
    product = _exact(weight, bias, geometry, shape, signed, largest)
    if product is None or not must_pay:
        return product
    inputs = _trial(shape, signed, largest)
    other = rival or (lambda x: _float(x, weight, bias, geometry))
    return product if _faster(lambda: product(inputs), lambda: other(inputs)) else None


def agrees(product: SpikeProduct, weight: Tensor, inputs: Tensor) -> bool:
    """Whether ``product`` equals float32 bit for bit on all ``inputs``, and float64 on the first of them."""
    try:
        current = product(inputs)
    except (RuntimeError, AttributeError):
        return False
    bias = product.bias
    first = _float(inputs[:1].double(), weight.double(), None if bias is None else bias.double(), product.geometry)
    everything = _float(inputs, weight, bias, product.geometry)
    return torch.equal(current, everything) and torch.equal(current[:1].double(), first)


@cache
def available() -> bool:
    """Whether this CPU has VNNI (byte products that do not saturate) and PyTorch offers it; determined once."""
    ops: Any = torch.ops.onednn
    names = ("qconv_prepack", "qconv2d_pointwise", "qlinear_prepack", "qlinear_pointwise")
    if not torch.backends.mkldnn.is_available() or not all(hasattr(ops, name) for name in names):
        return False
    if not getattr(torch.cpu, "_is_vnni_supported", lambda: True)():
        return False
    # Without VNNI two products of bytes share 16 bits and saturate: 254 x 127 twice.
    image, row = torch.full((16, 16, 3, 3), 127.0), torch.full((16, 64), 127.0)
    image[::2] = row[::2] = -127.0
    same = Geometry([1, 1], [1, 1], [1, 1], 1)
    return all(
        _exact(weight, None, geometry, shape, True, 127) is not None
        for weight, geometry, shape in ((image, same, (4, 16, 5, 5)), (row, None, (4, 64)))
    )


def _exact(
    weight: Tensor, bias: Tensor | None, geometry: Geometry | None, shape: Sequence[int], signed: bool, largest: int
) -> SpikeProduct | None:
    """The first form that can represent the weights, if it passes the trials."""
    whole = _whole(weight)
    if whole is None or largest > _DIGIT:
        return None
    numbers, unit = whole
    offset = largest if signed else 0
    split = _split(numbers, largest + offset, in_pairs=geometry is None or geometry.groups == 1)
    if split is None or not _fits(numbers, unit, bias, largest + offset):
        return None
    base, parts = split
    for digits, place in parts:
        # The sum of a pair stays in 32-bit integers; each of two halves becomes a float32 on its own.
        if base:
            held = int(_reach(digits, 255).max()) < 2**31
        else:
            held = _fits(digits, unit * place, bias if place == 1 else None, largest + offset)
        if not held:
            return None
    constant = None
    if offset:
        constant = _float(torch.full((1, *shape[1:]), float(offset)), weight, None, geometry)
        constant = constant.contiguous(memory_format=torch.channels_last) if geometry is not None else constant
    sizes = [shape[0], shape[1] * (2 if base else 1), *shape[2:]]
    try:
        factors = tuple(_factor(digits, unit * place, geometry, sizes) for digits, place in parts)
    except RuntimeError:
        return None
    product = SpikeProduct(Layout(base, offset), geometry, tuple(sizes[1:]), factors, bias, constant)
    trials = range(0, _KINDS, shape[0])
    return product if all(agrees(product, weight, _trial(shape, signed, largest, first)) for first in trials) else None


def _reach(numbers: Tensor, highest: int) -> Tensor:
    """The largest sum that inputs from 0 to ``highest`` can reach, per output channel: ``(O,)`` int64."""
    rows = numbers.flatten(1)
    return torch.maximum(rows.clamp(min=0).sum(1), -rows.clamp(max=0).sum(1)) * highest


def _fits(numbers: Tensor, unit: Tensor, bias: Tensor | None, highest: int) -> bool:
    """Whether every current, with and without the bias, is a whole number below 2^24 of some power of two."""
    reach = _reach(numbers, highest)
    if bias is None:
        return int(reach.max()) < 2**24
    whole = _whole(bias[:, None])
    if whole is None:
        return False
    grain = torch.minimum(whole[1], unit).double()
    return bool(((reach * unit.double() + bias.double().abs()) / grain < 2.0**24).all())


def _whole(weight: Tensor) -> tuple[Tensor, Tensor] | None:
    """W (int32, below 2^24) and the largest possible g (float32) per output channel; None if there are none."""
    numbers, units = torch.empty_like(weight, dtype=torch.int32), []
    size = max(1, _AT_A_TIME // weight[0].numel())  # intermediate values take many times the memory of the weights
    for start in range(0, len(weight), size):
        fine = weight[start : start + size].double() * 2.0**_FINEST
        if not torch.equal(fine, fine.round()) or float(fine.abs().max()) >= 2.0**52:
            return None
        rows = fine.long().flatten(1)
        lowest = torch.where(rows == 0, 2**52, rows & -rows).amin(1)
        unit = torch.where(lowest == 2**52, 2**_FINEST, lowest).double()  # 1 for nothing but zeros
        whole = fine / unit.view(-1, *[1] * (weight.dim() - 1))
        if float(whole.abs().max()) >= 2.0**24:
            return None
        numbers[start : start + size] = whole.to(torch.int32)
        units.append((unit * 2.0**-_FINEST).float())
    return numbers, torch.cat(units)


def _split(numbers: Tensor, highest: int, in_pairs: bool) -> tuple[int, list[tuple[Tensor, int]]] | None:
    """The base of the inputs' second byte (0 if there is none), and the int8 digits of each product with their place value."""
    if int(numbers.abs().max()) <= _DIGIT:
        return 0, [(numbers.to(torch.int8), 1)]
    base = 255 // highest
    if in_pairs and base > 1:  # not for grouped convolutions: depthwise layers would lose their specialised kernel
        high = torch.div(numbers + base // 2, base, rounding_mode="floor").clamp_(-_DIGIT, _DIGIT)
        low = numbers - base * high
        if int(low.abs().max()) <= _DIGIT:
            pair = torch.stack([low.to(torch.int8), high.to(torch.int8)], 2)
            return base, [(pair.flatten(1, 2), 1)]
    high = torch.div(numbers + 128, 256, rounding_mode="floor")
    if int(high.abs().max()) > _DIGIT:
        return None
    low = numbers - 256 * high
    return 0, [(low.to(torch.int8), 1), (high.to(torch.int8), 256)]


def _factor(digits: Tensor, scale: Tensor, geometry: Geometry | None, shape: list[int]) -> Factor:
    ops: Any = torch.ops.onednn
    if geometry is None:
        weight = ops.qlinear_prepack(digits, shape)
    else:
        weight = ops.qconv_prepack(digits, scale, 1.0, 0, *geometry, shape)
    return Factor(weight, scale, torch.zeros(len(scale), dtype=torch.int64))


def _trial(shape: Sequence[int], signed: bool, largest: int, first: int = 0) -> Tensor:
    """Trial inputs, channels-last; the samples alternate between sparse, all highest, all lowest and dense."""
    generator = torch.Generator().manual_seed(first)
    lowest = -largest if signed else 0
    inputs = torch.randint(lowest, largest + 1, tuple(shape), generator=generator).float()
    for kind, sample in enumerate(inputs, first):
        match kind % _KINDS:
            case 0:
                sample *= torch.rand(sample.shape, generator=generator) < 0.15
            case 1:
                sample.fill_(largest)
            case 2:
                sample.fill_(lowest)
    return inputs.contiguous(memory_format=torch.channels_last) if inputs.dim() == 4 else inputs


def _float(inputs: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry | None) -> Tensor:
    if geometry is None:
        return functional.linear(inputs, weight, bias)
    return functional.conv2d(inputs, weight, bias, *geometry)


def _faster(one: Callable[[], object], other: Callable[[], object]) -> bool:
    """Whether the best of a few interleaved rounds of ``one`` beats that of ``other``."""
    best = [math.inf, math.inf]
    for round_number in range(_ROUNDS + 1):
        for index, rival in enumerate((one, other)):
            start = time.perf_counter()
            rival()
            if round_number > 0:
                best[index] = min(best[index], time.perf_counter() - start)
    return best[0] < best[1]
