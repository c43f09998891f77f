"""From a module to a graph: every operation compared with the module itself, and what is folded or refused."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from graph_checks import disturbed, same
from network_forms import Applied
from spiking_cases import ANALOGUE_BLOCKS, BLOCKS, RandomNetwork, gaussian_images
from torch import Tensor, nn
from torch.nn import functional
from training_cases import activation

from dynconf_core.activations.lsq import LSQ
from dynconf_core.activations.qcfs import QCFS
from dynconf_core.errors import InputError
from dynconf_core.graph.trace import folded, traced
from dynconf_core.networks.architecture import build


def convolution(inputs: int = 3, outputs: int = 4, **settings: Any) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, **settings)


def flat(x: Tensor) -> Tensor:
    return torch.flatten(x, 1)


def images(count: int = 3, seed: int = 7) -> Tensor:
    return gaussian_images(count, seed).double()


# Operations

OPERATIONS: dict[str, Callable[[], nn.Module]] = {
    "convolution": lambda: Applied(lambda m, x: flat(m[0](x)), convolution(stride=2, dilation=2)),
    "depthwise": lambda: Applied(lambda m, x: flat(m[0](x)), convolution(3, 6, groups=3, bias=False)),
    "unequal kernel": lambda: Applied(lambda m, x: flat(m[0](x)), nn.Conv2d(3, 4, (1, 5), (2, 1), (0, 2))),
    "same padding": lambda: Applied(lambda m, x: flat(m[0](x)), nn.Conv2d(3, 4, 3, padding="same", dilation=2)),
    "valid padding": lambda: Applied(lambda m, x: flat(m[0](x)), nn.Conv2d(3, 4, 3, padding="valid")),
    "functional convolution": lambda: Applied(
        lambda m, x: flat(functional.conv2d(x, m[0].weight, m[0].bias, stride=2, padding=1)), convolution()
    ),
    "standardised weights": lambda: Applied(
        lambda m, x: flat(functional.conv2d(x, (m[0].weight - m[0].weight.mean()) / m[0].weight.std())), convolution()
    ),
    "functional linear": lambda: Applied(lambda m, x: functional.linear(flat(x), m[0].weight), nn.Linear(192, 5)),
    "norm without affine": lambda: Applied(lambda m, x: flat(m[1](m[0](x))), convolution(), nn.BatchNorm2d(4, affine=False)),
    "norm after norm": lambda: Applied(lambda m, x: flat(m[2](m[1](x))), convolution(), nn.BatchNorm2d(3), nn.BatchNorm2d(3)),
    "norm first": lambda: Applied(lambda m, x: flat(m[1](m[0](x))), nn.BatchNorm2d(3), convolution()),
    "norm of a sum": lambda: Applied(lambda m, x: flat(m[1](m[0](x) + x)), convolution(3, 3), nn.BatchNorm2d(3)),
    "average pool": lambda: Applied(lambda m, x: flat(m[0](x)), nn.AvgPool2d(3, 2, 1)),
    "average pool in ceil mode that fits": lambda: Applied(lambda m, x: flat(m[0](x)), nn.AvgPool2d(2, ceil_mode=True)),
    "functional average pool": lambda: Applied(lambda m, x: flat(functional.avg_pool2d(x, (2, 4), stride=2))),
    "adaptive pool": lambda: Applied(lambda m, x: flat(m[0](x)), nn.AdaptiveAvgPool2d((4, 2))),
    "adaptive pool of one side": lambda: Applied(lambda m, x: flat(m[0](x)), nn.AdaptiveAvgPool2d((None, 2))),
    "functional global pool": lambda: Applied(lambda m, x: flat(functional.adaptive_avg_pool2d(x, 1))),
    "mean over the image": lambda: Applied(lambda m, x: x.mean((2, 3))),
    "mean over the image, negative": lambda: Applied(lambda m, x: flat(torch.mean(x, dim=[-1, -2], keepdim=True))),
    "max pool": lambda: Applied(lambda m, x: flat(m[0](x)), nn.MaxPool2d(3, 2, 1)),
    "max pool in ceil mode": lambda: Applied(lambda m, x: flat(m[0](x)), nn.MaxPool2d(3, 2, ceil_mode=True)),
    "functional max pool": lambda: Applied(lambda m, x: flat(functional.max_pool2d(x, 3, stride=1, dilation=2))),
    "addition": lambda: Applied(lambda m, x: flat(torch.add(m[0](x), x)), convolution(3, 3)),
    "addition to itself": lambda: Applied(lambda m, x: flat(x + x)),
    "sum()": lambda: Applied(lambda m, x: flat(sum([m[0](x), x, m[1](x)])), convolution(3, 3), convolution(3, 3)),
    "subtraction": lambda: Applied(lambda m, x: flat(m[0](x) - x), convolution(3, 3)),
    "negation": lambda: Applied(lambda m, x: flat(-m[0](x)), convolution()),
    "from one": lambda: Applied(lambda m, x: flat(1 - m[0](x)), convolution()),
    "constant factors": lambda: Applied(lambda m, x: flat(0.5 * (m[0](x) * 3).div(4)), convolution()),
    "factor a channel": lambda: Applied(lambda m, x: flat(x * torch.tensor([1.0, 2.0, -3.0]).view(1, 3, 1, 1))),
    "normalisation inside": lambda: Applied(
        lambda m, x: flat((x - torch.tensor([0.1, 0.2, 0.3])[:, None, None]) / torch.tensor([0.5, 2.0, 4.0]).view(3, 1, 1))
    ),
    "concatenation": lambda: Applied(lambda m, x: flat(torch.cat([m[0](x), x, m[0](x)], dim=1)), convolution()),
    "concatenation of one": lambda: Applied(lambda m, x: flat(torch.cat([x], 1))),
    "option A": lambda: Applied(lambda m, x: flat(functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 2)))),
    "slices": lambda: Applied(lambda m, x: flat(x[:, 1:, ..., 2:-1])),
    "ellipsis": lambda: Applied(lambda m, x: flat(x[..., ::3])),
    "chunk": lambda: Applied(lambda m, x: flat(torch.cat(x.chunk(2, 1)[::-1], 1))),
    "split": lambda: Applied(lambda m, x: (lambda y: flat(y[0] - y[1]))(torch.split(m[0](x), 2, dim=1)), convolution()),
    "unequal split": lambda: Applied(lambda m, x: flat(m[0](x).split([3, 1], 1)[0]), convolution()),
    "zero pad": lambda: Applied(lambda m, x: flat(m[0](x)), nn.ZeroPad2d((1, 0, 2, 3))),
    "flatten module": lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 5)),
    "flatten what is flat": lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 5), nn.Flatten()),
    "view": lambda: Applied(lambda m, x: x.view(x.size(0), -1)),
    "view by shape": lambda: Applied(lambda m, x: x.reshape(x.shape[0], x.shape[1] * x.size(2) * x.shape[3])),
    "squeeze": lambda: Applied(lambda m, x: m[0](x).squeeze((2, 3)), nn.AdaptiveAvgPool2d(1)),
    "kernel of the image's size": lambda: Applied(lambda m, x: flat(functional.avg_pool2d(x, x.size()[2:]))),
    "no-ops": lambda: Applied(lambda m, x: flat(m[1](m[0](x)).contiguous().clone()), nn.Dropout(0.9), nn.Identity()),
    "functional dropout": lambda: Applied(lambda m, x: flat(functional.dropout(x, 0.5, training=m.training))),
    "relu": lambda: Applied(lambda m, x: flat(m[1](m[0](x)).relu()), convolution(), nn.ReLU(inplace=True)),
    "functional relu": lambda: Applied(lambda m, x: flat(functional.relu(torch.relu(x), inplace=True))),
    "relu6": lambda: Applied(lambda m, x: flat(functional.relu6(10 * m[0](x)) + m[0](5 * x)), nn.ReLU6()),
    "clips": lambda: Applied(
        lambda m, x: flat(x.clamp(0, 1) + torch.clamp(x, min=0.0, max=0.5) + functional.hardtanh(x, 0.0, 2.0) + m[0](x)),
        nn.Hardtanh(0, 0.25),
    ),
    "clip without a top": lambda: Applied(lambda m, x: flat(x.clamp(min=0))),
    "QCFS": lambda: Applied(lambda m, x: flat(m[0](x)), QCFS(4, 1.5)),
    "LSQ": lambda: Applied(lambda m, x: flat(m[0](x)), LSQ(2)),
}


@pytest.mark.parametrize("name", list(OPERATIONS))
def test_operation(name: str) -> None:
    torch.manual_seed(0)
    same(disturbed(OPERATIONS[name]()))


def test_features_need_no_image() -> None:
    """Inputs ``(N, F)``."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Dropout(), nn.Linear(7, 3))
    graph = same(disturbed(network), torch.randn(4, 6, dtype=torch.float64))
    assert [node.kind for node in graph.nodes] == ["input", "linear", "activation", "linear"]


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("method", ["relu", "qcfs", "qffs"])
def test_random_networks(method: str, seed: int) -> None:
    same(RandomNetwork(seed, method, dyadic=False, blocks=BLOCKS + ANALOGUE_BLOCKS))


@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
@pytest.mark.parametrize("name", ["vgg16", "resnet18", "resnet50"])
def test_own_networks(name: str, stem: str) -> None:
    make = activation("qcfs", levels=4, initial_threshold=2.0)
    network = build(name, stem, classes=10, resolution=32, width=1 / 16, activation=make, seed=1)
    graph = same(disturbed(network), gaussian_images(2, 0, 32).double(), tolerance=1e-10)
    assert not graph.of_kind("scale"), "every batch normalisation is folded"


def test_the_network_is_not_changed() -> None:
    network = disturbed(nn.Sequential(convolution(), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(256, 2)))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    x = gaussian_images(2, 0)
    kept = x.clone()
    folded(traced(network, x))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(value.dtype == before[name].dtype for name, value in network.state_dict().items())
    assert torch.equal(x, kept)


# Places and reuse


def test_shared_modules_are_one_node_per_call() -> None:
    """One ReLU and one convolution used repeatedly, as in torchvision; each call has a name of its own."""
    network = Applied(lambda m, x: flat(m[1](m[0](m[1](m[0](m[1](m[0](x))))))), convolution(3, 3), nn.ReLU(inplace=True))
    graph = same(disturbed(network))
    assert [node.name for node in graph.of_kind("activation")] == ["parts.1", "parts.1#2", "parts.1#3"]
    assert [node.name for node in graph.of_kind("convolution")] == ["parts.0", "parts.0#2", "parts.0#3"]


def test_a_shared_convolution_of_two_normalisations() -> None:
    """The weights folded for one call are not used for the other."""
    shared = convolution(3, 3)
    network = nn.Sequential(shared, nn.BatchNorm2d(3), QCFS(4, 1.0), shared, nn.BatchNorm2d(3), QCFS(4, 1.0), nn.Flatten())
    graph = same(disturbed(network))
    first, second = graph.of_kind("convolution")
    assert not torch.equal(first.tensors["weight"], second.tensors["weight"])


def test_layers_may_have_any_name() -> None:
    """Even that of the input, or of another operation of the graph."""

    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.input, self.add_1, self.relu = convolution(3, 3), convolution(3, 3), nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            y = self.relu(self.input(x) + x) + x
            return flat(self.add_1(y) + y)

    graph = same(disturbed(Named()))
    assert len(graph.by_name) == len(graph.nodes) == 9 - 1


def test_places_name_the_enclosing_module() -> None:
    inner = Applied(lambda m, x: torch.sigmoid(m[0](x)), convolution())
    with pytest.raises(InputError, match=r"sigmoid at '1\.sigmoid' cannot be converted: it is a curve"):
        traced(nn.Sequential(nn.ReLU(), inner, nn.Flatten()).eval(), images())


# In place


def test_a_value_changed_in_place_is_changed_for_all() -> None:
    """``relu(y, inplace=True) + y`` adds the ReLU twice: y is no longer the output of the convolution."""
    for function in (
        lambda m, x: (lambda y: flat(functional.relu(y, inplace=True) + y))(m[0](x)),
        lambda m, x: (lambda y: flat(m[1](y) + 2 * y))(m[0](x)),
        lambda m, x: (lambda y: flat(y.mul_(3) + y))(m[0](x)),
        lambda m, x: (lambda y: flat(y.relu_() + torch.cat([y], 1)))(m[0](x)),
        lambda m, x: (lambda y: (lambda z: flat(z.relu_() + 2 * y))(y.contiguous().view_as(y)))(m[0](x)),
        lambda m, x: (lambda y: (lambda z: flat(z.relu_() + 2 * y))(y.clone()))(m[0](x)),
    ):
        same(disturbed(Applied(function, convolution(), nn.ReLU(inplace=True))))


def test_a_view_changed_in_place_is_refused() -> None:
    """Changing a part in place changes the whole, which is read afterwards: this is refused, not computed wrongly."""

    def function(m: Any, x: Tensor) -> Tensor:
        whole = m[0](x)
        return flat(torch.cat([m[1](whole[:, :2]), whole], 1))

    with pytest.raises(InputError, match="may be changed in place"):
        traced(Applied(function, convolution(), nn.ReLU(inplace=True)).eval(), images())
    same(Applied(function, convolution(), nn.ReLU()).eval())  # out of place there is nothing to fear


def test_a_sum_in_place_is_seen() -> None:
    """``y += x`` changes y under every name."""

    def function(m: Any, x: Tensor) -> Tensor:
        y = m[0](x)
        other = y
        y += x
        return flat(y + other)

    same(disturbed(Applied(function, convolution(3, 3))))


def test_hooks_are_part_of_the_network() -> None:
    network = nn.Sequential(convolution(), nn.ReLU(), nn.Flatten()).eval()
    network[0].register_forward_hook(lambda module, inputs, output: 2 * output)
    network[1].register_forward_pre_hook(lambda module, inputs: (inputs[0] - 1,))
    assert [node.kind for node in same(network).nodes] == ["input", "convolution", "activation", "flatten"]


def test_hooks_may_look_at_values() -> None:
    """Those of profilers do; one that also changes a value is found out."""
    network = nn.Sequential(convolution(), nn.ReLU(), nn.Flatten()).eval()
    seen: list[float] = []
    network[0].register_forward_hook(lambda module, inputs, output: seen.append(output.abs().mean().item()))
    same(network)
    assert len(seen) >= 2 and all(isinstance(value, float) for value in seen)
    network[1].register_forward_hook(lambda module, inputs, output: output * float(output.max()))
    with pytest.raises(InputError, match="does more than its traced operations"):
        traced(network, images())


def test_what_is_random_is_seen() -> None:
    network = Applied(lambda m, x: flat(x + torch.rand(3, 1, 1))).eval()
    with pytest.raises(InputError, match="something random changes a value"):
        traced(network, images())


def test_wrapped_networks() -> None:
    network = nn.Sequential(convolution(), nn.ReLU(), nn.Flatten()).eval()
    plain = traced(network, images())
    for wrapped in (torch.compile(network), nn.DataParallel(network)):
        assert [node.name for node in traced(wrapped, images()).nodes] == [node.name for node in plain.nodes]


def test_other_threads_are_not_affected() -> None:
    """torch.fx replaces the call of every module while it traces; a network in another thread keeps working."""
    working, stop, wrong = nn.Sequential(*(nn.Linear(4, 4) for _ in range(4))), threading.Event(), list[Any]()
    x = torch.ones(1, 4)
    expected = working(x)

    def work() -> None:
        while not stop.is_set():
            result = working(x)
            if not isinstance(result, Tensor) or not torch.equal(result, expected):
                wrong.append(result)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        network = RandomNetwork(0, "relu")
        lengths = {len(traced(network, gaussian_images(1, 0)).nodes) for _ in range(5)}
    finally:
        stop.set()
        thread.join()
    assert not wrong and len(lengths) == 1


# Folding


def test_folding_by_hand() -> None:
    """w' = w gamma / sqrt(var + eps), b' = (b - mean) gamma / sqrt(var + eps) + beta."""
    first, norm = nn.Conv2d(3, 1, 1), nn.BatchNorm2d(1, eps=0.25)
    with torch.no_grad():
        first.weight.fill_(3.0)
        assert first.bias is not None and norm.running_mean is not None and norm.running_var is not None
        first.bias.fill_(1.0)
        norm.weight.fill_(4.0)
        norm.bias.fill_(-2.0)
        norm.running_mean.fill_(0.5)
        norm.running_var.fill_(3.75)
    graph = folded(traced(nn.Sequential(first, norm, nn.Flatten()).eval(), images()))
    (node,) = graph.of_kind("convolution")
    assert node.tensors["weight"].unique().tolist() == [6.0] and node.tensors["bias"].tolist() == [-1.0]


def test_what_is_read_twice_is_not_folded() -> None:
    network = Applied(lambda m, x: (lambda y: flat(m[1](y) + y))(m[0](x)), convolution(), nn.BatchNorm2d(4))
    graph = same(disturbed(network))
    assert [node.kind for node in graph.nodes] == ["input", "convolution", "scale", "add", "flatten"]


@pytest.mark.parametrize("make", [nn.ReLU, nn.ReLU6, lambda: QCFS(4, 0.7), lambda: LSQ(2)])
def test_activations_are_moved_before_pools_and_flattening(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(3)
    network = nn.Sequential(
        convolution(), nn.MaxPool2d(3, 2, 1), nn.MaxPool2d(2), make(), nn.Conv2d(4, 4, 1), nn.Flatten(), make()
    )
    graph = same(network.eval())
    kinds = ["input", "convolution", "activation", "max_pool", "max_pool", "convolution", "activation", "flatten"]
    assert [node.kind for node in graph.nodes] == kinds
    assert graph.nodes[2].shape == (4, 8, 8) and graph.nodes[6].shape == (4, 2, 2)
