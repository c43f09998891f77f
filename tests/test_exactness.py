"""Arithmetic that only multiplies and adds: detecting where it is not used, and convolutions that use nothing else."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from second_simulation import places_of
from torch import Tensor, nn
from torch.nn import functional
from training_cases import activation

from dynconf_core.conversion.convert import convert
from dynconf_core.errors import InputError
from dynconf_core.graph import operations
from dynconf_core.graph import operations as operations_module
from dynconf_core.graph.bounds import in_one_step
from dynconf_core.graph.graph import Node
from dynconf_core.graph.operations import unfolded
from dynconf_core.simulation import exactness
from dynconf_core.simulation.exactness import check_exactness, plain_arithmetic
from dynconf_core.simulation.network import SpikingNetwork


def network(fixed_point: bool = True) -> SpikingNetwork:
    torch.manual_seed(0)
    make = activation("qcfs", levels=4, initial_threshold=1.0)
    layers = [nn.Conv2d(3, 8, 3, padding=1), make(), nn.Conv2d(8, 8, 3), make(), nn.Flatten(), nn.Linear(8 * 36, 10)]
    return convert(nn.Sequential(*layers).eval(), torch.rand(1, 3, 8, 8), time_steps=6, fixed_point=fixed_point)


def test_arithmetic_that_is_not_exact_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """An algorithm that drops bits of the factors, as TF32 does (10 bits of the mantissa are kept), or one unit in the last
    place."""

    def coarse(node: Node, inputs: list[Tensor], tensors: Mapping[str, Tensor], biased: bool = True) -> Tensor:
        if inputs[0].dtype == torch.float32 and node.name == "2":
            bits = tensors["weight"].view(torch.int32) & ~0x1FFF
            tensors = {**tensors, "weight": bits.view(torch.float32)}
        return operations.evaluate(node, inputs, tensors, biased)

    check_exactness(network(), 3)
    monkeypatch.setattr(exactness, "evaluate", coarse)
    with pytest.raises(InputError, match=r"^2 is not computed exactly on cpu .*--no-fixed-point"):
        check_exactness(network(), 3)
    check_exactness(network(fixed_point=False), 3)


def bottleneck() -> SpikingNetwork:
    """A layer, "2", whose input is no spikes: what the layer before it makes of them."""
    torch.manual_seed(0)
    make = activation("qcfs", levels=4, initial_threshold=1.0)
    layers = [nn.Conv2d(3, 8, 3, padding=1), make(), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 1), make()]
    return convert(nn.Sequential(*layers, nn.Flatten(), nn.Linear(288, 10)).eval(), torch.rand(1, 3, 8, 8), time_steps=6)


def test_what_reads_no_spikes_is_tried_with_what_it_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that rounds such inputs, as to bfloat16, is found: 0 and 1 would pass. They are on their own grid, within their
    own bounds, and reach to both."""

    def truncating(node: Node, inputs: list[Tensor], tensors: Mapping[str, Tensor], biased: bool = True) -> Tensor:
        if inputs[0].dtype == torch.float32 and node.name == "3":
            inputs = [(inputs[0].view(torch.int32) & ~0xFFFF).view(torch.float32)]
        return operations.evaluate(node, inputs, tensors, biased)

    tried: dict[str, Tensor] = {}

    def recording(node: Node, inputs: list[Tensor], tensors: Mapping[str, Tensor], biased: bool = True) -> Tensor:
        tried.setdefault(node.name, inputs[0])
        return operations.evaluate(node, inputs, tensors, biased)

    snn = bottleneck()
    assert not snn.graph.by_name["3"].wide
    monkeypatch.setattr(exactness, "evaluate", recording)
    check_exactness(snn, 40)
    places, bounds = places_of(snn.graph)["2"], in_one_step(snn.graph, snn.image_limit or 0.0, snn.neurons)["2"]
    whole = tried["3"].double() * 2.0**places
    assert torch.equal(whole, whole.round()) and not torch.equal(whole / 2, (whole / 2).round())
    channels = tried["3"].movedim(1, 0).flatten(1).double()
    spans = bounds.high - bounds.low
    assert bool((channels.amin(1) >= bounds.low).all()) and bool((channels.amax(1) <= bounds.high).all())
    assert bool((channels.amax(1) - channels.amin(1) > 0.9 * spans).all())
    assert set(tried["6"].unique().tolist()) == {0.0, 1.0}
    monkeypatch.setattr(exactness, "evaluate", truncating)
    with pytest.raises(InputError, match=r"^3 is not computed exactly"):
        check_exactness(bottleneck(), 3)


def test_plain_arithmetic_applies_to_the_block_only() -> None:
    def settings() -> list[bool]:
        cudnn = torch.backends.cudnn
        return [torch.backends.cuda.matmul.allow_tf32, cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark, cudnn.enabled]

    before = settings()
    with pytest.raises(KeyboardInterrupt), plain_arithmetic():
        assert settings() == [False, False, True, False, before[-1]]
        torch.backends.cudnn.enabled = False  # as where cuDNN is not exact
        raise KeyboardInterrupt
    assert settings() == before


def test_cudnn_is_not_used_for_fixed_point_weights_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """In every block, also for batch sizes tested before; for other weights and on a CPU its use is not affected."""
    monkeypatch.setattr(torch.backends.cudnn, "enabled", True)
    snn, plain = network(), network(fixed_point=False)
    with plain_arithmetic():
        check_exactness(snn, 3)
        assert torch.backends.cudnn.enabled
    monkeypatch.setattr(SpikingNetwork, "device", torch.device("cuda"))
    for _ in range(2):
        with plain_arithmetic():
            check_exactness(plain, 3)
            assert torch.backends.cudnn.enabled
            check_exactness(snn, 3)
            assert not torch.backends.cudnn.enabled
        assert torch.backends.cudnn.enabled


@pytest.mark.parametrize("groups", [1, 2, 8])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation"),
    [
        ((3, 3), (1, 1), (1, 1), (1, 1)),
        ((3, 3), (2, 2), (1, 1), (2, 2)),
        ((1, 1), (2, 2), (0, 0), (1, 1)),
        ((1, 3), (2, 1), (0, 1), (1, 1)),
    ],
)
def test_unfolded_convolutions_are_convolutions(
    groups: int,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In either memory layout, in parts or at once, with or without bias."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(-3, 4, (5, 8, 13, 11), generator=generator).float()
    weight = torch.randint(-50, 51, (16, 8 // groups, *kernel), generator=generator).float()
    bias = torch.randint(-5, 6, (16,), generator=generator).float()
    geometry = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    expected = functional.conv2d(x, weight, bias, *geometry.values())
    node = Node("layer", "convolution", ("x",), tuple(expected.shape[1:]), geometry, {"weight": weight, "bias": bias})
    for copied in (1, 1 << 28):
        monkeypatch.setattr(operations_module, "COPIED", copied)
        for layout in (torch.contiguous_format, torch.channels_last):
            found = unfolded(node, x.contiguous(memory_format=layout), node.tensors)
            assert torch.equal(found, expected) and found.is_contiguous(memory_format=torch.channels_last)
        without = functional.conv2d(x, weight, None, *geometry.values())
        assert torch.equal(unfolded(node, x, node.tensors, biased=False), without)
