"""The networks: shapes, sizes, and weights that depend on the seed alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dynconf_core.activations.factory import activation
from dynconf_core.activations.lsq import LSQ
from dynconf_core.activations.qcfs import QCFS
from dynconf_core.errors import InputError
from dynconf_core.networks.build import ARCHITECTURES, STEMS, build
from dynconf_core.networks.description import described, parameters
from dynconf_core.networks.resnet import Block
from dynconf_core.networks.scaling import scaled

DESCRIPTION = {
    "architecture": "resnet18",
    "stem": "cifar",
    "classes": 10,
    "resolution": 32,
    "width": 1 / 16,
    "method": "qcfs",
    "levels": 4,
    "bits": None,
}


def network(architecture: str, stem: str = "cifar", *, resolution: int = 32, width: float = 1 / 16, seed: int = 0) -> nn.Module:
    make = activation("qcfs", levels=4, bits=None, initial_threshold=4.0)
    return build(architecture, stem, classes=7, resolution=resolution, width=width, activation=make, seed=seed)


@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("resolution", [32, 48])
def test_every_network_runs(architecture: str, stem: str, resolution: int) -> None:
    built = network(architecture, stem, resolution=resolution).eval()
    with torch.inference_mode():
        assert built(torch.randn(2, 3, resolution, resolution)).shape == (2, 7)


def layers(built: nn.Module, kind: type[nn.Module]) -> int:
    return sum(isinstance(module, kind) for module in built.modules())


@pytest.mark.parametrize(
    ("architecture", "convolutions", "linear", "activations"),
    [("vgg16", 13, 3, 15), ("resnet18", 17 + 3, 1, 17), ("resnet34", 33 + 3, 1, 33), ("resnet50", 49 + 4, 1, 49)],
)
def test_depth(architecture: str, convolutions: int, linear: int, activations: int) -> None:
    """A neuron after every weighted layer but the last and the shortcuts' projections; no max pool anywhere."""
    built = network(architecture)
    assert layers(built, nn.Conv2d) == convolutions
    assert layers(built, nn.Linear) == linear
    assert layers(built, QCFS) == activations
    assert layers(built, nn.MaxPool2d) == 0


def published(architecture: str, stem: str, classes: int, resolution: int) -> int:
    """Parameters of the full-width network without the activations' own; no memory is taken."""
    make = activation("qcfs", levels=4, bits=None, initial_threshold=4.0)
    with torch.device("meta"):
        from dynconf_core.networks.resnet import ResNet
        from dynconf_core.networks.vgg import VGG

        built: nn.Module
        if architecture == "vgg16":
            built = VGG(classes, make, 1.0, resolution)
        else:
            built = ResNet(architecture, stem, classes, make, 1.0)
    return parameters(built) - layers(built, QCFS)


def test_full_width_has_the_published_size() -> None:
    """As the sources' own implementations count; ours has no biases before batch normalisation (4224 in VGG-16)."""
    assert published("resnet18", "cifar", 10, 32) == 11_173_962
    assert published("resnet50", "imagenet", 1000, 224) == 25_557_032
    assert published("resnet18", "imagenet", 1000, 224) == 11_689_512
    assert published("resnet34", "imagenet", 1000, 224) == 21_797_672
    assert published("vgg16", "imagenet", 1000, 224) == 138_365_992 - 4224


def test_vgg_layers_at_width_one_eighth() -> None:
    built = network("vgg16", width=1 / 8, resolution=48)
    widths = [module.out_channels for module in built.modules() if isinstance(module, nn.Conv2d)]
    assert widths == [8, 8, 16, 16, 32, 32, 32, 64, 64, 64, 64, 64, 64]
    assert [(m.in_features, m.out_features) for m in built.modules() if isinstance(m, nn.Linear)] == [
        (64, 512),
        (512, 512),
        (512, 7),
    ]
    wide = network("vgg16", resolution=96)
    assert next(m for m in wide.modules() if isinstance(m, nn.Linear)).in_features == scaled(512, 1 / 16) * 9


@pytest.mark.parametrize(
    ("channels", "width", "expected"), [(64, 1, 64), (64, 1 / 8, 8), (64, 1 / 64, 4), (64, 0.001, 4), (100, 0.5, 50)]
)
def test_scaled(channels: int, width: float, expected: int) -> None:
    assert scaled(channels, width) == expected


def same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("architecture", ["vgg16", "resnet18", "resnet50"])
def test_weights_depend_on_the_seed_alone(architecture: str) -> None:
    """torch's global generator is shared by all threads: it must not matter."""
    torch.manual_seed(1)
    first = network(architecture)
    torch.manual_seed(2)
    torch.rand(17)
    assert same(first, network(architecture))
    assert not same(first, network(architecture, seed=1))


def test_initial_weights() -> None:
    """Kaiming fan-out: standard deviation sqrt(2 / (outputs k k)); biases 0; a bottleneck's last gamma 0, a basic block's 1."""
    built = network("resnet50", width=1 / 4)
    blocks = [module for module in built.modules() if isinstance(module, Block)]
    assert len(blocks) == 16
    for block in blocks:
        assert isinstance(block.body[-1], nn.BatchNorm2d)
        assert torch.all(block.body[-1].weight == 0)
        assert torch.all(block.body[1].weight == 1)  # type: ignore[operator]
    convolution = blocks[-1].body[3]
    assert isinstance(convolution, nn.Conv2d)
    assert float(convolution.weight.detach().std()) == pytest.approx((2 / (128 * 9)) ** 0.5, rel=0.02)
    linear = next(m for m in built.modules() if isinstance(m, nn.Linear))
    assert float(linear.weight.detach().std()) == pytest.approx((2 / 512) ** 0.5, rel=0.05)
    assert torch.all(linear.bias == 0)
    basic = [module for module in network("resnet18").modules() if isinstance(module, Block)]
    assert all(torch.all(block.body[-1].weight == 1) for block in basic)  # type: ignore[arg-type, union-attr]


def test_described() -> None:
    built = described({**DESCRIPTION, "initial_threshold": 3.0}, seed=5)
    thresholds = {module.threshold.item() for module in built.modules() if isinstance(module, QCFS)}
    assert thresholds == {3.0}
    other = described({**DESCRIPTION, "method": "qffs", "levels": None, "bits": 3}, seed=5)
    assert {module.top for module in other.modules() if isinstance(module, LSQ)} == {7}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"architecture": "resnet1"}, "architecture='resnet1' is unknown: choose one of vgg16"),
        ({"architecture": "vgg16", "resolution": 31}, "resolution=31: vgg16 .* at least 32"),
        ({"method": "qqfs"}, "method='qqfs'"),
    ],
)
def test_descriptions_that_cannot_work(changes: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        described({**DESCRIPTION, **changes}, seed=0)
