"""The differentiable SNN of fine-tuning: the core's spikes, the network's own logits, the surrogate's gradient."""

import copy
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from second_simulation import simulated
from spiking_cases import RandomNetwork, charge, dyadic_images, gaussian_images, lively
from torch import Tensor, nn
from training_cases import network, small

from dynconf_core.activations.lsq import LSQ
from dynconf_core.activations.qcfs import QCFS
from dynconf_core.conversion.convert import convert
from dynconf_core.conversion.options import ConversionOptions
from dynconf_core.errors import InputError
from dynconf_core.neurons.integrate_and_fire import IntegrateAndFire, Potential
from dynconf_core.neurons.model import NeuronModel, State
from dynconf_core.neurons.reset_to_zero import ResetToZero
from dynconf_core.neurons.signed import PotentialAndCount, Signed
from dynconf_core.simulation.reference import reference_counts
from dynconf_core.training.spiking import Spiking

STEPS = 6


def spiking(trained: nn.Module, images: Tensor, steps: int = STEPS, **options: object) -> Spiking:
    return Spiking(trained.double(), images[:1].double(), ConversionOptions(time_steps=steps).changed(dict(options)), steps)


@pytest.mark.parametrize("method", ["qcfs", "qffs"])
@pytest.mark.parametrize("seed", range(6))
def test_it_sends_the_spikes_of_the_core(method: str, seed: int) -> None:
    trained, images = RandomNetwork(seed, method).eval(), dyadic_images(3, seed)
    snn = convert(copy.deepcopy(trained), images, fixed_point=False, time_steps=STEPS)
    logits, spikes, _ = simulated(snn, images, STEPS)
    tuned = spiking(trained, images)
    found = tuned.sent(images.double())
    layers = [node.name for node in snn.graph.of_kind("neurons")]
    assert layers and set(found) == set(layers)
    assert all(torch.equal(found[name].transpose(0, 1), spikes[name].double()) for name in layers)
    rows = tuned(images.double()).detach()
    times = torch.arange(1, STEPS + 1).clamp_max(trained.top if method == "qffs" else STEPS).view(1, -1, 1)
    assert torch.allclose(rows[:-1].transpose(0, 1), logits.double().cumsum(1) / times, rtol=0, atol=1e-9)
    assert torch.allclose(rows[-1], trained(images.double()), rtol=0, atol=1e-9)


@pytest.mark.parametrize("method", ["qcfs", "qffs"])
def test_a_trained_network_with_normalisation_spikes_as_its_conversion_does(method: str) -> None:
    """Real weights: in float32 a rounding error may move a spike; hardly any may differ."""
    trained, images = lively(network(method), 16), gaussian_images(4, 1, 16)
    for module in trained.modules():
        if isinstance(module, LSQ):
            module.step.data.fill_(0.3)
    snn = convert(copy.deepcopy(trained), images, fixed_point=False, time_steps=STEPS)
    _, spikes, _ = simulated(snn, images, STEPS)
    found = spiking(trained, images).sent(images.double())
    sent = sum(float(one.abs().sum()) for one in spikes.values())
    differ = sum(float((found[name].transpose(0, 1) - one).abs().sum()) for name, one in spikes.items())
    assert sent > 1000 and differ < 0.002 * sent


def test_the_initial_potential_is_that_of_the_conversion() -> None:
    trained, images = RandomNetwork(3, "qcfs").eval(), dyadic_images(3, 3)
    snn = convert(copy.deepcopy(trained), images, fixed_point=False, time_steps=STEPS, initial_potential=0.25)
    _, spikes, _ = simulated(snn, images, STEPS)
    found = spiking(trained, images, initial_potential=0.25).sent(images.double())
    assert all(torch.equal(one.transpose(0, 1), spikes[name].double()) for name, one in found.items())


@pytest.mark.parametrize("method", ["qcfs", "qffs"])
@pytest.mark.parametrize("fixed_point", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_with_learned_potentials_it_sends_the_spikes_of_the_core(method: str, fixed_point: bool, seed: int) -> None:
    """Each layer from its own; the network itself is then what signed neurons settle at, of the others QCFS as it was."""
    trained, images = RandomNetwork(seed, method).eval(), dyadic_images(3, seed)
    half = [one.transpose(0, 1) for one in spiking(copy.deepcopy(trained), images).sent(images.double()).values()]
    before = trained.double()(images.double())
    values = charge(trained)
    snn = convert(copy.deepcopy(trained).float(), images, fixed_point=fixed_point, time_steps=STEPS)
    given = {node.name: float(node.tensors["initial"]) for node in snn.graph.of_kind("neurons")}
    assert sorted(given.values()) == sorted(values) and snn.facts["initial_potentials"] == given
    _, spikes, _ = simulated(snn, images, STEPS)
    tuned = spiking(trained, images)
    found = [one.transpose(0, 1) for one in tuned.sent(images.double()).values()]
    assert all(torch.equal(one, spikes[name].double()) for name, one in zip(tuned.sent(images.double()), found, strict=True))
    assert any(not torch.equal(one, other) for one, other in zip(found, half, strict=True))
    itself = tuned(images.double())[-1]
    assert torch.allclose(itself, trained(images.double()), rtol=0, atol=1e-9)
    assert torch.equal(trained(images.double()), before) == (method == "qcfs")


@pytest.mark.parametrize("fixed_point", [True, False])
def test_signed_neurons_with_learned_potentials_settle_at_their_network(fixed_point: bool) -> None:
    trained, images = RandomNetwork(2, "qffs").eval(), dyadic_images(4, 2)
    charge(trained)
    snn = convert(copy.deepcopy(trained), images, fixed_point=fixed_point, time_steps=24)
    settled = snn(images, 24).sum(1)
    assert torch.equal(settled, reference_counts(snn, images))
    assert torch.allclose(settled / trained.top, trained(images), rtol=0, atol=1e-5)


@pytest.mark.parametrize("phi", [0.0, 0.25, 0.5, 0.875, 1.0])
def test_neurons_of_a_constant_current_count_what_the_shift_says(phi: float) -> None:
    """By hand: floor(T x + phi) of integrate-and-fire after T steps, floor(x / s + phi) of signed neurons once settled."""
    currents = torch.arange(-16, 40) / 32
    for method, steps in (("qcfs", 7), ("qffs", 12)):
        fire = QCFS(4, 1.0) if method == "qcfs" else LSQ(2)
        fire.learn_potential()
        assert fire.offset is not None
        fire.offset.data.fill_(phi - 0.5)
        layer = nn.Linear(1, 1, bias=False)
        layer.weight.data.fill_(1.0)
        trained = nn.Sequential(layer, fire, nn.Linear(1, 1, bias=False)).eval()
        x = currents if method == "qcfs" else 3 * currents
        found = spiking(trained, x[:1, None], steps).sent(x[:, None].double())["1"].sum(0)[:, 0]
        expected = torch.floor(steps * x + phi).clamp(0, steps) if method == "qcfs" else torch.floor(x + phi).clamp(0, 3)
        assert torch.equal(found, expected.double())


def test_the_gradients_of_a_potential_are_what_the_equations_give() -> None:
    """As of one neuron above: dV1/dphi = 1, dV2/dphi = 1 - h1; of LSQ's own, s inside its range and 0 beyond."""
    theta, u = 0.8, 0.3
    layer, fire, last = nn.Linear(1, 1, bias=False), QCFS(4, theta), nn.Linear(1, 1, bias=False)
    trained = nn.Sequential(layer, fire, last)
    layer.weight.data.fill_(theta * u)
    last.weight.data.fill_(1.0)
    charge(trained)
    assert fire.offset is not None
    fire.offset.data.fill_(0.125)
    tuned = spiking(trained.eval(), torch.ones(1, 1), steps=2)
    tuned(torch.ones(1, 1, dtype=torch.float64))[1].sum().backward()
    first = 0.625 + u
    second = first + u - float(first >= 1)
    h1, h2 = (max(0.0, 1 - abs(one - 1)) for one in (first, second))
    assert 0 < h1 < 1 and 0 < h2 < 1
    assert fire.offset.grad is not None
    assert float(fire.offset.grad) == pytest.approx(theta * (h1 + h2 * (1 - h1)) / 2, rel=1e-5)

    quantiser = LSQ(2)
    quantiser.learn_potential()
    assert quantiser.offset is not None
    quantiser.step.data.fill_(0.5)
    quantiser.offset.data.fill_(0.25)
    x = torch.tensor([-0.25, 0.0, 0.3, 1.3, 1.45, 2.0], requires_grad=True)
    y = quantiser(x)
    assert y.tolist() == [0.0, 0.0, 0.5, 1.5, 1.5, 1.5]
    y.sum().backward()
    assert x.grad is not None and x.grad.tolist() == [0, 1, 1, 1, 0, 0] and float(quantiser.offset.grad or 0) == 3 * 0.5


def test_a_gradient_of_one_neuron_is_what_the_equations_give() -> None:
    """Two steps of V += w x / theta; s = [V >= 1], with the triangle 1 - |V - 1| for ds/dV, by hand."""
    w, theta, x = 0.7, 0.8, 1.0
    first_layer, fire, last_layer = nn.Linear(1, 1, bias=False), QCFS(4, theta), nn.Linear(1, 1, bias=False)
    trained = nn.Sequential(first_layer, fire, last_layer).double()
    with torch.no_grad():
        first_layer.weight.fill_(w)
        last_layer.weight.fill_(1.0)
        fire.threshold.fill_(theta)
    tuned = spiking(trained.eval(), torch.ones(1, 1), steps=2)
    tuned(torch.full((1, 1), x, dtype=torch.float64))[1].sum().backward()
    u = w * x / theta
    first = 0.5 + u
    s1 = float(first >= 1)
    second = first - s1 + u
    s2 = float(second >= 1)
    h1, h2 = max(0.0, 1 - abs(first - 1)), max(0.0, 1 - abs(second - 1))
    assert 0 < h1 < 1 and 0 < h2 < 1
    by_u = h1 + h2 * (2 - h1)  # dV2/du = 1 - h1 + 1
    assert first_layer.weight.grad is not None and fire.threshold.grad is not None
    assert float(first_layer.weight.grad) == pytest.approx(theta * by_u / 2 * x / theta, rel=1e-12)
    assert float(fire.threshold.grad) == pytest.approx((s1 + s2 - by_u * u) / 2, rel=1e-12)


def test_the_slopes_are_triangles_around_what_fires() -> None:
    potential = torch.tensor([-0.5, 0.0, 0.25, 1.0, 1.5, 2.5])
    assert torch.equal(IntegrateAndFire().slope(Potential(potential)), torch.tensor([0.0, 0, 0.25, 1, 0.5, 0]))
    neurons = Signed(3)
    free = neurons.slope(PotentialAndCount(potential, torch.ones(6)))
    none_sent = neurons.slope(PotentialAndCount(potential, torch.zeros(6)))
    all_sent = neurons.slope(PotentialAndCount(potential, torch.full((6,), 3.0)))
    assert torch.equal(none_sent, torch.tensor([0.0, 0, 0.25, 1, 0.5, 0]))  # none can be taken back
    assert torch.equal(all_sent, torch.tensor([0.5, 1, 0.75, 0, 0, 0]))  # none can follow
    assert torch.equal(free, none_sent + all_sent)


@pytest.mark.parametrize("method", ["qcfs", "qffs"])
def test_the_network_itself_has_its_own_gradient(method: str) -> None:
    """The last row is the trained network in evaluation mode, and its gradient that of the straight-through estimators."""
    trained, images = RandomNetwork(1, method).eval(), dyadic_images(3, 1)
    tuned = spiking(trained, images)
    plain = trained(images.double()).square().sum()
    expected = torch.autograd.grad(plain, list(trained.parameters()), allow_unused=True)
    found = torch.autograd.grad(tuned(images.double())[-1].square().sum(), list(trained.parameters()), allow_unused=True)
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(torch.zeros(()) if one is None else one, torch.zeros(()) if other is None else other, atol=1e-9)


def test_normalisation_keeps_its_statistics_and_all_else_has_gradients() -> None:
    trained, images = lively(small(), 16), gaussian_images(4, 1, 16)
    tuned = spiking(trained, images)
    before = {name: value.clone() for name, value in trained.named_buffers()}
    tuned.train()
    tuned(images.double())[:-1].square().sum().backward()
    assert all(torch.equal(before[name], value) for name, value in trained.named_buffers())
    assert all(one.grad is not None and bool(one.grad.any()) for one in trained.parameters())


def test_what_does_not_go_with_learned_potentials_is_refused() -> None:
    images, networks = torch.ones(1, 3), {}
    for method, fire in (("qcfs", QCFS(4)), ("qffs", LSQ(2))):
        networks[method] = nn.Sequential(nn.Linear(3, 4), fire, nn.Linear(4, 2)).eval()
        charge(networks[method])  # 3/16
    for given in (convert, spiking):
        with pytest.raises(
            InputError, match=r"initial_potential=0\.25, but the neurons at '1' have learned to start at 0\.188"
        ):
            given(networks["qcfs"].float(), images, initial_potential=0.25)
    with pytest.raises(InputError, match="correct=True would replace what the neurons at '1' have learned"):
        convert(networks["qcfs"].float(), images, correct=True)
    with pytest.raises(InputError, match=r"shift 0\.5, and its neurons start at 0\.188: signed neurons settle where"):
        convert(networks["qcfs"], images, neurons="signed", levels=4)
    with pytest.raises(InputError, match=r"shift 0\.188.*: integrate-and-fire neurons never settle"):
        convert(networks["qffs"], images, neurons="integrate-and-fire")
    networks["qcfs"][1].offset.data.fill_(0.75)  # type: ignore[union-attr, operator]
    with pytest.raises(InputError, match=r"its initial is 1\.25; give 0 to 1"):
        convert(networks["qcfs"], images)


class _Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight, self.fire, self.last = nn.Parameter(torch.ones(4, 3)), QCFS(4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.last(self.fire(nn.functional.linear(x, self.weight)))
        return logits


@dataclass(frozen=True)
class _Unknown(NeuronModel):
    name: ClassVar[str] = "unknown"

    def fire(self, state: State, out: Tensor) -> tuple[Tensor, State]:
        return out.zero_(), state

    @property
    def sends(self) -> tuple[int, int]:
        return 0, 1


def test_what_cannot_be_fine_tuned_is_refused_with_its_name() -> None:
    images = torch.ones(1, 3)
    with pytest.raises(InputError, match="weight is no weight of a convolution"):
        spiking(_Functional().eval(), images)
    with pytest.raises(InputError, match="'1' is no module with a quantisation"):
        spiking(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval(), images)
    with pytest.raises(InputError, match="learned with the network"):
        spiking(nn.Sequential(nn.Linear(3, 4), QCFS(4), nn.Linear(4, 2)).eval(), images, thresholds="max")
    with pytest.raises(InputError, match="do not lower their membrane potential"):
        spiking(nn.Sequential(nn.Linear(3, 4), QCFS(4), nn.Linear(4, 2)).eval(), images, neurons=ResetToZero())
    with pytest.raises(InputError, match="'unknown' has no surrogate derivative"):
        spiking(nn.Sequential(nn.Linear(3, 4), QCFS(4), nn.Linear(4, 2)).eval(), images, neurons=_Unknown())
