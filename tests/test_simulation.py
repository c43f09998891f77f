"""One time step after another against a plain second implementation; the state as a value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d, linear
from training_cases import activation

from dynconf_core.conversion.convert import convert
from dynconf_core.errors import InputError
from dynconf_core.simulation import integer, products
from dynconf_core.simulation.counts import Counter
from dynconf_core.simulation.network import InputCurrent, SpikingNetwork, State

TIME_STEPS = 9
SIDE = 8
METHODS = ("qcfs", "qffs")


class Small(nn.Module):
    """Two convolutions, one with batch normalisation, a residual sum, a pool and two linear layers; biases everywhere."""

    def __init__(self, method: str, seed: int = 0) -> None:
        super().__init__()
        make = activation(method, levels=4, bits=2, initial_threshold=1.0)
        self.first, self.norm, self.first_activation = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), make()
        self.second, self.second_activation = nn.Conv2d(4, 4, 3, padding=1), make()
        self.pool = nn.AvgPool2d(2)
        self.flatten, self.third, self.third_activation = nn.Flatten(), nn.Linear(4 * 16, 12), make()
        self.last = nn.Linear(12, 5)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in (p for m in (self.first, self.second, self.third, self.last) for p in m.parameters()):
                scale = 0.3 if parameter.dim() == 1 else 2 * parameter[0].numel() ** -0.5
                parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
            assert self.norm.running_mean is not None and self.norm.running_var is not None
            self.norm.running_mean.copy_(0.2 * torch.randn(4, generator=generator))
            self.norm.running_var.copy_(0.5 + torch.rand(4, generator=generator))
            self.norm.weight.copy_(0.5 + torch.rand(4, generator=generator))
            self.norm.bias.copy_(0.2 * torch.randn(4, generator=generator))
            for number, layer in enumerate((self.first_activation, self.second_activation, self.third_activation)):
                parameter = layer.threshold if method == "qcfs" else layer.step
                parameter.fill_((0.9, 1.3, 0.8)[number] / (1 if method == "qcfs" else 3))
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        a = self.first_activation(self.norm(self.first(x)))
        b = self.second_activation(self.second(a) + a)
        result: Tensor = self.last(self.third_activation(self.third(self.flatten(self.pool(b)))))
        return result

    def weights(self, method: str) -> dict[str, Tensor]:
        """Of the layers, in their own units, and theta of each layer of neurons."""
        norm = self.norm
        assert norm.running_mean is not None and norm.running_var is not None and self.first.bias is not None
        factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        found = {
            "first": self.first.weight * factor[:, None, None, None],
            "first.bias": (self.first.bias - norm.running_mean) * factor + norm.bias,
            "shortcut": torch.ones(()),
        }
        for name in ("second", "third", "last"):
            found |= {name: getattr(self, name).weight, f"{name}.bias": getattr(self, name).bias}
        layers = (self.first_activation, self.second_activation, self.third_activation)
        thetas = [layer.threshold if method == "qcfs" else 3 * layer.step for layer in layers]
        return {**found, **{f"theta{number}": theta for number, theta in enumerate(thetas)}, "pooled": torch.tensor(0.25)}


def rounded_weights(snn: SpikingNetwork) -> dict[str, Tensor]:
    """The same of a converted ``Small``, in units of the thresholds, in float64."""
    tensors = snn.tensors()
    found = {"shortcut": tensors["add<first_activation"]["weight"]}
    for name in ("first", "second", "third", "last"):
        found |= {name: tensors[name]["weight"], f"{name}.bias": tensors[name]["bias"]}
    found = {name: value.double() for name, value in found.items()}
    return {**found, **{f"theta{number}": torch.ones(()) for number in range(3)}, "pooled": torch.ones(())}


@dataclass
class PlainNeuron:
    """One layer, written out from the equations and from nothing of the product."""

    theta: float
    top: int | None
    potential: Tensor | None = None
    count: Tensor | None = None

    def __call__(self, current: Tensor) -> Tensor:
        if self.potential is None or self.count is None:
            self.potential, self.count = torch.zeros_like(current) + self.theta / 2, torch.zeros_like(current)
        self.potential = self.potential + current
        if self.top is None:
            fired = torch.where(self.potential >= self.theta, 1.0, 0.0).to(current)
        else:
            up = (self.potential >= self.theta) & (self.count <= self.top - 1)
            down = (self.potential < 0) & (self.count >= 1)
            fired = torch.where(up, 1.0, torch.where(down, -1.0, 0.0)).to(current)
        self.potential = self.potential - self.theta * fired
        self.count = self.count + fired
        return fired


def plain(
    weights: Mapping[str, Tensor], images: Tensor, time_steps: int, method: str, rounded: Callable[[Tensor, str], Tensor]
) -> tuple[Tensor, Tensor]:
    """Logits (N, T, C) and spikes (N, T), a sample at a time; ``rounded`` is done to the image and the first current."""
    w = weights
    logits, spikes = [], []
    for image in images.split(1):
        neurons = [PlainNeuron(w[f"theta{number}"].item(), None if method == "qcfs" else 3) for number in range(3)]
        input_current = rounded(conv2d(rounded(image, "input"), w["first"], w["first.bias"], padding=1), "first")
        for time_step in range(1, time_steps + 1):
            on = 1.0 if method == "qcfs" or time_step <= 3 else 0.0
            one = neurons[0](on * input_current)
            a = one * neurons[0].theta
            two = neurons[1](conv2d(a, w["second"], on * w["second.bias"], padding=1) + w["shortcut"] * a)
            b = 4 * w["pooled"] * avg_pool2d(two * neurons[1].theta, 2).reshape(1, -1)
            three = neurons[2](linear(b, w["third"], on * w["third.bias"]))
            logits.append(linear(three * neurons[2].theta, w["last"], on * w["last.bias"]))
            spikes.append(sum(int((fired != 0).sum()) for fired in (one, two, three)))
    shape = (len(images), time_steps)
    return torch.cat(logits).detach().view(*shape, -1), torch.tensor(spikes).view(shape)


def run(snn: SpikingNetwork, images: Tensor, time_steps: int = TIME_STEPS) -> tuple[Tensor, Tensor, Tensor, State]:
    """Logits (N, T, C), spikes and synaptic operations (N, T), and the last state."""
    logits, counts = [], []
    state: State | None = None
    counter = Counter(snn)
    with torch.inference_mode():
        input_current = snn.input_current(images)
        for time_step in range(1, time_steps + 1):
            step = snn.step(input_current, state, time_step, counter)
            state = step.state
            logits.append(step.logits)
            counts.append(torch.stack(counter.totals(counter.taken())))
    assert state is not None
    spikes, operations = torch.stack(counts, 2)
    return torch.stack(logits, 1), spikes, operations, state


def images(count: int = 6, seed: int = 1) -> Tensor:
    return torch.randn(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def small(method: str, seed: int = 0, fixed_point: bool = True) -> SpikingNetwork:
    return convert(Small(method, seed), images(), time_steps=TIME_STEPS, fixed_point=fixed_point, image_limit=6.0)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("method", METHODS)
def test_equals_a_plain_implementation_to_the_bit(method: str, seed: int) -> None:
    """Of the rounded weights, in float64 and another order of summation."""
    snn = small(method, seed)
    bits = {name: snn.graph.by_name[f"{name}.round"].settings["bits"] for name in ("input", "first")}

    def rounded(value: Tensor, name: str) -> Tensor:
        return torch.round(value * 2.0 ** bits[name]) / 2.0 ** bits[name]

    logits, spikes, _, state = run(snn, images())
    expected_logits, expected_spikes = plain(rounded_weights(snn), images().double(), TIME_STEPS, method, rounded)
    assert torch.equal(logits.double(), expected_logits)
    assert torch.equal(spikes, expected_spikes)
    assert int(spikes.sum()) > 500 and len(spikes.unique()) > 10
    if method == "qffs":
        assert all(set(layer.net.unique().tolist()) <= {0, 1, 2, 3} for layer in state.values())  # type: ignore[union-attr]


@pytest.mark.parametrize("method", METHODS)
def test_without_fixed_point_equals_a_plain_implementation_in_its_own_units(method: str) -> None:
    """theta, lambda and s as trained, in float64; float32 rounds, but on these images no spike depends on it."""
    network = Small(method)
    logits, spikes, _, _ = run(small(method, fixed_point=False), images())
    expected_logits, expected_spikes = plain(
        network.weights(method), images().double(), TIME_STEPS, method, lambda value, name: value
    )
    torch.testing.assert_close(logits.double(), expected_logits, rtol=0, atol=1e-5)
    assert torch.equal(spikes, expected_spikes)


def test_spikes_by_hand() -> None:
    """One unit a layer, identity weights: a current of 0.625 at theta 1 fires at steps 1, 3, 4, 6, 8."""
    first, second = (nn.Conv2d(1, 1, 1, bias=False) for _ in range(2))
    make = activation("qcfs", levels=4, initial_threshold=1.0)
    network = nn.Sequential(first, make(), second, make(), nn.Flatten(), nn.Linear(1, 1)).eval()
    with torch.no_grad():
        first.weight.fill_(1.0)
        second.weight.fill_(0.5)
        network[5].weight.fill_(2.0)  # type: ignore[operator, union-attr]
        network[5].bias.fill_(0.25)  # type: ignore[operator, union-attr]
    given = torch.tensor([0.625, 0.0, 5.0]).view(3, 1, 1, 1)
    logits, spikes, operations, _ = run(convert(network, given), given, 8)
    # Sample 0: V = 1.125* 0.75 1.375* 1.0* 0.625 1.25* 0.875 1.5*; the next layer gets half a threshold each time: 1.0 fires
    # at once, then at every second spike: 1, 4, 8.
    assert spikes[0].tolist() == [2, 0, 1, 2, 0, 1, 0, 2]
    assert operations[0].tolist() == [2, 0, 1, 2, 0, 1, 0, 2], "every unit meets one weight"
    assert logits[0, :, 0].tolist() == [2.25, 0.25, 0.25, 2.25, 0.25, 0.25, 0.25, 2.25]
    assert spikes[1].tolist() == [0] * 8
    assert spikes[2].tolist() == [2, 1, 2, 1, 2, 1, 2, 1]


@pytest.mark.parametrize("method", METHODS)
def test_forward_is_the_loop_of_steps(method: str) -> None:
    snn = small(method)
    assert torch.equal(snn(images(), TIME_STEPS), run(snn, images())[0])


@pytest.mark.parametrize("method", METHODS)
def test_finished_samples_can_be_left_out(method: str) -> None:
    """state[keep] goes on as if the others were still there."""
    snn, batch = small(method), images(7)
    logits, spikes, _, _ = run(snn, batch)
    keep, counter = torch.tensor([5, 0, 3]), Counter(snn)
    with torch.inference_mode():
        input_current, state = snn.input_current(batch), None
        for time_step in range(1, 3):
            state = snn.step(input_current, state, time_step).state
        assert state is not None
        assert all(len(tensor) == 7 for layer in state.values() for tensor in layer), "the batch comes first"
        ongoing: State = {name: type(layer)(*(tensor[keep] for tensor in layer)) for name, layer in state.items()}
        part = InputCurrent({node: value[keep] for node, value in input_current.values.items()}, 3)
        for time_step in range(3, TIME_STEPS + 1):
            step = snn.step(part, ongoing, time_step, counter)
            ongoing = step.state
            assert torch.equal(step.logits, logits[keep, time_step - 1])
            assert torch.equal(counter.totals(counter.taken())[0], spikes[keep, time_step - 1])


@pytest.mark.parametrize("method", METHODS)
def test_samples_of_a_batch_may_be_at_different_steps(method: str) -> None:
    """Two that began two steps before the other two: image and biases are gated for each (QFFS: up to step 3)."""
    snn, early, late = small(method), images(2, seed=3), images(2, seed=4)
    alone = [run(snn, batch)[0] for batch in (early, late)]
    with torch.inference_mode():
        input_current, state = snn.input_current(early), None
        for time_step in (1, 2):
            state = snn.step(input_current, state, time_step).state
        assert state is not None
        other = snn.input_current(late)
        joined = InputCurrent({name: torch.cat([value, other.values[name]]) for name, value in input_current.values.items()}, 4)
        fresh = snn.initial_state(state)
        both: State = {
            name: type(layer)(
                *(
                    torch.cat([tensor, torch.empty_like(tensor).copy_(first)])
                    for tensor, first in zip(layer, fresh[name], strict=True)
                )
            )
            for name, layer in state.items()
        }
        for time_step in range(1, TIME_STEPS - 1):
            clock = torch.tensor([time_step + 2, time_step + 2, time_step, time_step])
            step = snn.step(joined, both, clock)
            both = step.state
            assert torch.equal(step.logits[:2], alone[0][:, time_step + 1])
            assert torch.equal(step.logits[2:], alone[1][:, time_step - 1])


@pytest.mark.parametrize("method", METHODS)
def test_step_is_a_function_of_its_arguments(method: str) -> None:
    """The same input current, state and time step give the same outcome, whatever was run between; the current stays."""
    snn = small(method)

    def twice() -> Tensor:
        state = snn.step(input_current, None, 1).state
        return snn.step(input_current, state, 2).logits.clone()

    with torch.inference_mode():
        input_current = snn.input_current(images(3))
        kept = {name: value.clone() for name, value in input_current.values.items()}
        once = twice()
        run(snn, images(5, seed=9))
        assert torch.equal(once, twice())
    assert all(torch.equal(value, kept[name]) for name, value in input_current.values.items())


def test_weights_are_read_anew() -> None:
    """After loading a state dict, which replaces them."""
    snn, other = small("qcfs", 0), small("qcfs", 1)
    before = run(snn, images(2))[0]
    snn.accelerate(2)
    snn.load_state_dict(other.state_dict())
    assert torch.equal(run(snn, images(2))[0], run(other, images(2))[0])
    assert not torch.equal(run(snn, images(2))[0], before)


@pytest.mark.parametrize(
    ("given", "time_steps", "words"),
    [
        (images()[:, :2], 3, r"shape \(2, 8, 8\), but the network was converted for \(3, 8, 8\)"),
        (images(), 0, "time_steps=0"),
        (
            images(),
            TIME_STEPS + 1,
            rf"time_steps=10: .* up to {TIME_STEPS}; convert with time_steps=10, or with fixed_point=False",
        ),
        (images() * float("nan"), 3, "NaN"),
        (images() / 0, 3, "NaN or infinite"),
        (images() * 6, 3, r"the images reach .*, but the fixed-point weights are proven exact up to 6"),
    ],
)
def test_refuses(given: Tensor, time_steps: int, words: str) -> None:
    with pytest.raises(InputError, match=words):
        small("qcfs")(given, time_steps)


# Integer products


@pytest.mark.parametrize("method", METHODS)
def test_integer_products_change_no_bit(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All layers that have one take it, whether it is faster or not."""
    if not integer.available():
        pytest.skip("this CPU does not multiply bytes without saturating")
    monkeypatch.setattr(products, "prepare", partial(integer.prepare, must_pay=False))
    snn = small(method)
    expected = run(snn, images())
    assert snn.accelerate(6) == ["second", "third", "last"], "all but the first, which reads the image"
    for found, wanted in zip(run(snn, images())[:3], expected[:3], strict=True):
        assert torch.equal(found, wanted)


def test_no_integer_products_without_fixed_point() -> None:
    assert small("qcfs", fixed_point=False).accelerate(4) == []


def test_signed_neurons_hold_two_numbers() -> None:
    first, second = (run(small(method), images(2), 1)[3]["third_activation"] for method in METHODS)
    assert (len(first), len(second)) == (1, 2) == tuple(small(method).neurons.state_tensors for method in METHODS)
