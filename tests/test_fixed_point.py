"""Fixed-point weights: that they are, that float32 then computes to the bit what float64 does, and that the bounds are proven.

Every claim is also tried on what should break it: worst-case spikes and images, more places than the bounds allow.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from second_simulation import in_float64, places_of, simulated
from spiking_cases import ANALOGUE_BLOCKS, BLOCKS, RandomNetwork, converted, gaussian_images, positive_network
from torch import Tensor, nn

from dynconf_core.activations.qcfs import QCFS
from dynconf_core.conversion.convert import convert
from dynconf_core.conversion.places import IMAGE_BITS
from dynconf_core.errors import InputError
from dynconf_core.graph.graph import WEIGHTED
from dynconf_core.simulation.network import SpikingNetwork

PROPERTY = settings(max_examples=15, deadline=None, derandomize=True)
METHODS = ("qcfs", "qffs", "relu")


def random_snn(seed: int, method: str, time_steps: int, **options: Any) -> tuple[SpikingNetwork, Tensor]:
    images = gaussian_images(4, seed)
    network = RandomNetwork(seed, method, dyadic=False, blocks=BLOCKS)
    return converted(network, images, time_steps=time_steps, **options), images


def whole(values: Tensor, places: int) -> bool:
    scaled = values.double() * 2.0**places
    return torch.equal(scaled, scaled.round())


# The places


@pytest.mark.parametrize("weight_bits", [8, 13])
@pytest.mark.parametrize("method", METHODS)
def test_weights_are_in_fixed_point(method: str, weight_bits: int) -> None:
    """Multiples of 2^-k, of so many bits; biases and V(0) multiples of what their sums are multiples of."""
    for seed in range(6):
        snn, _ = random_snn(seed, method, 8, weight_bits=weight_bits)
        places = places_of(snn.graph)
        for node in snn.graph.nodes:
            own = snn.tensors()[node.name]
            if node.kind in WEIGHTED:
                assert whole(own["weight"], node.settings["bits"]), node.name
                assert "bias" not in own or whole(own["bias"], places[node.name])
                for row in own["weight"].reshape(len(own["weight"]) if own["weight"].ndim else 1, -1):
                    finest = next(bits for bits in range(-30, 60) if whole(row, bits))
                    assert float(row.abs().max()) * 2.0**finest < 2 ** (weight_bits - 1)
            elif node.kind == "neurons":
                assert whole(own["initial"], max(1, places[node.inputs[0]]))
            for key, value in own.items():
                if key != "threshold":
                    assert torch.equal(value.double(), node.tensors[key].double()), "float32 holds it"


@pytest.mark.parametrize("weight_bits", [3, 8, 13, 15])
def test_rounding_up_does_not_need_another_bit(weight_bits: int) -> None:
    """A weight just below a power of two must not become that many units, which a byte, or two, would not hold."""
    network = nn.Sequential(nn.Linear(2, 2), QCFS(4, 1.0), nn.Linear(2, 3))
    with torch.no_grad():
        network[2].weight.copy_(torch.tensor([[0.9999999, 1 / 3], [-0.49999999, 0.1], [0.99, -0.998]]))  # type: ignore[operator, union-attr]
    snn = convert(network.eval(), torch.ones(1, 2), time_steps=4, weight_bits=weight_bits)
    weight = snn.tensors()["2"]["weight"].double()
    for row in weight:
        finest = next(bits for bits in range(-30, 60) if whole(row, bits))
        assert float(row.abs().max()) * 2.0**finest <= 2 ** (weight_bits - 1) - 1
    error = (weight - network[2].weight.detach().double()).abs().max()  # type: ignore[operator, union-attr]
    assert float(error) <= 2.0 ** -(weight_bits - 1)


def test_images_and_first_currents_are_rounded() -> None:
    snn, images = random_snn(3, "qcfs", 8)
    input_current = snn.input_current(images)
    places = places_of(snn.graph)
    assert all(whole(value, places[name]) for name, value in input_current.values.items())
    assert places["input.round"] == IMAGE_BITS


def test_without_fixed_point_weights_stay() -> None:
    images = gaussian_images(2, 0)
    network = RandomNetwork(1, "qcfs", dyadic=False)
    snn = convert(network, images, fixed_point=False)
    assert not snn.exact and not snn.graph.of_kind("round") and snn.time_steps_limit is None
    assert converted(network, images).exact
    plain, rounded = (s.tensors()["head"]["weight"] for s in (snn, converted(network, images)))
    assert not torch.equal(plain, rounded)
    torch.testing.assert_close(plain, rounded, rtol=0, atol=2e-3)


# Exactness


@PROPERTY
@given(st.integers(0, 10**6), st.sampled_from(METHODS))
def test_float32_computes_what_float64_does(seed: int, method: str) -> None:
    """To the bit, in every step, with blocks in which analogue values meet weights too; and no value exceeds its bound."""
    images = gaussian_images(3, seed)
    network = RandomNetwork(seed, method, dyadic=False, blocks=BLOCKS + ANALOGUE_BLOCKS)
    try:
        snn = converted(network, images, time_steps=10)
    except InputError as error:
        assert "fixed_point=False" in str(error)
        return
    logits, _, _ = simulated(snn, images, 10)
    expected, largest = in_float64(snn, images, 10)
    assert torch.equal(logits.double(), expected)
    places = places_of(snn.graph)
    for node in snn.graph.nodes:
        limit = 2 ** (53 if node.wide else 24)
        if node.kind != "input":
            assert float(largest[node.name]) * 2.0 ** places[node.name] <= limit, node.name
        if node.kind == "neurons":
            assert float(largest[f"{node.name} charged"]) * 2.0 ** max(1, places[node.inputs[0]]) <= limit


@PROPERTY
@given(st.integers(0, 10**6), st.sampled_from(METHODS))
def test_the_same_bits_however_it_is_run(seed: int, method: str) -> None:
    """For any batch size and composition, memory layout and number of threads."""
    snn, images = random_snn(seed, method, 6)
    images = torch.cat([images, gaussian_images(3, seed + 1).clamp(-3, 3) / 3])
    logits, spikes, _ = simulated(snn, images, 6)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(seed))
    shuffled, _, _ = simulated(snn, images[order], 6)
    assert torch.equal(shuffled, logits[order])
    for start, end in ((0, 1), (1, 3), (3, 7)):
        part, fired, _ = simulated(snn, images[start:end], 6)
        assert torch.equal(part, logits[start:end])
        assert all(torch.equal(fired[name], spikes[name][start:end]) for name in spikes)
    layout, _, _ = simulated(snn, images.contiguous(memory_format=torch.channels_last), 6)
    assert torch.equal(layout, logits)
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert torch.equal(simulated(snn, images, 6)[0], logits)
    finally:
        torch.set_num_threads(threads)


def test_without_fixed_point_bits_depend_on_how_it_is_run() -> None:
    """The tests above have teeth: the plain form is not exact."""
    found = 0
    for seed in range(8):
        snn, images = random_snn(seed, "qcfs", 6, fixed_point=False)
        found += not torch.equal(simulated(snn, images, 6)[0].double(), in_float64(snn, images, 6)[0])
    assert found > 0


# What is refused


def test_limits_are_kept() -> None:
    snn, images = random_snn(0, "qcfs", 8)
    limit = snn.image_limit
    assert limit is not None and limit == pytest.approx(1.5 * float(images.abs().max()))
    with pytest.raises(
        InputError, match=r"time_steps=9: the fixed-point weights are proven exact for up to 8.*fixed_point=False"
    ):
        snn(images, 9)
    with pytest.raises(InputError, match=r"the images reach .* fixed-point weights are proven exact up to .*image_limit"):
        snn(images / images.abs().max() * limit * 1.001, 8)
    snn(images / images.abs().max() * limit * 0.999, 8)
    with pytest.raises(InputError, match="the images hold NaN"):
        snn(images.index_fill(0, torch.tensor([1]), math.nan), 8)
    with pytest.raises(InputError, match="time_steps=0: an SNN needs at least one"):
        snn(images, 0)
    with pytest.raises(InputError, match=r"images have the shape \(3, 9, 8\), but the network was converted for \(3, 8, 8\)"):
        snn(torch.zeros(1, 3, 9, 8), 8)


def test_too_many_steps_are_refused_at_conversion() -> None:
    """The layer is named, and the plain form as the remedy; which works. What float64 holds is not refused."""
    network, images = positive_network("qcfs"), torch.ones(2, 6)
    large = positive_network("qcfs")
    with torch.no_grad():
        large[2].weight *= 2.0**20
    with pytest.raises(
        InputError, match=r"(0|2): not even float64 can hold its sums exactly .* fixed_point=False \(--no-fixed-point\)"
    ):
        convert(large, images, time_steps=2**30)
    for options in ({"time_steps": 2**17}, {"image_limit": 2.0**15, "time_steps": 64}):
        snn, largest = convert(network, images, **options), images * options.get("image_limit", 1.0)  # type: ignore[arg-type]
        assert any(node.wide for node in snn.graph.nodes)
        assert torch.equal(simulated(snn, largest, 64)[0].double(), in_float64(snn, largest, 64)[0])
    snn = convert(large, images, time_steps=2**30, fixed_point=False)
    assert not snn.exact and snn(images, 3).shape == (2, 3, 4)


def test_wishes_are_checked() -> None:
    network, images = positive_network("qcfs"), torch.ones(2, 6)
    for options, words in (
        ({"weight_bits": 2}, "weight_bits=2"),
        ({"weight_bits": 21}, "weight_bits=21"),
        ({"image_limit": 0.0}, "image_limit=0.0"),
        ({"image_limit": math.inf}, "image_limit=inf"),
    ):
        with pytest.raises(InputError, match=words):
            convert(network, images, **options)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="all images are 0"):
        convert(network, torch.zeros(2, 6))
    assert convert(network, torch.zeros(2, 6), image_limit=1.0).image_limit == 1.0


def test_analogue_values_that_meet_weights_again_and_again() -> None:
    """Each product needs places of its own: two layers without an activation between have enough in float32, four in float64,
    eight have not."""
    torch.manual_seed(0)
    images = torch.randn(4, 4)
    for layers, held in ((2, True), (4, True), (8, False)):
        between = [nn.Linear(6, 6) for _ in range(layers)]
        network = nn.Sequential(nn.Linear(4, 6), QCFS(4, 1.0), *between, QCFS(4, 1.0), nn.Linear(6, 3)).eval()
        if held:
            snn = convert(network, images, time_steps=8)
            assert any(node.wide for node in snn.graph.nodes) == (layers > 2)
            assert torch.equal(simulated(snn, images, 8)[0].double(), in_float64(snn, images, 8)[0])
        else:
            with pytest.raises(InputError, match=r"[2-9]: not even float64 can hold its sums exactly .* fixed_point=False"):
                convert(network, images, time_steps=8)
            assert convert(network, images, time_steps=8, fixed_point=False)(images, 8).shape == (4, 8, 3)
