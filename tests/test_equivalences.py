"""What an SNN and its ANN have in common, as properties of random networks, and the same neurons in another simulator."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from second_simulation import plain_simulation, simulated
from spiking_cases import ANALOGUE_BLOCKS, BLOCKS, CLASSES, RandomNetwork, dyadic_images, gaussian_images
from torch import Tensor, nn
from trained_digits import digits, trained_on_digits

from dynconf_core.activations.qcfs import QCFS
from dynconf_core.conversion.convert import convert
from dynconf_core.graph.operations import run
from dynconf_core.graph.trace import activations_first, folded, traced
from dynconf_core.neurons.model import State
from dynconf_core.neurons.signed import Signed
from dynconf_core.simulation.network import SpikingNetwork
from dynconf_core.simulation.reference import reference_counts, reference_levels, reference_logits

PROPERTY = settings(max_examples=25, deadline=None, derandomize=True)
LONG = 60
"""Steps in which every network here settles."""


# The SNN is what its equations say


@PROPERTY
@given(st.integers(0, 10**6), st.sampled_from(("qcfs", "qffs")), st.integers(1, 2), st.integers(1, 14))
def test_the_converted_network_is_the_network_with_neurons(seed: int, method: str, bits: int, time_steps: int) -> None:
    """Logits of every step and every spike of every layer, to the bit, against the module itself with its activations
    replaced by neurons in the ANN's units, run in float64: residuals, concatenations, max pools, strided pools and all."""
    blocks = BLOCKS if method == "qffs" and bits == 2 else BLOCKS + ANALOGUE_BLOCKS
    network, images = RandomNetwork(seed, method, bits, blocks=blocks), dyadic_images(2, seed + 1)
    snn = convert(network, images, time_steps=time_steps, fixed_point=False)
    logits, spikes, _ = simulated(snn, images, time_steps)
    expected, neurons = plain_simulation(network, images, time_steps)
    assert torch.equal(logits.double(), expected)
    assert set(neurons) <= set(spikes)
    for name, layer in neurons.items():
        assert torch.equal(spikes[name].double(), torch.stack(layer.spikes, 1)), name


def test_these_networks_do_something() -> None:
    """The property above means little for networks that are silent or saturated, or that lack a kind of block."""
    kinds, active, differing = set[str](), [], 0
    for seed in range(40):
        network = RandomNetwork(seed, "qffs" if seed % 2 else "qcfs", 1 + seed // 2 % 2, blocks=BLOCKS + ANALOGUE_BLOCKS)
        kinds.update(network.kinds)
        images = dyadic_images(2, seed)
        logits, neurons = plain_simulation(network, images, 8)
        rates = [float(torch.stack(layer.spikes).abs().mean()) for layer in neurons.values()]
        active.append(sum(0.01 < rate < 0.99 for rate in rates) / len(rates))
        differing += bool((logits.sum(1)[0] != logits.sum(1)[1]).any())
    assert kinds == set(BLOCKS + ANALOGUE_BLOCKS)
    assert sum(active) / len(active) > 0.8 and differing > 30


# QFFS: the settled network is the quantised one


def settled(snn: SpikingNetwork, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """z_T and the net counts of all layers, after a step in which nothing fired."""
    logits, spikes, _ = simulated(snn, images, LONG)
    assert all(not bool(fired[:, -1].any()) for fired in spikes.values()), "the network has not settled"
    return logits.double().sum(1), {name: fired.double().sum(1) for name, fired in spikes.items()}


@PROPERTY
@given(st.integers(0, 10**6), st.integers(1, 2))
def test_settled_qffs_is_the_quantised_network(seed: int, bits: int) -> None:
    """z_T is n times the logits of the very module, and every net count times s its LSQ activation: exactly."""
    blocks = BLOCKS if bits == 2 else BLOCKS + ANALOGUE_BLOCKS
    network, images = RandomNetwork(seed, "qffs", bits, blocks=blocks), dyadic_images(2, seed + 1)
    total, counts = settled(convert(network, images, time_steps=LONG, fixed_point=False), images)
    seen: dict[str, Tensor] = {}
    graph = activations_first(folded(traced(network, images)))
    run(graph, images.double(), lambda node, value: seen.__setitem__(node.name, value))
    with torch.no_grad():
        assert torch.equal(total, network.top * network.double()(images.double()))
    for node in graph.of_kind("activation"):
        step = float(node.tensors["threshold"]) / network.top
        assert torch.equal(counts[node.name] * step, seen[node.name]), node.name


@PROPERTY
@given(st.integers(0, 10**6), st.integers(1, 3))
def test_settled_qffs_is_its_reference_to_the_bit(seed: int, bits: int) -> None:
    """For any weights, once they are in fixed point: the running sum of float32 logits is n times those of the reference."""
    network, images = RandomNetwork(seed, "qffs", bits, dyadic=False), gaussian_images(3, seed)
    snn = convert(network, images, time_steps=LONG)
    assert snn.exact and reference_levels(snn) == 2**bits - 1 == snn.active_steps
    total, _ = settled(snn, images)
    assert torch.equal(total, reference_counts(snn, images).double())
    assert torch.equal(reference_logits(snn, images), reference_counts(snn, images) / (2**bits - 1))


@pytest.mark.parametrize("seed", range(4))
def test_relu_networks_with_signed_neurons_settle_at_their_reference(seed: int) -> None:
    network, images = RandomNetwork(seed, "relu", dyadic=False), gaussian_images(8, seed)
    snn = convert(network, images, thresholds="error", time_steps=120, neurons="signed", levels=15)
    logits, _, _ = simulated(snn, images, 120)
    assert torch.equal(logits.double().sum(1), reference_counts(snn, images).double())
    assert (snn.facts["neurons"], snn.facts["levels"], snn.active_steps) == ("signed", 15, 15)
    with torch.no_grad():
        wanted = network(images)
    assert float((reference_logits(snn, images) - wanted).norm() / wanted.norm()) < 0.3


@pytest.mark.parametrize("change", ["no negative spikes", "biases that never stop", "half to even"])
def test_settling_has_reasons(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests above have teeth: take one part of the method away, and the networks settle elsewhere, or not at all."""

    def positive_only(neurons: Signed, state: State, out: Tensor) -> Any:
        potential, net = state
        fired = ((potential >= 1) & (net < neurons.levels)).to(potential)
        return fired, (potential - fired, net + fired)

    wrong = 0
    for seed in range(10):
        network, images = RandomNetwork(seed, "qffs", 2), dyadic_images(2, seed)
        snn = convert(network, images, time_steps=LONG, fixed_point=False)
        with torch.no_grad():
            expected = 3 * network.double()(images.double())
        if change == "no negative spikes":
            monkeypatch.setattr(Signed, "fire", positive_only)
        elif change == "biases that never stop":
            snn.active_steps = None
        else:
            for name in snn.layers():
                snn.tensors()[name]["initial"].sub_(2.0**-6)
        wrong += not torch.equal(simulated(snn, images, LONG)[0].double().sum(1), expected)
    assert wrong >= 5


# QCFS and plain ReLU: rates


@PROPERTY
@given(st.integers(0, 10**6), st.integers(1, 40))
def test_rates_are_the_mean_input_to_within_half_a_threshold_over_t(seed: int, time_steps: int) -> None:
    """theta c / T is the layer's own mean current less (V(T) - V(0)) / T, so within theta / (2 T) of it wherever V(T) is in
    [0, theta). The current is the module's own, in the ANN's units; V(T) is the SNN's."""
    network, images = RandomNetwork(seed, "qcfs", dyadic=True), dyadic_images(2, seed)
    snn = convert(network, images, time_steps=time_steps, fixed_point=False)
    _, spikes, state = simulated(snn, images, time_steps)
    _, neurons = plain_simulation(network, images, time_steps)
    for name, layer in neurons.items():
        mean = torch.stack(layer.inputs).mean(0)
        rate = layer.theta * spikes[name].double().sum(1) / time_steps
        potential = state[name].potential.double()  # in thresholds
        within = (potential >= 0) & (potential < 1)
        off = (rate - mean).abs()
        assert bool((off[within] <= layer.theta / (2 * time_steps) * (1 + 1e-9)).all()), name
        torch.testing.assert_close(rate - mean, layer.theta * (0.5 - potential) / time_steps, rtol=0, atol=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_mean_logits_approach_the_network_without_floor(seed: int) -> None:
    """Clips in the place of the quantisers: the error falls like 1/T, as what the membranes hold back is bounded."""
    network, images = RandomNetwork(seed, "qcfs", dyadic=False), gaussian_images(2, seed)
    snn = convert(network, images, fixed_point=False)
    clipped = RandomNetwork(seed, "qcfs", dyadic=False).double()
    for name, module in list(clipped.named_modules()):
        if isinstance(module, QCFS):
            clipped.set_submodule(name, nn.Hardtanh(0, module.threshold.item()))
    with torch.no_grad():
        expected = clipped(images.double())
    means = simulated(snn, images, 512)[0].double().cumsum(1) / torch.arange(1, 513)[:, None]
    errors = {steps: float((means[:, steps - 1] - expected).abs().mean()) for steps in (8, 64, 512)}
    assert float(expected.std()) > 0.05
    assert errors[64] < errors[8] / 2 and errors[512] < errors[64] / 2, errors
    assert errors[512] < errors[8] / 16, "1/T would be 64 times less"


@pytest.mark.parametrize("method", ["max", "percentile", "error"])
@pytest.mark.parametrize("kind", ["relu", "relu6"])
def test_plain_networks_are_approached_as_t_grows(kind: str, method: str) -> None:
    """The SNN's mean logits go to the ANN's with the rounded weights, but for what lower thresholds cut off."""
    network, images = trained_on_digits(kind), digits()[0][:200]
    snn = convert(network, images, thresholds=method, time_steps=256)
    with torch.no_grad():
        wanted = {"reference": reference_logits(snn, images).double(), "ann": network(images).double()}
    if method == "max":
        torch.testing.assert_close(wanted["reference"], wanted["ann"], rtol=0, atol=0.02 * float(wanted["ann"].abs().max()))
    means = simulated(snn, images, 256)[0].double().cumsum(1) / torch.arange(1, 257)[:, None]
    errors = [
        float((means[:, steps - 1] - wanted["reference"]).norm() / wanted["reference"].norm()) for steps in (4, 16, 64, 256)
    ]
    assert errors == sorted(errors, reverse=True) and errors[-1] < (0.02 if method == "max" else 0.05), errors


def test_qcfs_after_l_steps_is_the_ann_where_a_layer_reads_the_image() -> None:
    """With T = L and a constant current the first layer's rate is its QCFS activation, exactly."""
    for seed in range(8):
        network, images = RandomNetwork(seed, "qcfs"), dyadic_images(4, seed)
        snn = convert(network, images, time_steps=4, fixed_point=False)
        _, spikes, _ = simulated(snn, images, 4)
        with torch.no_grad():
            expected = network.stem_activation(network.stem(images))
        theta = network.stem_activation.threshold.item()  # type: ignore[union-attr, operator]
        assert torch.equal(theta * spikes["stem_activation"].sum(1) / 4, expected)


# The same neurons elsewhere


@pytest.fixture(scope="module")
def if_node() -> Any:
    """SpikingJelly's integrate-and-fire neuron, where it is installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        neuron = pytest.importorskip("spikingjelly.activation_based.neuron", reason="SpikingJelly is not installed")
    return neuron.IFNode


@settings(max_examples=8, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6))
def test_spikingjelly_fires_the_same_spikes(if_node: Any, seed: int) -> None:
    """The module itself, each QCFS replaced by an IFNode with its threshold and soft reset, half charged: spike for spike."""
    blocks = tuple(kind for kind in BLOCKS if kind not in ("max_pool", "concatenate"))  # theirs have no spiking max pool
    network, images = RandomNetwork(seed, "qcfs", blocks=blocks), dyadic_images(3, seed)
    snn = convert(network, images, time_steps=12, fixed_point=False)
    logits, spikes, _ = simulated(snn, images, 12)
    theirs = RandomNetwork(seed, "qcfs", blocks=blocks)

    class Layer(nn.Module):
        """An IFNode sends 1 where the layer behind it shall see theta."""

        def __init__(self, theta: float) -> None:
            super().__init__()
            self.theta, self.node, self.fired = theta, if_node(v_threshold=theta, v_reset=None), list[Tensor]()
            self.node.v = theta / 2

        def forward(self, current: Tensor) -> Tensor:
            self.fired.append(self.node(current))
            return self.theta * self.fired[-1]

    layers: dict[str, Layer] = {}
    for name, module in list(theirs.named_modules()):
        if isinstance(module, QCFS):
            layers[name] = Layer(float(module.threshold))
            theirs.set_submodule(name, layers[name])
    with torch.no_grad():
        sent = torch.stack([theirs(images) for _ in range(12)], 1)
    assert torch.equal(sent, logits)
    for name, layer in layers.items():
        assert torch.equal(torch.stack(layer.fired, 1), spikes[name]), name
    assert sent.shape == (3, 12, CLASSES)
