"""Spikes times weights in integer arithmetic: equal to float64 bit for bit, or not offered."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from dynconf_core.simulation import integer

needs_bytes = pytest.mark.skipif(not integer.available(), reason="this CPU or PyTorch has no exact product of bytes")

CONVOLUTIONS: dict[str, tuple[tuple[int, int, int, int], tuple[int, int, int], dict[str, Any]]] = {
    "3x3": ((4, 16, 8, 8), (24, 16, 3), {"padding": (1, 1)}),
    "stride 2": ((4, 16, 8, 8), (24, 16, 3), {"padding": (1, 1), "stride": (2, 2)}),
    "1x1": ((3, 16, 8, 7), (32, 16, 1), {}),
    "1x1 padded": ((3, 16, 8, 8), (32, 16, 1), {"padding": (1, 1)}),
    "1x1 grouped": ((3, 16, 8, 8), (32, 8, 1), {"groups": 2}),
    "1x1 stride 2": ((3, 16, 8, 8), (32, 16, 1), {"stride": (2, 2)}),
    "7x7 stride 2": ((2, 3, 21, 21), (16, 3, 7), {"padding": (3, 3), "stride": (2, 2)}),
    "dilated": ((4, 16, 9, 7), (16, 16, 3), {"padding": (2, 2), "dilation": (2, 2)}),
    "grouped": ((4, 32, 8, 8), (32, 8, 3), {"padding": (1, 1), "groups": 4}),
    "depthwise": ((4, 16, 8, 8), (16, 1, 3), {"padding": (1, 1), "groups": 16}),
    "one pixel": ((4, 40, 1, 1), (24, 40, 3), {"padding": (1, 1)}),
    "one channel": ((5, 1, 9, 9), (1, 1, 3), {}),
    "uneven": ((1, 20, 5, 7), (13, 20, 3), {"padding": (0, 1), "stride": (1, 2)}),
}


def whole_weights(shape: tuple[int, ...], top: int, seed: int = 0) -> Tensor:
    """Whole numbers up to ``top``, most of them small, each output channel with a power of two of its own."""
    generator = torch.Generator().manual_seed(seed)
    wide = torch.randint(-top, top + 1, shape, generator=generator).float()
    weight = torch.where(torch.rand(shape, generator=generator) < 0.1, wide, (wide / 16).round())
    weight.flatten(1)[:, 0], weight.flatten(1)[:, -1] = top, -top
    scale = 2.0 ** -torch.randint(4, 12, (shape[0],), generator=generator).float()
    return weight * scale.view(-1, *[1] * (len(shape) - 1))


def spikes_of(shape: tuple[int, ...], signed: bool, largest: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    spikes = torch.randint(-largest if signed else 0, largest + 1, shape, generator=generator).float()
    return spikes.contiguous(memory_format=torch.channels_last) if len(shape) == 4 else spikes


@needs_bytes
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("top", [127, 16255, 32639])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolution_equals_float64(name: str, top: int, signed: bool) -> None:
    shape, (outputs, inputs, kernel), geometry = CONVOLUTIONS[name]
    weight = whole_weights((outputs, inputs, kernel, kernel), top)
    product = integer.prepare(weight, shape=shape, signed=signed, must_pay=False, **geometry)
    assert product is not None
    spikes = spikes_of(shape, signed, 1)
    expected = functional.conv2d(spikes.double(), weight.double(), None, **geometry)
    current = product(spikes)
    assert current.dtype == torch.float32 and torch.equal(current.double(), expected)
    assert current.is_contiguous(memory_format=torch.channels_last)
    for kind in (torch.int8, torch.int16, torch.float64):
        given = spikes.to(kind)
        assert torch.equal(product(given), current) and torch.equal(given.float(), spikes)  # and left as it was
    assert torch.equal(product(spikes.contiguous()), current)  # NCHW is slower, not wrong
    if not signed:
        assert torch.equal(product(spikes.bool()), current) and torch.equal(product(spikes.to(torch.uint8)), current)


@needs_bytes
@pytest.mark.parametrize(("top", "largest"), [(127, 9), (127, 64), (8127, 4), (8127, 9), (1023, 64)])
@pytest.mark.parametrize("signed", [False, True])
def test_pooled_counts(top: int, largest: int, signed: bool) -> None:
    weight = whole_weights((12, 10, 3, 3), top)
    product = integer.prepare(weight, shape=(4, 10, 6, 6), signed=signed, largest=largest, padding=(1, 1), must_pay=False)
    assert product is not None
    counts = spikes_of((4, 10, 6, 6), signed, largest)
    assert torch.equal(product(counts).double(), functional.conv2d(counts.double(), weight.double(), None, 1, 1))


@needs_bytes
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("top", [127, 16255, 32639])
def test_linear_against_whole_numbers_of_numpy(top: int, signed: bool) -> None:
    weight = whole_weights((10, 300), top)
    product = integer.prepare(weight, shape=(5, 300), signed=signed, must_pay=False)
    assert product is not None
    spikes = spikes_of((5, 300), signed, 1)
    whole = np.rint(weight.numpy().astype(np.float64) * 2**12).astype(np.int64)  # independent: no floating sums at all
    expected = spikes.numpy().astype(np.int64) @ whole.T
    assert np.array_equal(np.rint(product(spikes).numpy().astype(np.float64) * 2**12).astype(np.int64), expected)


@needs_bytes
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("top", [127, 16255, 32639])
def test_bias_and_potential(top: int, signed: bool) -> None:
    weight, shape = whole_weights((12, 10, 3, 3), top), (4, 10, 6, 6)
    bias = (torch.arange(12.0) - 6) / 2**10
    product = integer.prepare(weight, shape=shape, signed=signed, bias=bias, padding=(1, 1), must_pay=False)
    assert product is not None
    spikes = spikes_of(shape, signed, 1)
    potential = (torch.arange(4 * 12 * 36).view(4, 12, 6, 6) % 97 / 2**10).contiguous(memory_format=torch.channels_last)
    expected = potential.double() + functional.conv2d(spikes.double(), weight.double(), bias.double(), 1, 1)
    without = functional.conv2d(spikes.double(), weight.double(), None, 1, 1)
    assert torch.equal(product(spikes, biased=False).double(), without)
    assert product(spikes, into=potential) is potential and torch.equal(potential.double(), expected)


@needs_bytes
def test_consumers_share_packed_bytes_and_any_batch_follows() -> None:
    layout_of = set()
    spikes = spikes_of((7, 16, 8, 8), False, 1)
    for kernel, padding, seed in ((3, 1, 0), (1, 0, 1)):
        weight = whole_weights((8, 16, kernel, kernel), 8191, seed)
        product = integer.prepare(
            weight, shape=(4, 16, 8, 8), signed=False, stride=(2, 2), padding=(padding, padding), must_pay=False
        )
        assert product is not None
        layout_of.add(product.layout)
        given = integer.packed(spikes, product.layout)
        for count in (7, 1):
            expected = functional.conv2d(spikes[:count].double(), weight.double(), None, 2, padding)
            assert torch.equal(product.of_packed(given[:count]).double(), expected)
    assert len(layout_of) == 1


@needs_bytes
def test_another_resolution_is_refused() -> None:
    weight = whole_weights((8, 16, 1, 1), 127)
    product = integer.prepare(weight, shape=(4, 16, 1, 1), signed=True, must_pay=False)
    assert product is not None
    with pytest.raises(ValueError, match="16, 1, 1"):
        product(spikes_of((4, 16, 2, 2), True, 1))  # its constant would broadcast silently


@needs_bytes
def test_forms() -> None:
    def form(top: int, **arguments: Any) -> tuple[int, int, int]:
        weight = whole_weights((16, 16, 3, 3), top)
        product = integer.prepare(weight, shape=(2, 16, 5, 5), **{"signed": False, "must_pay": False, **arguments})
        assert product is not None
        return product.layout.base, product.layout.offset, len(product.factors)

    assert form(127) == (0, 0, 1) and form(127, signed=True) == (0, 1, 1)
    assert form(129) == (255, 0, 1) and form(129, signed=True) == (127, 1, 1)
    assert form(255 * 127 + 127) == (255, 0, 1) and form(255 * 127 + 129) == (0, 0, 2)
    assert form(127 * 127 + 127, signed=True) == (127, 1, 1) and form(127 * 127 + 129, signed=True) == (0, 1, 2)
    assert form(4095, largest=4) == (63, 0, 1) and form(4095, largest=64) == (0, 0, 2)


@needs_bytes
@pytest.mark.parametrize("signed", [False, True])
def test_bound_of_float32_is_kept(signed: bool) -> None:
    """One more weight, and a sum of all spikes would need 25 bits."""
    most = (2**24 - 1) // 127 // (2 if signed else 1)

    def offered(inputs: int) -> bool:
        weight = torch.full((1, inputs), 127.0)
        return integer.prepare(weight, shape=(1, inputs), signed=signed, must_pay=False) is not None

    assert offered(most) and not offered(most + 1)


@needs_bytes
def test_what_is_not_exact_is_not_offered() -> None:
    whole, shape = torch.full((4, 8, 3, 3), 3.0), (2, 8, 5, 5)
    assert integer.prepare(whole, shape=shape, signed=False, must_pay=False) is not None
    not_whole = whole.clone()
    not_whole[1, 2, 0, 0] = 0.1
    fine = whole.clone()
    fine[1, 2, 0, 0] = 2.0**-14  # whole too, but 3 is more than 2^15 times as large
    infinite = whole.clone()
    infinite[0, 0, 0, 0] = float("inf")
    for weight in (not_whole, fine, infinite, whole.double()):
        assert integer.prepare(weight, shape=shape, signed=False, must_pay=False) is None
    for bias in (torch.full((4,), 0.1), torch.full((4,), 2.0**-20), torch.full((4,), 2.0**24)):
        assert integer.prepare(whole, shape=shape, signed=False, bias=bias, must_pay=False) is None
    assert integer.prepare(whole, shape=shape, signed=False, largest=128, must_pay=False) is None
    assert integer.prepare(torch.zeros(4, 8, 3, 3), shape=shape, signed=False, bias=torch.zeros(4), must_pay=False) is not None


@needs_bytes
def test_a_wrong_product_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Saturation as on a CPU without VNNI, in one output of the batch."""
    weight, shape = whole_weights((8, 16, 3, 3), 127), (4, 16, 5, 5)
    right = integer.Factor.times

    def saturating(self: Any, *arguments: Any) -> Tensor:
        current = right(self, *arguments)
        return current.clamp(max=float(current.max()) * 0.99)

    monkeypatch.setattr(integer.Factor, "times", saturating)
    assert integer.prepare(weight, shape=shape, signed=False, must_pay=False) is None
    integer.available.cache_clear()
    try:
        assert not integer.available()
    finally:
        monkeypatch.undo()
        integer.available.cache_clear()


def test_without_the_private_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    integer.available.cache_clear()
    try:
        assert not integer.available()
        assert integer.prepare(torch.ones(4, 8), shape=(2, 8), signed=False) is None
    finally:
        monkeypatch.undo()
        integer.available.cache_clear()


@needs_bytes
def test_must_pay() -> None:
    """There is a product where its rival is slower, and none where the rival takes no time."""
    weight = whole_weights((8, 16, 3, 3), 127)

    def slow(inputs: Tensor) -> Tensor:
        time.sleep(0.1)
        return inputs

    for faster, rival in ((True, slow), (False, lambda inputs: inputs)):
        assert (integer.prepare(weight, shape=(2, 16, 5, 5), signed=False, rival=rival) is not None) == faster
