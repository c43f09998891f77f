"""float32 products with weights laid out once, against PyTorch's public operations."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from training_cases import activation

from dynconf_core.conversion.convert import convert
from dynconf_core.graph.graph import Node
from dynconf_core.graph.operations import evaluate
from dynconf_core.simulation import products
from dynconf_core.simulation.prepacked import Product, prepacked

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="no oneDNN")


def whole(*shape: int, seed: int = 0) -> Tensor:
    """Whole numbers, whose products and sums are exact."""
    return torch.randint(-9, 10, shape, generator=torch.Generator().manual_seed(seed)).float()


def convolution(
    side: int, stride: int = 1, padding: int = 1, dilation: int = 1, groups: int = 1, kernel: int = 3, channels: int = 8
) -> Node:
    tensors = {"weight": whole(12, channels // groups, kernel, kernel), "bias": whole(12, seed=1)}
    geometry = {"stride": [stride] * 2, "padding": [padding] * 2, "dilation": [dilation] * 2, "groups": groups}
    place = (side + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
    return Node("layer", "convolution", ("x",), (12, place, place), geometry, tensors)


def linear() -> Node:
    return Node("layer", "linear", ("x",), (12,), {}, {"weight": whole(12, 30), "bias": whole(12, seed=1)})


GEOMETRIES: list[dict[str, Any]] = [
    {"side": 8},
    {"side": 8, "stride": 2},
    {"side": 7, "dilation": 2, "padding": 2},
    {"side": 6, "groups": 4},
    {"side": 6, "kernel": 1, "padding": 0},
    {"side": 2},
    {"side": 2, "stride": 2},
    {"side": 1},
    {"side": 2, "padding": 0, "kernel": 2},
    {"side": 2, "groups": 2},
]


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_equals_the_public_convolution(geometry: dict[str, Any]) -> None:
    """Also for another batch, for signed inputs, in any layout, and without the bias."""
    node, side = convolution(**geometry), geometry["side"]
    product = prepacked(node, node.tensors, (6, 8, side, side), True)
    assert product is not None
    layouts = (torch.contiguous_format, torch.channels_last)
    for count, layout, biased in itertools.product((6, 1, 9), layouts, (True, False)):
        x = whole(count, 8, side, side, seed=count).contiguous(memory_format=layout)
        assert torch.equal(product(x, biased), evaluate(node, [x], node.tensors, biased))


def test_equals_the_public_linear_layer() -> None:
    node = linear()
    product = prepacked(node, node.tensors, (6, 30), True)
    assert product is not None
    for count, biased in itertools.product((6, 1, 9), (True, False)):
        x = whole(count, 30, seed=count)
        assert torch.equal(product(x, biased), evaluate(node, [x], node.tensors, biased))


def operations(product: Product, x: Tensor) -> set[str]:
    """The names of PyTorch's operations that a product calls."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiled:
        product(x, True)
    return {event.key for event in profiled.key_averages()}


def test_small_images_become_a_linear_layer() -> None:
    """Where that is less work and not many more weights."""
    made: list[int] = []
    for geometry in GEOMETRIES:
        node, shape = convolution(**geometry), (6, 8, geometry["side"], geometry["side"])
        product = prepacked(node, node.tensors, shape, True)
        assert product is not None
        found = operations(product, whole(*shape))
        linear, convolved = "mkldnn::_linear_pointwise" in found, "mkldnn::_convolution_pointwise" in found
        assert linear != convolved
        made += [node.shape[1]] if linear else []
    assert made == [2, 1, 1], "not the large ones, nor where every weight is used, nor in groups"


@pytest.mark.parametrize("broken", ["missing", "different"])
def test_none_where_the_operation_is_missing_or_wrong(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's own operations are replaced, as by another version of it."""
    node = linear()
    different = SimpleNamespace(
        _reorder_linear_weight=lambda weight, samples: weight,
        _linear_pointwise=lambda x, weight, bias, *rest: functional.linear(x, weight, bias) + wrong,
    )
    wrong = 0.0
    monkeypatch.setattr(torch.ops, "mkldnn", different)
    assert prepacked(node, node.tensors, (6, 30), True) is not None
    wrong = 2.0**-10
    monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace() if broken == "missing" else different)
    assert prepacked(node, node.tensors, (6, 30), True) is None


def test_a_network_is_the_same_without_them(monkeypatch: pytest.MonkeyPatch) -> None:
    make = activation("qcfs", levels=4, initial_threshold=1.0)
    layers = (nn.Conv2d(3, 6, 3, padding=1), make(), nn.AvgPool2d(4), nn.Conv2d(6, 8, 3, padding=1), make())
    torch.manual_seed(0)
    ann = nn.Sequential(*layers, nn.Flatten(), nn.Linear(32, 5)).eval()
    images = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    snn, plain = (convert(ann, images, time_steps=6, image_limit=6.0) for _ in range(2))
    expected = snn(images, 6)
    assert list(snn.products(1).plain) == ["3", "6"], "all but the first, which reads the image"
    monkeypatch.setattr(products, "prepacked", lambda *given: None)
    assert torch.equal(plain(images, 6), expected)
    assert not plain.products(1).plain
