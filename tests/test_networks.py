"""The networks: shapes, sizes, and weights that depend on the seed alone."""

from __future__ import annotations

import hashlib
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from training_cases import activation

from dynconf_core.activations.lsq import LSQ
from dynconf_core.activations.qcfs import QCFS
from dynconf_core.errors import InputError
from dynconf_core.networks.architecture import ARCHITECTURES, STEMS, build, parameters, scaled
from dynconf_core.networks.pretrained import architecture, names, pretrained
from dynconf_core.networks.published_weights import fetched
from dynconf_core.networks.resnet import Block
from dynconf_core.networks.resnet_cifar import CIFAR_DEPTHS, CifarResNet, OptionA
from dynconf_core.schemes.network import described

DESCRIPTION = {
    "architecture": "resnet18",
    "stem": "cifar",
    "classes": 10,
    "resolution": 32,
    "width": 1 / 16,
    "method": "qcfs",
    "levels": 4,
}
QFFS = {name: value for name, value in DESCRIPTION.items() if name != "levels"} | {"method": "qffs", "bits": 3}


def network(architecture: str, stem: str = "cifar", *, resolution: int = 32, width: float = 1 / 16, seed: int = 0) -> nn.Module:
    make = activation("qcfs", levels=4, initial_threshold=4.0)
    return build(architecture, stem, classes=7, resolution=resolution, width=width, activation=make, seed=seed)


@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize("architecture", ARCHITECTURES.names())
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
    """A neuron after every weighted layer except the last and the projections of the shortcuts; no max pools."""
    built = network(architecture)
    assert layers(built, nn.Conv2d) == convolutions
    assert layers(built, nn.Linear) == linear
    assert layers(built, QCFS) == activations
    assert layers(built, nn.MaxPool2d) == 0


def published(architecture: str, stem: str, classes: int, resolution: int) -> int:
    """Parameters of the full-width network without those of the activations; no memory is allocated."""
    make = activation("qcfs", levels=4, initial_threshold=4.0)
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
    """As the original implementations count; ours has no biases before batch normalisation (4224 in VGG-16)."""
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
    """torch's global generator, shared by all threads, must have no effect."""
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
    other = described(QFFS, seed=5)
    assert {module.top for module in other.modules() if isinstance(module, LSQ)} == {7}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"architecture": "resnet1"}, "architecture 'resnet1' is unknown .*: choose one of vgg16, resnet18"),
        ({"stem": "cifar100"}, "stem='cifar100' is unknown: choose one of cifar, imagenet"),
        ({"bits": 2}, "bits=2 is not a field of the conversion scheme 'qcfs': it has levels"),
        ({"method": "qffs", "bits": 2}, "levels=4 is not a field of the conversion scheme 'qffs': it has bits"),
        ({"architecture": "vgg16", "resolution": 31}, "resolution=31: vgg16 .* at least 32"),
        ({"method": "qqfs"}, "conversion scheme 'qqfs' is unknown .*: choose one of qcfs, qffs"),
    ],
)
def test_unusable_descriptions(changes: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        described({**DESCRIPTION, **changes}, seed=0)


def test_a_description_without_its_schemes_numbers() -> None:
    with pytest.raises(InputError, match="method='qcfs' needs levels"):
        described({name: value for name, value in DESCRIPTION.items() if name != "levels"}, seed=0)


# The CIFAR ResNets


@pytest.mark.parametrize(
    ("depth", "size", "layers_"),
    [(20, 0.27, 20), (32, 0.46, 32), (44, 0.66, 44), (56, 0.85, 56), (110, 1.7, 110)],
)
def test_cifar_resnets_have_the_published_size(depth: int, size: float, layers_: int) -> None:
    """He et al., table 6: layers and millions of parameters, to the digits printed there."""
    with torch.device("meta"):
        built = CifarResNet(depth)
    assert layers(built, nn.Conv2d) + layers(built, nn.Linear) == layers_
    assert layers(built, nn.ReLU) == layers_ - 1
    assert parameters(built) / 1e6 == pytest.approx(size, abs=0.05 if size > 1 else 0.005)


def test_cifar_resnet_names() -> None:
    """The names in the widely used checkpoints; no shortcut has parameters."""
    state = CifarResNet(20).state_dict()
    tops = {"conv1", "bn1", "linear", *(f"layer{stage}.{block}" for stage in (1, 2, 3) for block in (0, 1, 2))}
    assert {".".join(name.split(".")[: 2 if name.startswith("layer") else 1]) for name in state} == tops
    block = {name.removeprefix("layer2.0.") for name in state if name.startswith("layer2.0.")}
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    assert block == {"conv1.weight", "conv2.weight", *(f"bn{n}.{what}" for n in (1, 2) for what in norm)}
    assert state["layer3.2.conv2.weight"].shape == (64, 64, 3, 3) and state["linear.weight"].shape == (10, 64)


def test_option_a_by_hand() -> None:
    """Every other pixel, starting from the first; one new channel of zeros before the others and one after them."""
    x = torch.arange(2 * 4 * 4, dtype=torch.float32).reshape(1, 2, 4, 4)
    y = OptionA(2, 4, 2)(x)
    assert y.shape == (1, 4, 2, 2)
    assert y[0, 0].abs().max() == 0 and y[0, 3].abs().max() == 0
    assert y[0, 1].tolist() == [[0, 2], [8, 10]] and y[0, 2].tolist() == [[16, 18], [24, 26]]


def plain_resnet20(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """The same network written as functions of a state dict alone."""

    def normed(x: Tensor, convolution: str, norm: str, stride: int = 1) -> Tensor:
        x = functional.conv2d(x, state[f"{convolution}.weight"], stride=stride, padding=1)
        mean, variance = state[f"{norm}.running_mean"], state[f"{norm}.running_var"]
        scale = state[f"{norm}.weight"] / torch.sqrt(variance + 1e-5)
        return x * scale[:, None, None] + (state[f"{norm}.bias"] - mean * scale)[:, None, None]

    x = normed(x, "conv1", "bn1").clamp_min(0)
    for stage in (1, 2, 3):
        for block in range(3):
            at, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            inner = normed(x, f"{at}.conv1", f"{at}.bn1", stride).clamp_min(0)
            inner = normed(inner, f"{at}.conv2", f"{at}.bn2")
            if stride == 2:
                zeros = torch.zeros(len(x), x.shape[1] // 2, *inner.shape[2:], dtype=x.dtype)
                x = torch.cat([zeros, x[..., ::2, ::2], zeros], dim=1)
            x = (inner + x).clamp_min(0)
    return x.mean(dim=(2, 3)) @ state["linear.weight"].T + state["linear.bias"]


def test_resnet20_against_a_second_implementation() -> None:
    generator = torch.Generator().manual_seed(3)
    built = CifarResNet(20).double().eval()
    for name, value in built.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.randn(value.shape, generator=generator) * 0.1 + ("norm" in name or "bn" in name))
            if name.endswith("var"):
                value.abs_().add_(0.1)
    x = torch.randn(3, 3, 32, 32, generator=generator, dtype=torch.float64)
    with torch.inference_mode():
        assert torch.allclose(built(x), plain_resnet20(built.state_dict(), x), rtol=1e-10)


@pytest.mark.parametrize("depth", CIFAR_DEPTHS)
def test_cifar_resnets_are_traced_as_tensor_operations(depth: int) -> None:
    """No shapes are read during tracing: the graph is valid for any batch and image size."""
    built = CifarResNet(depth, classes=4, width=1 / 4).eval()
    graph = fx.symbolic_trace(built)
    kinds = {node.op for node in graph.graph.nodes}
    assert kinds == {"placeholder", "call_module", "call_function", "output"}
    with torch.inference_mode():
        for size in (32, 48):
            x = torch.randn(2, 3, size, size)
            assert torch.equal(graph(x), built(x))


def test_the_activation_of_a_cifar_resnet_is_a_parameter() -> None:
    built = CifarResNet(20, 10, activation("qcfs", levels=4, initial_threshold=4.0), 1 / 4)
    assert layers(built, QCFS) == 19 and layers(built, nn.ReLU) == 0
    with pytest.raises(InputError, match="depth=18: the CIFAR ResNets have 20, 32"):
        CifarResNet(18)


# Networks trained elsewhere


def test_names_and_inputs() -> None:
    assert names()[:5] == ("resnet20", "resnet32", "resnet44", "resnet56", "resnet110")
    assert {"torchvision/resnet50", "torchvision/vgg16", "torchvision/vgg16_bn", "torchvision/mobilenet_v2"} < set(names())
    assert not any(word in name for name in names() for word in ("vit", "swin", "convnext", "efficientnet", "v3", "regnet_y"))
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    ours, theirs = pretrained("resnet20"), pretrained("torchvision/resnet50")
    assert (ours.classes, ours.resolution, ours.shorter_side) == (10, 32, 32)
    assert (theirs.classes, theirs.resolution, theirs.shorter_side) == (1000, 224, 232)
    for each in (ours, theirs):
        assert (each.normalisation.mean, each.normalisation.std) == (mean, std)


@pytest.mark.parametrize(("name", "side"), [("resnet32", 32), ("torchvision/resnet18", 64), ("torchvision/squeezenet1_1", 64)])
def test_architectures_have_the_classes_asked_for(name: str, side: int) -> None:
    built = architecture(name, classes=7)
    assert not built.training
    with torch.inference_mode():
        assert built(torch.randn(2, 3, side, side)).shape == (2, 7)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"name": "resnet21"}, "architecture='resnet21' is unknown: choose one such as resnet20"),
        ({"name": "resnet18"}, "did you mean 'torchvision/resnet18'"),
        ({"name": "torchvision/densenet121"}, "cannot be converted by name: torchvision renames its weights"),
        ({"name": "torchvision/efficientnet_b0"}, "multiplies activations .*; EfficientNet-Lite is the same without"),
        ({"name": "torchvision/fcn_resnet50"}, "fcn_resnet50' is unknown"),
        ({"name": "resnet20", "classes": 1}, "classes=1: .* at least 2"),
        ({"name": "resnet20", "weights": "default"}, "none are published with resnet20; give its checkpoint"),
        ({"name": "torchvision/resnet18", "weights": "other"}, "weights='other' .* default, IMAGENET1K_V1"),
        ({"name": "torchvision/resnet18", "weights": "default", "classes": 10}, "1000 classes, not 10"),
    ],
)
def test_names_that_cannot_work(asked: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        architecture(**asked)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty torch cache and a proxy that does not answer: no test reaches a network."""
    direct = urllib.request.build_opener()  # the first opener is kept for the process, with the proxies of its time
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for scheme in ("http", "https"):
        monkeypatch.setenv(f"{scheme}_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    urllib.request.install_opener(urllib.request.build_opener())
    yield tmp_path / "hub" / "checkpoints"
    urllib.request.install_opener(direct)


def test_weights_without_a_network_connection(cache: Path) -> None:
    begun = time.monotonic()
    with pytest.raises(InputError, match=r"resnet18-f37072fd\.pth cannot be downloaded .*save it as .*--checkpoint"):
        architecture("torchvision/resnet18", weights="default")
    assert time.monotonic() - begun < 10
    assert not list(cache.iterdir()), "half a file is left"


def test_weights_from_the_cache(cache: Path, tmp_path: Path) -> None:
    """Torch's cache is used, the checksum is verified, and a wrong file is never read."""
    state = architecture("torchvision/squeezenet1_1").state_dict()
    torch.save(state, tmp_path / "made")
    digits = hashlib.sha256((tmp_path / "made").read_bytes()).hexdigest()[:8]
    cache.mkdir(parents=True)
    (tmp_path / "made").rename(cache / f"squeeze-{digits}.pth")
    assert fetched(f"https://nowhere.invalid/models/squeeze-{digits}.pth") == cache / f"squeeze-{digits}.pth"
    (cache / "squeezenet1_1-b8a52dc0.pth").write_bytes(b"a page that says who may log in here")
    with pytest.raises(
        InputError, match=r"squeezenet1_1-b8a52dc0\.pth does not have the sha256 that its name gives: delete it"
    ):
        architecture("torchvision/squeezenet1_1", weights="default")


def test_weights_downloaded(cache: Path, tmp_path: Path) -> None:
    """A file: URL stands in for the network: the bytes arrive under the name that torchvision expects."""
    content = bytes(range(256)) * 9000
    source = tmp_path / f"net-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    source.write_bytes(content)
    path = fetched(source.as_uri())
    assert path == cache / source.name and path.read_bytes() == content
    assert [entry.name for entry in cache.iterdir()] == [source.name]
    source.unlink()
    assert fetched(source.as_uri()) == path, "not from the cache"
