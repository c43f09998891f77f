"""Networks published by others, with random weights: their graphs and their SNNs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from graph_checks import disturbed, same, with_statistics
from second_simulation import exact_run, relative
from spiking_cases import gaussian_images
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from dynconf_core.conversion.convert import convert
from dynconf_core.errors import InputError
from dynconf_core.graph.checks import KINDS
from dynconf_core.graph.trace import recorded
from dynconf_core.libraries import torchvision
from dynconf_core.networks.pretrained import TORCHVISION, architecture, names
from dynconf_core.simulation.reference import reference_logits

# Names


class WithoutWeights(TorchFunctionMode):
    """Parameters and buffers are made on the meta device: only shapes, which is all that tracing needs."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        place = {"device": "meta"} if func in (torch.empty, torch.zeros, torch.ones) else {}
        return func(*args, **{**(kwargs or {}), **place})


OFFERED = [name for name in names() if name.startswith(TORCHVISION)]


@pytest.mark.parametrize("name", OFFERED)
def test_every_name_that_is_offered_converts(name: str) -> None:
    """Every operation becomes nodes, all of which conversion knows."""
    with WithoutWeights():
        network = architecture(name)
    graph = recorded(network, torch.empty(1, 3, 64, 64, device="meta"))
    assert graph.output.shape == (1000,) and graph.of_kind("activation")
    assert {node.kind for node in graph.nodes} <= {*KINDS, "activation"}


def test_every_other_name_has_a_reason() -> None:
    models = torchvision().models
    others = {*models.list_models(module=models)} - {name.removeprefix(TORCHVISION) for name in OFFERED}
    assert len(OFFERED) == 37 and len(others) == 43
    for name in others:
        with pytest.raises(InputError, match=r"cannot be converted by name: (it|torchvision) "):
            architecture(TORCHVISION + name)


@pytest.mark.parametrize("name", ["efficientnet_b0", "mobilenet_v3_small", "regnet_y_400mf", "convnext_tiny", "swin_t"])
def test_what_is_not_offered_is_refused(name: str) -> None:
    with WithoutWeights():
        network = torchvision().models.get_model(name).eval()
    with pytest.raises(InputError, match=r"multiplies activations|divides by the deviation|is a curve"):
        recorded(network, torch.empty(1, 3, 64, 64, device="meta"))


# Graphs


@pytest.mark.parametrize(
    ("name", "side", "activations"),
    [
        ("resnet20", 32, 19),
        ("torchvision/resnet18", 32, 17),
        ("torchvision/mobilenet_v2", 32, 35),
        ("torchvision/squeezenet1_1", 48, 26),
    ],
)
def test_published_architectures(name: str, side: int, activations: int) -> None:
    torch.manual_seed(0)
    graph = same(disturbed(architecture(name, classes=10)), gaussian_images(2, 0, side).double(), tolerance=1e-9)
    assert len(graph.of_kind("activation")) == activations
    assert not graph.of_kind("scale")


@pytest.mark.parametrize(("name", "side"), [("densenet121", 32), ("googlenet", 32), ("vgg11_bn", 32)])
def test_other_published_architectures(name: str, side: int) -> None:
    """Normalisation after concatenation; branches; a head made for larger images, replaced."""
    torch.manual_seed(0)
    made = torchvision().models.get_model(name, num_classes=10, **({"init_weights": False} if name == "googlenet" else {}))
    if name == "vgg11_bn":
        made.avgpool, made.classifier = nn.AdaptiveAvgPool2d(1), nn.Linear(512, 10)
    graph = same(disturbed(made), gaussian_images(2, 0, side).double(), tolerance=1e-9)
    assert bool(graph.of_kind("scale")) == (name == "densenet121")


# SNNs


def torchvision_network(name: str, images: Tensor) -> nn.Module:
    torch.manual_seed(0)
    network = architecture(f"torchvision/{name}", classes=10)
    if name == "vgg11_bn":
        network.avgpool, network.classifier = nn.AdaptiveAvgPool2d(1), nn.Linear(512, 10)
    return with_statistics(network, images)


@pytest.mark.parametrize(("name", "side"), [("resnet18", 32), ("vgg11_bn", 32), ("squeezenet1_1", 32)])
def test_torchvision_networks(name: str, side: int) -> None:
    """An in-place ReLU used repeatedly; max pools, also cut at the border; concatenations; average pools at the end."""
    images = gaussian_images(12, 0, side)
    network = torchvision_network(name, images)
    snn = convert(network, images, thresholds="max", time_steps=24)
    assert bool(exact_run(snn, images[:1], 24).isfinite().all())
    with torch.no_grad():
        wanted = network(images)
    assert relative(reference_logits(snn, images), wanted) < 0.15
    assert len(snn.layers()) == {"resnet18": 17, "vgg11_bn": 8, "squeezenet1_1": 26}[name]


def test_mobilenet_has_sums_too_large_for_float32() -> None:
    """Linear bottlenecks multiply twice: what reads them, and no more, is computed in float64, and exactly."""
    images = gaussian_images(4, 0, 32)
    network = torchvision_network("mobilenet_v2", images)
    snn = convert(network, images, thresholds="max", time_steps=16)
    spikes, after = snn.graph.spikes(), snn.graph.after(("neurons",))
    multiplied = {node.name for node in snn.graph.of_kind("convolution") if node.inputs[0] not in spikes and node.name in after}
    assert len(multiplied) == 17, "16 expansions and the last layer"
    assert {node.name for node in snn.graph.nodes if node.wide} == set(snn.facts["wide"]) >= multiplied
    assert {node.inputs[0] for node in snn.graph.of_kind("neurons") if node.wide} >= multiplied
    assert not any(snn.graph.by_name[node.inputs[0]].wide for node in snn.graph.nodes if node.name in multiplied)
    assert bool(exact_run(snn, images[:1], 16).isfinite().all())
    with torch.no_grad():
        assert relative(reference_logits(snn, images), network(images)) < 0.15
    plain = convert(network, images, thresholds="max", time_steps=16, fixed_point=False)
    assert not plain.exact and plain.image_limit is None
    with torch.no_grad():
        assert relative(reference_logits(plain, images), network(images)) < 1e-3
    assert len(snn.layers()) == 35
    assert all(layer.settings["clipped"] for layer in snn.layers().values())


@pytest.mark.parametrize("name", ["densenet121", "googlenet"])
def test_networks_that_concatenate(name: str) -> None:
    """Spikes concatenated with analogue values before a normalisation; four branches per block."""
    torch.manual_seed(0)
    options = {"init_weights": False} if name == "googlenet" else {}
    network = torchvision().models.get_model(name, num_classes=10, **options)
    images = gaussian_images(4, 0, 32)
    network = with_statistics(network, images)
    snn = convert(network, images, thresholds="max", time_steps=4, fixed_point=False)
    with torch.no_grad():
        assert relative(reference_logits(snn, images), network(images)) < 1e-3
    assert bool(snn(images[:1], 4).isfinite().all())
