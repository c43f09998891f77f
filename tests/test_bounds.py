"""The bounds behind fixed-point weights, tested with worst-case inputs and with more bits than they allow."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from second_simulation import in_float64, places_of, simulated
from spiking_cases import ANALOGUE_BLOCKS, BLOCKS, RandomNetwork, converted, gaussian_images, positive_network
from torch import Tensor, nn

from dynconf_core.activations.lsq import LSQ
from dynconf_core.activations.qcfs import QCFS
from dynconf_core.conversion import places as places_module
from dynconf_core.conversion.convert import convert
from dynconf_core.errors import InputError
from dynconf_core.graph.bounds import in_one_step, summed_over_time
from dynconf_core.graph.graph import WEIGHTED, Node
from dynconf_core.graph.operations import evaluate
from dynconf_core.neurons.signed import Signed
from dynconf_core.simulation.reference import reference_counts

PROPERTY = settings(max_examples=15, deadline=None, derandomize=True)
METHODS = ("qcfs", "qffs", "relu")


def worst_inputs(node: Node, low: Tensor, high: Tensor, source: Node, places: int, output: int) -> Tensor:
    """``(2, *source.shape)``: for every input channel, the extremes that make the output channel largest and smallest."""
    weight = node.tensors["weight"].double()
    step = 2.0**-places
    low, high = torch.ceil(low / step) * step, torch.floor(high / step) * step
    if node.kind == "scale":
        row = (weight if weight.ndim else weight.expand(source.channels)).view(-1, *[1] * (len(source.shape) - 1))
    elif node.kind == "linear":
        row = weight[output]
    else:  # a window whose upper left corner is the image's: the kernel, laid into zeros
        groups = int(node.settings["groups"])
        row = torch.zeros(source.shape, dtype=torch.float64)
        first = output // (len(weight) // groups) * weight.shape[1]
        (rows, columns), (down, right) = weight.shape[2:], node.settings["dilation"]
        above, left = node.settings["padding"]
        for i in range(rows):
            for j in range(columns):
                y, x = i * down - above, j * right - left
                y, x = y + above // node.settings["stride"][0] * node.settings["stride"][0], x
                if 0 <= y < source.shape[1] and 0 <= x < source.shape[2]:
                    row[first : first + weight.shape[1], y, x] = weight[output, :, i, j]
    shape = (-1, *[1] * (len(source.shape) - 1))
    high, low = high.view(shape).expand(source.shape), low.view(shape).expand(source.shape)
    row = row.expand(source.shape)
    return torch.stack([torch.where(row > 0, high, low), torch.where(row > 0, low, high)])


@PROPERTY
@given(st.integers(0, 10**6), st.sampled_from(METHODS), st.integers(1, 2))
def test_every_layer_is_exact_for_its_worst_inputs(seed: int, method: str, bits: int) -> None:
    """For the inputs that make its sums largest, each layer gives the same as in float64, within its bound."""
    images = gaussian_images(2, seed)
    network = RandomNetwork(seed, method, bits, dyadic=False, blocks=BLOCKS + ANALOGUE_BLOCKS)
    try:
        snn = converted(network, images, time_steps=12)
    except InputError:
        return
    assert snn.image_limit is not None
    places, ranges = places_of(snn.graph), in_one_step(snn.graph, snn.image_limit, snn.neurons)
    for node in snn.graph.of_kind(*WEIGHTED):
        source = snn.graph.by_name[node.inputs[0]]
        outputs = {0, node.channels - 1, node.channels // 2}
        x = torch.cat(
            [
                worst_inputs(node, ranges[source.name].low, ranges[source.name].high, source, places[source.name], k)
                for k in outputs
            ]
        )
        exact = {key: value.double() for key, value in snn.tensors()[node.name].items()}
        expected, found = evaluate(node, [x], exact), evaluate(node, [x.float()], snn.tensors()[node.name])
        assert torch.equal(found.double(), expected), node.name
        limits = ranges[node.name]
        flat = expected.transpose(0, 1).flatten(1)
        assert bool((flat.amax(1) <= limits.high + 1e-9).all()) and bool((flat.amin(1) >= limits.low - 1e-9).all()), node.name
        assert limits.largest() * 2.0 ** places[node.name] <= 2 ** (53 if node.wide else 24)


@pytest.mark.parametrize("method", ["qcfs", "qffs"])
@pytest.mark.parametrize("time_steps", [5, 300])
def test_sums_over_time_reach_their_bounds_exactly(method: str, time_steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Membrane potentials of a network that fires all the time at the largest image are exact up to the last step, and so
    close to the bound that they are not with a few more bits."""
    network = positive_network(method)
    images = torch.full((1, 6), 1.0)
    snn = convert(network, images, time_steps=time_steps, image_limit=1.0)
    logits, _, state = simulated(snn, images, time_steps)
    expected, largest = in_float64(snn, images, time_steps)
    assert torch.equal(logits.double(), expected)
    places = places_of(snn.graph)
    for node in snn.graph.of_kind("neurons"):
        reached = float(largest[f"{node.name} charged"]) * 2.0 ** places[node.inputs[0]]
        assert reached <= 2**24
        if method == "qcfs":
            assert reached > 2**24 / 8, "the bound is not much larger than need be"
    assert all(bool(torch.isfinite(tensor).all()) for layer in state.values() for tensor in layer)

    monkeypatch.setattr(places_module, "MANTISSA", 32)
    finer = convert(network, images, time_steps=time_steps, image_limit=1.0, weight_bits=20)
    assert not torch.equal(simulated(finer, images, time_steps)[0].double(), in_float64(finer, images, time_steps)[0])


def test_negative_currents_are_bounded_too() -> None:
    """All weights negative: membrane potentials keep falling, and nothing fires."""
    network = positive_network("qcfs")
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(-1 if parameter.ndim else 1)
    images = torch.ones(1, 6)
    snn = convert(network, images, time_steps=200, image_limit=1.0)
    logits, _, state = simulated(snn, images, 200)
    expected, largest = in_float64(snn, images, 200)
    assert torch.equal(logits.double(), expected) and float(state["1"].potential.min()) < -100
    assert float(largest["1 charged"]) * 2.0 ** places_of(snn.graph)["0.round"] <= 2**24


@pytest.mark.parametrize("levels", [3, 7, 15])
def test_the_reference_is_exact_where_its_sums_are_n_times_as_large(levels: int) -> None:
    """Its last layer receives counts up to n at once, the SNN's only single spikes: the bits must hold those sums too."""
    generator = torch.Generator().manual_seed(1)
    bits = levels.bit_length()
    network = nn.Sequential(nn.Linear(2, 4096), LSQ(bits), nn.Linear(4096, 3)).eval()
    with torch.no_grad():
        network[0].weight.fill_(1.0)  # type: ignore[operator, union-attr]
        network[0].bias.zero_()  # type: ignore[operator, union-attr]
        network[2].weight.copy_(0.5 + 0.5 * torch.rand(3, 4096, generator=generator))  # type: ignore[operator, union-attr]
        network[1].step.fill_(0.1)  # type: ignore[operator, union-attr]
    images = torch.ones(1, 2)
    snn = convert(network, images, time_steps=levels + 3)
    counts = reference_counts(snn, images)
    own = {key: value.double() for key, value in snn.tensors()["2"].items()}
    expected = levels * (own["weight"].sum(1) + own["bias"])
    assert torch.equal(counts[0].double(), expected)
    assert torch.equal(simulated(snn, images, levels + 3)[0].double().sum(1)[0], expected)


def test_bounds_by_hand() -> None:
    """One step: positive weights times high, negative ones times low, plus the bias where it widens the range; over time:
    times the steps."""
    network = nn.Sequential(nn.Linear(2, 1), QCFS(4, 1.0), nn.Linear(1, 1))
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([[0.5, -2.0]]))  # type: ignore[operator, union-attr]
        network[0].bias.fill_(-0.25)  # type: ignore[operator, union-attr]
        network[2].weight.fill_(-3.0)  # type: ignore[operator, union-attr]
        network[2].bias.fill_(0.5)  # type: ignore[operator, union-attr]
    snn = convert(network.eval(), torch.ones(1, 2), fixed_point=False)
    one = in_one_step(snn.graph, 2.0, snn.neurons)
    assert (one["0"].low.item(), one["0"].high.item()) == (-5.25, 5.0)
    assert (one["1"].low.item(), one["1"].high.item()) == (0.0, 1.0)
    assert (one["2"].low.item(), one["2"].high.item()) == (-3.0, 0.5)
    total = summed_over_time(snn.graph, 2.0, snn.neurons, 10)
    assert (total["0"].low.item(), total["0"].high.item()) == (-52.5, 50.0)
    assert (total["2"].low.item(), total["2"].high.item()) == (-30.0, 5.0)
    gated = summed_over_time(snn.graph, 2.0, Signed(3), 10)
    assert (gated["0"].low.item(), gated["0"].high.item()) == (-15.75, 15.0)


def test_bounds_of_groups_by_hand() -> None:
    """Every group of a convolution reads its own channels, whose ranges differ."""
    scale = nn.BatchNorm2d(4, eps=0.0)

    def clip() -> nn.Module:
        return nn.Hardtanh(0.0, 1.0)

    network = nn.Sequential(clip(), scale, nn.Conv2d(4, 2, 1, groups=2, bias=False), clip(), nn.Flatten(), nn.Linear(2, 1))
    with torch.no_grad():
        scale.weight.copy_(torch.tensor([1.0, -2.0, 4.0, 8.0]))
        network[2].weight.copy_(torch.tensor([[1.0, 1.0], [-1.0, 0.5]]).view(2, 2, 1, 1))  # type: ignore[operator, union-attr]
    snn = convert(network.eval(), torch.ones(1, 4, 1, 1), fixed_point=False)
    one = in_one_step(snn.graph, 1.0, snn.neurons)
    assert one["1"].low.tolist() == [0, -2, 0, 0] and one["1"].high.tolist() == [1, 0, 4, 8]
    assert one["2"].low.tolist() == [-2, -4] and one["2"].high.tolist() == [1, 4]


def test_rounding_is_part_of_the_bounds() -> None:
    """An input current that is rounded up in every step sums to more than its bound before rounding."""
    snn = convert(positive_network("qcfs"), torch.ones(1, 6), time_steps=8)
    graph = snn.graph
    rounded = graph.by_name["0.round"]
    total = summed_over_time(graph, 1.5, snn.neurons, 8)
    half = 8 * 2.0 ** -(rounded.settings["bits"] + 1)
    torch.testing.assert_close(total["0.round"].high, total["0"].high + half, rtol=0, atol=0)
