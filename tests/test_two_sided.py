"""Activations with two sides: both sides are populations of neurons, and settle at the quantised activation exactly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from graph_checks import disturbed, same
from network_forms import Applied, settles_exactly
from second_simulation import simulated
from spiking_cases import gaussian_images
from torch import Tensor, nn
from torch.nn import functional

from dynconf_core.activations.qcfs import QCFS
from dynconf_core.activations.quantisation import Quantisation
from dynconf_core.conversion.convert import convert
from dynconf_core.conversion.report import conversion_report
from dynconf_core.errors import InputError
from dynconf_core.graph.operations import run
from dynconf_core.graph.sides import one_sided
from dynconf_core.graph.trace import activations_first, folded, traced
from dynconf_core.simulation.counts import Counter, fan_out

TIME_STEPS = 60


def layer(inputs: int = 3, outputs: int = 8, size: int = 3, **settings: Any) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, padding=size // 2, **settings)


def head(features: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(features, 5))


def slopes(*values: float) -> nn.PReLU:
    module = nn.PReLU(len(values))
    with torch.no_grad():
        module.weight.copy_(torch.tensor(values))
    return module


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "LeakyReLU": lambda: nn.Sequential(
        layer(), nn.BatchNorm2d(8), nn.LeakyReLU(0.1, inplace=True), nn.MaxPool2d(2), layer(8, 6), nn.LeakyReLU(0.3), head(96)
    ),
    "PReLU": lambda: nn.Sequential(layer(3, 4), nn.PReLU(), layer(4, 4), slopes(0.1, 0.2, 0.3, 0.9), nn.AvgPool2d(2), head(64)),
    "features": lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 4), slopes(0.5, 0.0, 0.25, 1.0), nn.Linear(4, 5)),
    "RReLU": lambda: nn.Sequential(layer(), nn.RReLU(), nn.MaxPool2d(3, 2, 1), head(128)),
    "slopes below 0": lambda: nn.Sequential(layer(3, 2), slopes(-0.5, 0.5), nn.AvgPool2d(2), head(32)),
    "an absolute value": lambda: Applied(lambda m, x: m[1](m[0](x).abs()), layer(3, 2), head(128)),
    "clips": lambda: nn.Sequential(layer(), nn.Hardtanh(), layer(8, 4), nn.Hardtanh(-0.25, 1.5), head(256)),
    "a clip by method": lambda: Applied(lambda m, x: m[1](m[0](x).clamp(-1, 2)), layer(), head(512)),
    "Hardsigmoid": lambda: nn.Sequential(layer(), nn.Hardsigmoid(), head(512)),
    "depthwise": lambda: nn.Sequential(
        layer(3, 6), nn.LeakyReLU(), layer(6, 6, groups=6), nn.LeakyReLU(), layer(6, 8, groups=2), nn.LeakyReLU(), head(512)
    ),
    "a shortcut": lambda: Applied(
        lambda m, x: (lambda y: m[3](m[4](m[2](m[4](m[1](y))) + y)))(m[4](m[0](x))),
        *(layer(), layer(8, 8), layer(8, 8), head(512), nn.LeakyReLU(0.2)),
    ),
    "a concatenation": lambda: Applied(
        lambda m, x: m[4](m[3](torch.cat([m[0](x).relu(), functional.leaky_relu(m[1](x), 0.3), m[2](m[1](x))], 1)).relu()),
        *(layer(3, 2), layer(3, 3), slopes(0.1, 0.2, 0.3), layer(8, 2), head(128)),
    ),
    "moved and cut": lambda: Applied(
        lambda m, x: m[3](m[2](functional.pixel_unshuffle(m[1](m[0](x)).flip(3), 2)[:, 4:, 1:]).relu()),
        *(layer(3, 4), slopes(0.1, 0.2, 0.3, 0.4), layer(12, 2), head(24)),
    ),
    "channels mixed": lambda: Applied(
        lambda m, x: m[3](m[2](functional.pixel_shuffle(m[1](m[0](x)), 2)).relu()),
        *(layer(3, 4), slopes(0.1, 0.2, 0.3, 0.4), layer(1, 2), head(512)),
    ),
    "a normalisation behind": lambda: nn.Sequential(
        layer(), nn.LeakyReLU(0.2), nn.BatchNorm2d(8), layer(8, 2), nn.ReLU(), head(128)
    ),
    "parts of one current": lambda: Applied(
        lambda m, x: (lambda y: m[1](torch.cat([m[2](y[:, :4]), y[:, 4:].relu()], 1)))(m[0](x)),
        layer(),
        head(512),
        nn.LeakyReLU(0.5),
    ),
    "at the end": lambda: nn.Sequential(layer(), nn.ReLU(), head(512), nn.LeakyReLU(0.1)),
    "one after the other": lambda: nn.Sequential(layer(3, 2), nn.LeakyReLU(0.5), nn.LeakyReLU(0.5), head(128)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_network(name: str, tmp_path: Path) -> None:
    """The graph is the network, with two sides and with one; the SNN settles at its reference to the bit, and is near the
    network."""
    torch.manual_seed(0)
    network, images = disturbed(NETWORKS[name]()), gaussian_images(8, 1)
    graph = one_sided(same(network, images.double()))
    with torch.no_grad():
        torch.testing.assert_close(run(graph, images.double()), network.double()(images.double()), rtol=0, atol=1e-12)
        wanted = network.float()(images)
    snn = settles_exactly(network, images, TIME_STEPS, tmp_path, levels=31)
    found = snn(images, TIME_STEPS).sum(1) / 31
    assert float((found - wanted).norm() / wanted.norm()) < 0.06
    assert not any("slope" in node.tensors for node in graph.nodes)


def quantised(x: Tensor, threshold: Tensor, levels: int) -> Tensor:
    return torch.floor(x / threshold * levels + 0.5).clamp(0, levels) / levels * threshold


class TwoSided(nn.Module):
    """A quantised LeakyReLU of somebody's own, with thresholds and slopes in any shape."""

    def __init__(self, levels: int, threshold: Tensor, slope: Tensor) -> None:
        super().__init__()
        self.levels, self.threshold, self.slope = levels, nn.Parameter(threshold), nn.Parameter(slope)

    def forward(self, x: Tensor) -> Tensor:
        return quantised(x, self.threshold, self.levels) - self.slope * quantised(-x, self.threshold, self.levels)

    def quantisation(self) -> Quantisation:
        return Quantisation(self.levels, self.threshold, "signed", self.slope)


@pytest.mark.parametrize("seed", range(6))
def test_every_unit_settles_at_the_quantised_activation(seed: int) -> None:
    """On numbers that are exact in binary, n times what the module itself computes, for every unit of every layer and the
    logits; levels below 0 come from the second population."""
    generator = torch.Generator().manual_seed(seed)

    def whole(*shape: int) -> Tensor:
        return torch.randint(-3, 4, shape, generator=generator).float()

    first = TwoSided(4, torch.tensor([1.0]), torch.tensor([[[[0.5]], [[0.25]], [[1.0]], [[0.5]]]]))
    second = TwoSided(4, torch.tensor([1.0, 2.0]).view(1, 2, 1, 1), torch.full((2, 1, 1), 0.25))
    network = nn.Sequential(layer(3, 4), first, nn.MaxPool2d(2), layer(4, 2), second, head(32)).eval()
    with torch.no_grad():
        for place, scale in ((0, 0.25), (3, 0.125)):
            network[place].weight.copy_(scale * whole(*network[place].weight.shape))
            network[place].bias.copy_(0.25 * whole(*network[place].bias.shape))
        network[5][1].weight.copy_(whole(5, 32) / 16)
        network[5][1].bias.copy_(whole(5) / 4)
    images = torch.randint(-8, 9, (4, 3, 8, 8), generator=generator) / 8
    snn = convert(network, images, time_steps=TIME_STEPS, fixed_point=False)
    logits, spikes, _ = simulated(snn, images, TIME_STEPS)
    assert all(not bool(sent[:, -1].any()) for sent in spikes.values()), "the network has not settled"
    counts = {name: sent.sum(1) for name, sent in spikes.items()}
    seen: dict[str, Tensor] = {}
    hooks = [network[i].register_forward_hook(lambda m, x, y, i=i: seen.__setitem__(str(i), y.double())) for i in (1, 4)]  # type: ignore[misc]
    with torch.no_grad():
        assert torch.equal(logits.double().sum(1), 4 * network.double()(images.double()))
    for hook in hooks:
        hook.remove()
    for name, module in (("1", first), ("4", second)):
        theta, slope = module.threshold.detach().double(), module.slope.detach().double()
        value = (counts[name] - slope * counts[f"{name}.negative"]) * theta.view(-1, 1, 1) / 4
        assert torch.equal(value, seen[name])
        assert float(seen[name].min()) < 0 < float(seen[name].max())
        assert not bool((counts[name] * counts[f"{name}.negative"]).any()), "never both sides at once"


def test_rates_of_integrate_and_fire_neurons_approach_it() -> None:
    torch.manual_seed(0)
    network, images = nn.Sequential(layer(), nn.LeakyReLU(0.3), nn.MaxPool2d(2), head(128)).eval(), gaussian_images(4, 0)
    snn = convert(network, images, thresholds="max", time_steps=256)
    with torch.no_grad():
        wanted = network(images)
    means = snn(images, 256).double().cumsum(1) / torch.arange(1, 257)[:, None]
    errors = [float((means[:, steps - 1] - wanted).norm() / wanted.norm()) for steps in (8, 64, 256)]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 0.02


def test_only_spikes_meet_weights() -> None:
    """No multiply-accumulates in later steps; the cost of both populations by hand: 8 units, each read by 5 weights."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.LeakyReLU(0.5), nn.Linear(4, 5)).eval()
    snn = convert(network, gaussian_images(4, 0, 2), thresholds="max", time_steps=8)
    assert {name: met.tolist() for name, met in fan_out(snn.graph).items()} == {"2": [5] * 4, "2.negative": [5] * 4}
    counter = Counter(snn)
    snn.step(snn.input_current(gaussian_images(2, 1, 2)), None, 1, counter)
    spikes, operations = counter.totals(counter.taken())
    assert operations.tolist() == (5 * spikes).tolist()


def test_the_report_has_both_populations() -> None:
    torch.manual_seed(0)
    network, images = nn.Sequential(layer(), nn.LeakyReLU(0.3), head(512)).eval(), gaussian_images(8, 0)
    snn = convert(network, images, thresholds="error", time_steps=32, neurons="signed", levels=15, correct=True)
    report = conversion_report(snn, network, images, 32)
    assert [layer.name for layer in report.layers] == ["1", "1.negative"]
    assert all(layer.error[-1] < 0.1 for layer in report.layers)


def test_a_max_pool_of_what_falls_is_refused() -> None:
    network = nn.Sequential(layer(3, 2), slopes(0.5, -0.5), nn.MaxPool2d(2), head(32)).eval()
    with pytest.raises(InputError, match="the max pool at '2' follows an activation with a negative slope"):
        convert(network, gaussian_images(4, 0), thresholds="max")


def test_a_max_pool_of_means_is_refused() -> None:
    """The largest mean need not have the largest positive side; a max pool of max pools is fine."""
    pools = [nn.AvgPool2d(2), nn.MaxPool2d(2)]
    with pytest.raises(InputError, match="the max pool at '3' pools means of an activation with two sides"):
        convert(nn.Sequential(layer(3, 2), nn.LeakyReLU(), *pools, head(8)).eval(), gaussian_images(4, 0), thresholds="max")
    convert(nn.Sequential(layer(3, 2), nn.LeakyReLU(), *pools[::-1], head(8)).eval(), gaussian_images(4, 0), thresholds="max")


def test_activations_go_before_pools_where_they_rise() -> None:
    rising = nn.Sequential(layer(3, 2), nn.MaxPool2d(2), slopes(0.5, 0.1), head(32)).eval()
    graph = activations_first(folded(traced(rising, gaussian_images(1, 0))))
    assert [node.kind for node in graph.nodes][2:4] == ["activation", "max_pool"]
    falling = nn.Sequential(layer(3, 2), nn.MaxPool2d(2), slopes(0.5, -0.1), head(32)).eval()
    with pytest.raises(InputError, match="does not pool activations"):
        convert(falling, gaussian_images(4, 0), thresholds="max")


# Thresholds of somebody's own


@pytest.mark.parametrize("shape", [(), (1,), (4,), (4, 1, 1), (1, 4, 1, 1)], ids=str)
def test_a_threshold_in_any_shape(shape: tuple[int, ...]) -> None:
    """The graph of the scalar, or of one for each channel."""

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.threshold = nn.Parameter(0.5 + torch.rand(shape, generator=torch.Generator().manual_seed(0)))

        def forward(self, x: Tensor) -> Tensor:
            return quantised(x, self.threshold.view(1, -1, 1, 1), 3)

        def quantisation(self) -> Quantisation:
            return Quantisation(3, self.threshold, "integrate-and-fire")

    torch.manual_seed(0)
    network = nn.Sequential(layer(3, 4), Own(), nn.Flatten()).eval()
    (node,) = same(network).of_kind("activation")
    assert node.tensors["threshold"].shape == (() if len(shape) == 0 or shape == (1,) else (4,))
    snn = convert(network, gaussian_images(2, 0), time_steps=8)
    assert next(iter(snn.layers().values())).tensors["threshold"].shape == node.tensors["threshold"].shape


def test_a_threshold_of_one_number_in_a_vector() -> None:
    scalar, vector = (nn.Sequential(layer(3, 4), QCFS(4, 2.0), nn.Flatten()).eval() for _ in range(2))
    vector[1].threshold = nn.Parameter(torch.tensor([2.0]))
    vector[0].load_state_dict(scalar[0].state_dict())
    one, other = (traced(network, gaussian_images(1, 0)) for network in (scalar, vector))
    for node, twin in zip(one.nodes, other.nodes, strict=True):
        assert (node.kind, node.settings) == (twin.kind, twin.settings)
        assert all(torch.equal(value, twin.tensors[key]) for key, value in node.tensors.items())


@pytest.mark.parametrize("shape", [(3,), (8, 8), (1, 1, 8, 8), (4, 8), (1, 1, 1, 4)], ids=str)
def test_a_threshold_that_is_none_of_the_channels(shape: tuple[int, ...]) -> None:
    class Own(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.relu()

        def quantisation(self) -> Quantisation:
            return Quantisation(3, torch.ones(shape), "signed")

    with pytest.raises(InputError, match="one number, or one for each of the 4 channels"):
        traced(nn.Sequential(layer(3, 4), Own(), nn.Flatten()).eval(), gaussian_images(1, 0))


@pytest.mark.parametrize("levels", [0, -1, 2.5, True])
def test_levels_that_are_none(levels: Any) -> None:
    class Own(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.relu()

        def quantisation(self) -> Quantisation:
            return Quantisation(levels, torch.ones(()), "signed")

    with pytest.raises(InputError, match="give a whole number above 0"):
        traced(nn.Sequential(layer(3, 4), Own(), nn.Flatten()).eval(), gaussian_images(1, 0))


class Floor(torch.autograd.Function):
    """A floor that lets gradients through."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.floor()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


class IF(nn.Module):
    """An activation as the QCFS authors' code has it: ``thresh`` of shape (1,), ``L`` levels, and its own spiking mode."""

    def __init__(self, L: int, thresh: float) -> None:
        super().__init__()
        self.L, self.T, self.thresh = L, 0, nn.Parameter(torch.tensor([thresh]))

    def forward(self, x: Tensor) -> Tensor:
        assert self.T == 0
        shares: Tensor = Floor.apply(torch.clamp(x / self.thresh, 0, 1) * self.L + 0.5) / self.L
        return shares * self.thresh


def test_the_activation_of_the_authors_of_qcfs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The three lines of the documentation: the network converts like one with QCFS of this project."""
    monkeypatch.setattr(
        IF, "quantisation", lambda self: Quantisation(self.L, self.thresh.detach(), "integrate-and-fire"), raising=False
    )
    torch.manual_seed(0)
    theirs = nn.Sequential(layer(), IF(4, 1.5), layer(8, 4), IF(4, 0.5), head(256)).eval()
    ours = nn.Sequential(layer(), QCFS(4, 1.5), layer(8, 4), QCFS(4, 0.5), head(256)).eval()
    ours.load_state_dict(
        {
            name.replace("thresh", "threshold"): value.reshape(()) if "thresh" in name else value
            for name, value in theirs.state_dict().items()
        }
    )
    one, other = (convert(network, gaussian_images(4, 0), time_steps=16) for network in (theirs, ours))
    assert torch.equal(one(gaussian_images(4, 0), 16), other(gaussian_images(4, 0), 16))
