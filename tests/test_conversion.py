"""Conversion as a whole: networks of every kind with every way to thresholds, and what is refused and how."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from graph_checks import with_statistics
from hypothesis import given, settings
from hypothesis import strategies as st
from second_simulation import exact_run, relative, simulated
from spiking_cases import RandomNetwork, gaussian_images
from torch import Tensor, nn
from torch.nn import functional
from trained_digits import digits, trained_on_digits
from training_cases import activation

from dynconf_core.activations.lsq import LSQ
from dynconf_core.activations.qcfs import QCFS
from dynconf_core.conversion.convert import convert
from dynconf_core.errors import InputError
from dynconf_core.networks.architecture import build
from dynconf_core.simulation.reference import reference_logits
from dynconf_core.training.loop import initialise_steps

PROPERTY = settings(max_examples=15, deadline=None, derandomize=True)


# Networks of one's own


def test_a_preactivation_network() -> None:
    """Normalisation and activation before the weights; the shortcut of the first block reads the activated value."""

    class Block(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)
            self.conv1, self.conv2 = (nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in range(2))

        def forward(self, x: Tensor) -> Tensor:
            y = functional.relu(self.norm1(x))
            result: Tensor = x + self.conv2(functional.relu(self.norm2(self.conv1(y))))
            return result

    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 6, 3, padding=1), Block(6), Block(6), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
    images = gaussian_images(32, 0)
    network = with_statistics(nn.Sequential(*layers, nn.Flatten(), nn.Linear(6, 5)), images)
    snn = convert(network, images, thresholds="max", time_steps=64)
    with torch.no_grad():
        wanted = network(images)
    assert relative(reference_logits(snn, images), wanted) < 0.05
    assert relative(exact_run(snn, images, 64), wanted) < 0.1


def test_a_network_of_features() -> None:
    torch.manual_seed(0)
    images = torch.randn(40, 12)
    network = nn.Sequential(nn.Linear(12, 20), nn.BatchNorm1d(20), nn.ReLU(), nn.Dropout(), nn.Linear(20, 4)).eval()
    snn = convert(network, images, thresholds="max", time_steps=128)
    with torch.no_grad():
        assert relative(exact_run(snn, images, 128), network(images)) < 0.03
    with pytest.raises(InputError, match=r"the images have the shape \(3, 8, 8\), but the network was converted for \(12,\)"):
        snn(gaussian_images(2, 0), 4)


@pytest.mark.parametrize("method", ["qcfs", "qffs"])
@pytest.mark.parametrize("name", ["vgg16", "resnet18", "resnet50"])
def test_own_networks(name: str, method: str) -> None:
    make = activation(method, levels=4, bits=2, initial_threshold=2.0)
    network = build(name, "cifar", classes=10, resolution=32, width=1 / 16, activation=make, seed=0)
    initialise_steps(network, gaussian_images(4, 1, 32))
    snn = convert(network.eval(), gaussian_images(1, 0, 32), time_steps=8)
    images = gaussian_images(2, 2, 32).clamp(-3, 3)
    exact_run(snn, images, 8)
    layers = [module for module in network.modules() if isinstance(module, QCFS | LSQ)]
    steps = [module.step.item() * 3 if isinstance(module, LSQ) else 2.0 for module in layers]
    assert sorted(float(node.tensors["threshold"]) for node in snn.layers().values()) == pytest.approx(sorted(steps))
    assert snn.active_steps == (3 if method == "qffs" else None)


# Views and places


class Views(nn.Module):
    """Activations that read slices and flattened values, each of them read elsewhere too, and not the same channels."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 4, 3, padding=1, stride=2)
        self.head = nn.Linear(6 * 64 + 2 * 64 + 4 * 16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        flat, part = torch.flatten(x, 1), x[:, 3:5]
        joined = torch.cat([functional.relu(x[:, 3:]), functional.relu(x[:, :3])], 1)
        deep = functional.relu(torch.flatten(self.second(joined), 1))
        result: Tensor = self.head(torch.cat([functional.relu(flat), functional.relu(torch.flatten(part, 1)), deep], 1))
        return result


class Twice(nn.Module):
    """One value joined to itself, each half in the units of other neurons."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(12 * 64, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        once = functional.relu(x)
        twice = functional.relu(torch.cat([x, x], 1) + torch.cat([x, -2 * x], 1))
        return self.head(torch.flatten(torch.cat([once, twice], 1), 1))  # type: ignore[no-any-return]


class Flattened(nn.Module):
    """Two activations of one flattened value: every feature has a threshold, every channel one unit."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4 * 64, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.flatten(self.first(x), 1)
        return self.head(functional.relu(x) + functional.relu6(3 * x))  # type: ignore[no-any-return]


@pytest.mark.parametrize("correct", [False, True])
@pytest.mark.parametrize("make", [Views, Twice, Flattened])
def test_units_of_values_read_in_several_ways(make: Callable[[], nn.Module], correct: bool) -> None:
    """Thresholds of each channel differ; whoever reads a value in another unit has it converted."""
    torch.manual_seed(1)
    network, images = make().eval(), gaussian_images(24, 3)
    with torch.no_grad():
        wanted = network(images)
    for fixed_point in (True, False):
        snn = convert(network, images, thresholds="max", time_steps=128, fixed_point=fixed_point, correct=correct)
        found = simulated(snn, images, 128)[0].double().mean(1)
        assert relative(found, wanted) < 0.04, fixed_point
        if not correct:  # which moves biases
            assert relative(reference_logits(snn, images), wanted) < (0.01 if fixed_point else 1e-5)


def test_slices_need_no_further_weights() -> None:
    """A value of which every part is read by neurons of its own is in their units at once: no factor costs binary places."""
    torch.manual_seed(0)

    class Parts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.head = nn.Conv2d(3, 6, 3), nn.Linear(6 * 36, 4)

        def forward(self, x: Tensor) -> Tensor:
            parts = self.first(x).chunk(3, 1)
            joined = torch.cat([functional.relu(parts[1]), functional.relu(parts[0]), functional.relu(parts[2])], 1)
            return self.head(torch.flatten(joined, 1))  # type: ignore[no-any-return]

    images = gaussian_images(20, 1)
    network = Parts().eval()
    snn = convert(network, images, thresholds="max", time_steps=64)
    assert not snn.graph.of_kind("scale")
    with torch.no_grad():
        assert relative(exact_run(snn, images, 64), network(images)) < 0.05


def test_spikes_may_be_the_output() -> None:
    """An activation, or a pool of it, at the end: its counts times the thresholds are the logits."""
    torch.manual_seed(0)
    images = gaussian_images(20, 0)
    first = nn.Conv2d(3, 5, 3)
    for tail in ([], [nn.AdaptiveAvgPool2d(1)], [nn.MaxPool2d(6)]):
        head = tail or [nn.AvgPool2d(6), nn.ReLU()]
        network = nn.Sequential(first, nn.ReLU(), *head, nn.Flatten()).eval()
        snn = convert(network, images, thresholds="max", time_steps=128)
        with torch.no_grad():
            assert relative(exact_run(snn, images, 128), network(images)) < 0.02


def test_an_activation_may_read_the_image() -> None:
    torch.manual_seed(0)
    images = gaussian_images(20, 0)
    network = nn.Sequential(
        nn.AvgPool2d(2), nn.ReLU(), nn.ReLU(), nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)
    )
    snn = convert(network.eval(), images, thresholds="max", time_steps=128)
    with torch.no_grad():
        assert relative(exact_run(snn, images, 128), network(images)) < 0.05


@PROPERTY
@given(st.integers(0, 10**6), st.sampled_from(("qcfs", "qffs", "relu")))
def test_conversion_is_a_function(seed: int, method: str) -> None:
    """The same network and images give the same SNN, and neither changes."""
    network, images = RandomNetwork(seed, method, dyadic=False), gaussian_images(4, seed)
    before, kept = {name: value.clone() for name, value in network.state_dict().items()}, images.clone()
    way = "learned" if method != "relu" else "percentile"
    one, other = (convert(network, images, thresholds=way, time_steps=6) for _ in range(2))
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())
    assert one.facts == other.facts and torch.equal(images, kept)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_trained_networks_keep_their_accuracy() -> None:
    """On digits nobody saw; QFFS, settled, has the very accuracy of its reference."""
    pictures, labels = digits()
    images, truth = pictures[1200:], labels[1200:]
    for kind, steps in (("qcfs", 16), ("qffs", 24)):
        network = trained_on_digits(kind)
        snn = convert(network, pictures[:1], time_steps=steps)
        logits = snn(images, steps).double().sum(1)
        with torch.no_grad():
            ann = float((network(images).argmax(1) == truth).double().mean())
        assert ann > 0.93 and float((logits.argmax(1) == truth).double().mean()) > ann - 0.02
        if kind == "qffs":
            assert torch.equal(logits / 3, reference_logits(snn, images).double()) or torch.equal(
                (logits / 3).float(), reference_logits(snn, images)
            )


# What is refused


def small(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), *layers, nn.Flatten()).eval()


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (small(), "has no activation that can become neurons"),
        (small(QCFS(4), nn.Conv2d(4, 4, 3), LSQ(2)), r"neurons of different kinds \(integrate-and-fire, signed with n = 3\)"),
        (small(LSQ(2), nn.Conv2d(4, 4, 3), LSQ(3)), r"different kinds \(signed with n = 3, signed with n = 7\)"),
        (small(nn.MaxPool2d(2), nn.BatchNorm2d(4), nn.ReLU()), r"the max pool at '1' does not pool activations"),
        (small(nn.ReLU(), nn.BatchNorm2d(4), nn.MaxPool2d(2)), r"the max pool at '3' .* directly before or after it"),
        (nn.Sequential(nn.MaxPool2d(2), small(nn.ReLU())).eval(), r"the max pool at '0' .*follows 'input'"),
        (small(nn.GELU()), "GELU at '1' cannot be converted"),
    ],
)
def test_refuses_networks(network: nn.Module, words: str) -> None:
    with pytest.raises(InputError, match=words):
        convert(network, gaussian_images(2, 0), thresholds="max" if "ReLU" in str(network) else "learned")


@pytest.mark.parametrize("potential", [0.0, 0.25, 0.9])
def test_an_initial_potential_shifts_the_first_spike(potential: float) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(1, 1, bias=False), QCFS(4, 1.0), nn.Linear(1, 1, bias=False)).eval()
    with torch.no_grad():
        network[1].weight.fill_(0.125)
        network[3].weight.fill_(1.0)
    snn = convert(network, torch.ones(1, 1, 1, 1), time_steps=8, initial_potential=potential, image_limit=1.0)
    logits = snn(torch.ones(1, 1, 1, 1), 8).flatten().tolist()
    first = math.ceil((1 - potential) / 0.125)  # the step at which V(0) + t / 8 reaches the threshold
    assert logits == [1.0 if step == first else 0.0 for step in range(1, 9)]


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (torch.zeros(0, 3, 8, 8), r"images=\(0, 3, 8, 8\): give normalised images"),
        (torch.zeros(3, 8, 8), r"a single image is a batch of one, \(1, C, H, W\)"),
        ([1.0], "images=list"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), "images are torch.uint8: normalise them"),
        (torch.full((2, 3, 8, 8), float("nan")), "images hold NaN or infinite values"),
        (torch.full((2, 3, 8, 8), float("inf")), "images hold NaN or infinite values"),
        (torch.zeros(2, 1, 8, 8), r"Conv2d at '0' does not take an input of shape \(\d, 1, 8, 8\)"),
        (torch.ones(2, 12), r"takes inputs of shape \(12,\); convolutions are over images"),
    ],
)
def test_refuses_images(images: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        convert(small(QCFS(4)), images)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"time_steps": 0}, "time_steps=0"),
        ({"neurons": "leaky"}, r"neurons='leaky' is unknown: choose one of auto, integrate-and-fire, signed"),
        ({"neurons": "signed"}, "neurons='signed' with levels=None: signed neurons need levels"),
        ({"levels": 3}, "neurons='auto' with levels=3"),
        ({"neurons": "signed", "levels": 0}, "levels=0"),
        (
            {"neurons": "signed", "levels": 9, "time_steps": 8},
            r"levels=9: signed neurons emit at most 1 spike per time step; give 1 to 8 levels",
        ),
        ({"thresholds": "mean"}, "thresholds='mean' is unknown"),
        ({"thresholds": "percentile", "percentile": 0.999}, r"percentile=0\.999"),
        ({"initial_potential": 1.0}, r"initial_potential=1\.0: give a number from 0 to below 1"),
        ({"initial_potential": 0.2, "correct": True}, "the correction chooses it"),
        ({"initial_potential": 0.2, "neurons": "signed", "levels": 3}, "signed neurons must start at half the threshold"),
        ({"thresholds": "learned"}, "is a ReLU, which has no learned threshold"),
    ],
)
def test_refuses_options(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        convert(small(nn.ReLU()), gaussian_images(4, 0), **{"thresholds": "max", **options})


def test_refuses_networks_that_are_not_ready() -> None:
    network, images = RandomNetwork(0, "qcfs"), gaussian_images(2, 0)
    with pytest.raises(InputError, match=r"in training mode: call \.eval\(\)"):
        convert(network.train(), images)
    with torch.no_grad():
        network.head.weight[0, 0] = float("nan")
    with pytest.raises(InputError, match=r"head\.weight holds NaN"):
        convert(network.eval(), images)


def test_a_layer_that_is_called_twice_has_its_weights_in_two_units() -> None:
    """Units are scaled in place, but not what two nodes share."""
    make = activation("qcfs", levels=4, initial_threshold=1.0)

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shared, self.last = nn.Linear(4, 4), nn.Linear(4, 2)
            self.a, self.b = make(), make()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.last(self.b(self.shared(self.a(self.shared(x)))))
            return result

    ann = Twice().eval()
    with torch.no_grad():
        ann.a.threshold.fill_(2.0)
        ann.b.threshold.fill_(0.5)
    before = ann.shared.weight.detach().clone()
    snn = convert(ann, torch.ones(1, 4), time_steps=4, fixed_point=False)
    first, second = (node.tensors["weight"] for node in snn.graph.of_kind("linear")[:2])
    torch.testing.assert_close(first, before / 2.0)
    torch.testing.assert_close(second, before * 2.0 / 0.5)
    assert torch.equal(ann.shared.weight, before)


@pytest.mark.parametrize("thresholds", ["max", "error"])
def test_the_type_of_the_images_changes_nothing(thresholds: str) -> None:
    """``torch.from_numpy`` often gives float64."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    images = torch.rand(20, 3, 2, 2).half()
    options: dict[str, Any] = {"thresholds": thresholds, "time_steps": 8, "neurons": "signed", "levels": 4}
    single, *others = (convert(network, images.to(one), **options) for one in (torch.float32, torch.float64, torch.float16))
    for other in others:
        assert torch.equal(other(images.float(), 8), single(images.float(), 8))
