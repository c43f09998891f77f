"""Spikes times weights in integer arithmetic: exact, and several times faster than float32 on a CPU that multiplies bytes.

Where all weights of an output channel are multiples of a power of two g, ``w = g W`` with whole W, the current of a layer is g
times a whole number. oneDNN multiplies unsigned by signed bytes and sums in 32 bits, so W is written in digits of a byte:

- one byte: ``|W| <= 127``, one product;
- paired bytes: ``W = low + base high``, and each input x is given twice, as x and as base x, in neighbouring channels: one
  product of twice as many channels sums low and high together (up to 32 512 for spikes, 16 256 for signed ones);
- halves: ``W = low + 256 high``, two products that are added: for counts too large to be multiplied by a base.

Inputs that may be negative are moved above 0 by an offset, and the current of that offset, a constant, is taken off again.
Nothing is ever rounded: every sum is a whole number below 2^24, or there is no product.

The CPU must have VNNI, and the operations are private ones of PyTorch. They are looked up when needed and tried against
float arithmetic before use; where anything is missing, differs or is not faster, the answer is None and the caller computes
in float32.
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
    """How an input x lies in bytes: ``x + offset``, followed by ``base (x + offset)`` where ``base`` is not 0."""

    base: int
    offset: int


class Geometry(NamedTuple):
    """The hyper-parameters of a convolution; a linear layer has None in its place."""

    stride: list[int]
    padding: list[int]
    dilation: list[int]
    groups: int


def packed(values: Tensor, layout: Layout) -> Tensor:
    """Whole-numbered ``values (N, C, H, W)`` or ``(N, C)``, best float32 and channels-last, as unsigned bytes ``(N, C', ...)``.

    C' is 2 C with a base, and the result is channels-last. Consumers of one layout can share it.
    """
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
    """One packed weight with its scale per output channel, and the zeros that the operation asks for."""

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
    """Inputs to current, exactly.

    Attributes:
        layout: of the bytes that it reads.
        geometry: of the convolution, None of a linear layer.
        shape: of one sample's bytes, ``(C', H, W)`` or ``(C',)``.
        factors: the packed weights.
        bias: per output channel, ``(O,)``, None without.
        constant: the current of the layout's offset, ``(1, O, H', W')`` or ``(1, O)``, None without.
    """

    layout: Layout
    geometry: Geometry | None
    shape: tuple[int, ...]
    factors: tuple[Factor, ...]
    bias: Tensor | None
    constant: Tensor | None

    def __call__(self, spikes: Tensor, into: Tensor | None = None, biased: bool = True) -> Tensor:
        """The float32 current ``(N, O, H', W')`` in channels-last, or ``(N, O)``; with ``into``, added to that in place.

        Args:
            spikes: whole numbers within the bounds given to ``prepare``, of any type, ``(N, C, ...)``.
            into: usually the membrane potential, float32 and channels-last.
            biased: with the bias, which costs nothing here.
        """
        return self.of_packed(packed(spikes, self.layout), into, biased)

    def of_packed(self, values: Tensor, into: Tensor | None = None, biased: bool = True) -> Tensor:
        """The same for values that ``packed`` has already brought into this layout."""
        if values.shape[1:] != self.shape:
            raise ValueError(
                f"bytes of shape {tuple(values.shape)}, where (N, {', '.join(map(str, self.shape))}) was prepared."
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
    """The exact product of a layer, or None where there is none or (with ``must_pay``) float32 is as fast.

    Args:
        weight: float32 ``(O, C / groups, kh, kw)`` of a convolution or ``(O, C)`` of a linear layer, on the CPU; each output
            channel whole multiples, up to 32 512, of a power of two not below 2^-24.
        shape: of the input, ``(N, C, H, W)`` or ``(N, C)``; other N may follow.
        signed: inputs are whole numbers from ``-largest``, else from 0.
        largest: the largest input.
        bias: float32 ``(O,)``, in fixed point too.
        stride, padding, dilation, groups: of the convolution; zeros pad.
        must_pay: measure against float32, some milliseconds.
        rival: the layer in float32, bias included, as the caller would compute it; None: by PyTorch's public operations.
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
    """Whether ``product`` gives bit for bit what float32 gives for all ``inputs``, and float64 for the first of them."""
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
    """Whether this CPU multiplies bytes without saturating (VNNI) and PyTorch offers it; found out once."""
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
    """The first form that holds the weights, if it stands the trials."""
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
        # Of a pair, only the sum of both becomes a float32, whatever the 32 bits hold before; of halves, each does.
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
    """The largest sum that inputs from 0 to ``highest`` can make, per output channel, int64 ``(O,)``."""
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
    """W (int32) below 2^24 and g (float32) per output channel, the largest possible; None where there is no such."""
    numbers, units = torch.empty_like(weight, dtype=torch.int32), []
    size = max(1, _AT_A_TIME // weight[0].numel())  # the steps in between take many times the weights' memory
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
    """The base of the inputs' second byte (0 without), and the digits (int8) of each product with their place value."""
    if int(numbers.abs().max()) <= _DIGIT:
        return 0, [(numbers.to(torch.int8), 1)]
    base = 255 // highest
    if in_pairs and base > 1:  # not in groups: depthwise layers would lose their own kernel
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
    """Inputs to judge by, channels-last; the samples are sparse, all at the top, all at the bottom, dense, and so on."""
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
