"""Neurons and an activation from outside: converted, collected, run live, saved and loaded, exact where they declare it."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from own_neurons import Burst, Leaky, Refractory, Thirds
from second_simulation import in_float64, simulated
from spiking_cases import BLOCKS, CLASSES, SIDE, RandomNetwork, gaussian_images
from torch import nn

from dynconf_core.activations.qcfs import QCFS
from dynconf_core.confidence.smoothing import Smoothing
from dynconf_core.conversion.convert import convert
from dynconf_core.conversion.file import load_snn, save_snn
from dynconf_core.conversion.options import ConversionOptions
from dynconf_core.conversion.report import conversion_report
from dynconf_core.data.images import Normalisation, TensorImages
from dynconf_core.errors import InputError
from dynconf_core.exit.agent import ExitAgent
from dynconf_core.exit.rule import Rule
from dynconf_core.neurons.integrate_and_fire import IntegrateAndFire
from dynconf_core.neurons.model import NEURONS, NeuronModel
from dynconf_core.simulation import integer, products
from dynconf_core.simulation.collect import collect
from dynconf_core.simulation.counts import Counter
from dynconf_core.simulation.live import run_until_confident
from dynconf_core.simulation.network import SpikingNetwork

TIME_STEPS = 12
EXACT = pytest.mark.parametrize("neurons", [Refractory(), Burst(3), Burst(2)], ids=str)


def pictures(count: int = 40) -> TensorImages:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (count, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, CLASSES, (count,), generator=generator)
    return TensorImages(pixels, labels, CLASSES, Normalisation((0.5,) * 3, (0.25,) * 3))


def converted(seed: int, neurons: NeuronModel, correct: bool = False, fixed_point: bool = True) -> SpikingNetwork:
    """Converted from a network with plain ReLU."""
    network, images = RandomNetwork(seed, "relu", dyadic=False, blocks=BLOCKS), pictures()
    batch = images.normalisation(images.pixels[:16])
    return convert(
        network, batch, thresholds="error", time_steps=TIME_STEPS, neurons=neurons, correct=correct, fixed_point=fixed_point
    )


@EXACT
@pytest.mark.parametrize("correct", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_float32_is_exact_within_the_declared_bounds(seed: int, correct: bool, neurons: NeuronModel) -> None:
    snn, images = converted(seed, neurons, correct), gaussian_images(6, seed)
    assert snn.exact and snn.neurons == neurons and snn.active_steps is None
    images = images.clamp(-snn.image_limit, snn.image_limit)
    logits, spikes, _ = simulated(snn, images, TIME_STEPS)
    assert torch.equal(logits.double(), in_float64(snn, images, TIME_STEPS)[0])
    for trains in spikes.values():
        assert set(trains.unique().tolist()) <= set(range(neurons.sends[0], neurons.sends[1] + 1))
        if isinstance(neurons, Refractory):
            assert not bool((trains[:, 1:] * trains[:, :-1]).any()), "a step of rest"
    assert any(float(trains.max()) == neurons.sends[1] for trains in spikes.values()), "the bound is reached"


@EXACT
@pytest.mark.parametrize("product", ["float", "integer"])
def test_live_equals_traces(neurons: NeuronModel, product: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if product == "integer":
        if not integer.available():
            pytest.skip("this CPU does not multiply bytes without saturating")
        monkeypatch.setattr(products, "prepare", partial(integer.prepare, must_pay=False))
        assert converted(3, neurons).accelerate(5)
    else:
        monkeypatch.setattr(products, "prepare", lambda *given, **options: None)
    images = pictures()
    traces = collect(converted(3, neurons), None, images, TIME_STEPS, batch=7)
    assert traces.spikes is not None and traces.synaptic_operations is not None
    rule = Rule("max_softmax", Smoothing("sum", 10.0), math.inf)
    rule = Rule("max_softmax", rule.smoothing, float(np.quantile(rule.scores(traces), 0.5)))
    steps, rows = rule.exit_steps(traces), np.arange(len(images))
    assert len(set(steps.tolist())) >= 3, "exits at several steps, or the test shows little"
    for batch in (1, 5, 16, 40):
        exits = run_until_confident(converted(3, neurons), ExitAgent(rule), images, TIME_STEPS, batch=batch)
        np.testing.assert_array_equal(exits.steps, steps)
        np.testing.assert_array_equal(exits.logits, np.cumsum(traces.logits, axis=1, dtype=np.float64)[rows, steps - 1])
        np.testing.assert_array_equal(exits.spikes, np.cumsum(traces.spikes, axis=1)[rows, steps - 1])
        np.testing.assert_array_equal(exits.synaptic_operations, np.cumsum(traces.synaptic_operations, axis=1)[rows, steps - 1])


def test_several_spikes_in_a_step_count_as_several() -> None:
    """A neuron that sends 3 spikes at once counts as 3 spikes, each of which meets the two weights behind it."""
    network = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU6(), nn.Linear(1, 2, bias=False)).eval()
    with torch.no_grad():
        network[0].weight.fill_(6.0)
        network[2].weight.fill_(1.0)
    snn = convert(network, torch.ones(1, 1), time_steps=2, neurons=Burst(3), image_limit=4.0, fixed_point=False)
    counter = Counter(snn)
    snn.step(snn.input_current(torch.tensor([[0.25], [1.0], [4.0]])), None, 1, counter)
    spikes, operations = counter.totals(counter.taken())
    assert (spikes.tolist(), operations.tolist()) == ([0, 1, 3], [0, 2, 6])


@torch.no_grad()
def test_more_spikes_per_step_approximate_the_ann_better() -> None:
    """With bursts no charge waits: after T steps the rates are at least as close to the ANN's activations."""
    network, batch = RandomNetwork(1, "relu", dyadic=False, blocks=BLOCKS), gaussian_images(32, 1)
    found = {}
    for neurons in (IntegrateAndFire(), Burst(7), Refractory()):
        snn = convert(network, batch, thresholds="percentile", percentile=90.0, time_steps=TIME_STEPS, neurons=neurons)
        report = conversion_report(snn, network, batch, TIME_STEPS)
        found[neurons.name] = sum(layer.error[-1] for layer in report.layers)
    assert found["burst"] < found["integrate-and-fire"] < found["refractory"]


def test_an_activation_names_its_neurons() -> None:
    """By a registered name or by the place of the class; the package does not list the activation."""
    NEURONS.register("refractory", Refractory)

    def network(neurons: str) -> nn.Module:
        torch.manual_seed(0)
        layers = (nn.Conv2d(3, 4, 3), Thirds(neurons), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 5))
        return nn.Sequential(*layers).eval()

    images = gaussian_images(4, 0)
    named = {"refractory": Refractory(), "own_neurons:Burst": Burst(), "integrate-and-fire": IntegrateAndFire()}
    for name, expected in named.items():
        ann = network(name)
        snn = convert(ann, images, time_steps=9)
        (layer,) = snn.layers().values()
        assert snn.neurons == expected and layer.settings == {"levels": 3, "clipped": True}
        assert snn.tensors()["1"]["threshold"].item() == 1.5
        logits = simulated(snn, images, 9)[0]
        assert torch.equal(logits.double(), in_float64(snn, images, 9)[0])
        assert convert(ann, images, time_steps=9, neurons=Burst(2)).neurons == Burst(2), "what is asked for has the last word"


def test_neurons_of_several_kinds_are_refused() -> None:
    layers = (nn.Conv2d(3, 4, 3), QCFS(4), nn.Conv2d(4, 4, 3), Thirds("own_neurons:Burst"), nn.Flatten())
    with pytest.raises(InputError, match=r"neurons of different kinds \(burst with most = 3, integrate-and-fire\)"):
        convert(nn.Sequential(*layers).eval(), gaussian_images(2, 0))


@pytest.mark.parametrize(
    ("neurons", "words"),
    [
        ("own_neurons:Nobody", r"module own_neurons has no 'Nobody'"),
        ("no_such_module:Burst", r"there is no module no_such_module"),
        ("burst", r"neurons='burst' is unknown: choose one of auto, integrate-and-fire, signed"),
    ],
)
def test_names_that_cannot_be_loaded(neurons: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        convert(nn.Sequential(nn.Linear(2, 2), QCFS(4), nn.Linear(2, 2)).eval(), torch.ones(1, 2), neurons=neurons)


def test_neurons_unsuited_to_fixed_point_weights() -> None:
    """They declare it; without fixed-point weights they run, and are counted and reported like any others."""
    with pytest.raises(InputError, match=r"leaky with leak = 0\.1 neurons are not exact in fixed point: .*fixed_point=False"):
        converted(0, Leaky())
    snn, images = converted(0, Leaky(0.25), fixed_point=False), pictures()
    batch = images.normalisation(images.pixels)
    torch.testing.assert_close(snn(batch, TIME_STEPS)[:, :2].double(), in_float64(snn, batch, 2)[0], rtol=1e-4, atol=1e-4)
    assert not collect(snn, None, images, 2).meta["exact"]


def test_a_file_holds_the_neurons_but_no_code(tmp_path: Path) -> None:
    """A class from outside must be named again when the file is loaded."""
    snn, path, images = converted(2, Burst(2)), tmp_path / "snn.pt", gaussian_images(3, 0) / 2
    save_snn(snn, path)
    with pytest.raises(InputError, match=r"of the model 'burst', which is none of integrate-and-fire, signed.*neurons=Class"):
        load_snn(path)
    with pytest.raises(InputError, match=r"are not of the neuron model 'refractory'"):
        load_snn(path, neurons=Refractory)
    again = load_snn(path, neurons=Burst)
    assert again.neurons == Burst(2) and again.facts["neurons"] == "burst"
    assert torch.equal(again(images, TIME_STEPS), snn(images, TIME_STEPS))


class Namesake(Refractory):
    """Has the name of another model."""

    name: ClassVar[str] = "signed"


def test_a_file_is_not_written_under_the_name_of_another_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="neuron model 'signed' exists already: give Namesake another name"):
        save_snn(converted(0, Namesake()), tmp_path / "snn.pt")
    assert not list(tmp_path.iterdir())


class Boastful(Burst):
    """Declares fewer spikes than it sends."""

    @property
    def sends(self) -> tuple[int, int]:
        return 0, 1


def test_the_tests_above_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """With false bounds, computation is not exact; such neurons are therefore refused."""
    with pytest.raises(InputError, match=r"sends=\(0, 1\), in step 1: neurons send 0 to \d+; give true bounds"):
        convert(nn.Sequential(nn.Linear(6, 4), nn.ReLU()).eval(), torch.rand(4, 6), neurons=Boastful(4096), thresholds="max")
    monkeypatch.setattr("dynconf_core.conversion.convert.check_model", lambda neurons, time_steps: None)
    wrong = 0
    for seed in range(8):
        network = nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4)).eval()
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.copy_(torch.rand(parameter.shape, generator=generator))
        images = torch.rand(4, 6, generator=generator)
        options = ConversionOptions("percentile", 4, Boastful(4096), percentile=50.0, weight_bits=20)
        snn = convert(network, images, options)
        wrong += not torch.equal(simulated(snn, images, 4)[0].double(), in_float64(snn, images, 4)[0])
    assert wrong
