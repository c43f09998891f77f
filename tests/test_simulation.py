"""The simulation against a plain second implementation, its state as a value, and the traces it writes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d, linear

from dynconf_core.activations.factory import activation
from dynconf_core.conversion.convert import convert
from dynconf_core.data.images import Normalisation, TensorImages
from dynconf_core.networks.build import build
from dynconf_core.neurons import integrate_and_fire, signed
from dynconf_core.simulation.collect import collect
from dynconf_core.simulation.network import Drive, SpikingNetwork, State
from dynconf_core.traces import Traces

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


def plain(network: Small, images: Tensor, time_steps: int, method: str) -> tuple[Tensor, Tensor]:
    """Logits (N, T, C) and spikes (N, T), a sample at a time."""
    norm = network.norm
    assert norm.running_mean is not None and norm.running_var is not None and network.first.bias is not None
    factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    weight = network.first.weight * factor[:, None, None, None]
    bias = (network.first.bias - norm.running_mean) * factor + norm.bias
    logits, spikes = [], []
    for image in images.split(1):
        neurons = [
            PlainNeuron(layer.threshold.item(), None) if method == "qcfs" else PlainNeuron(3 * layer.step.item(), 3)
            for layer in (network.first_activation, network.second_activation, network.third_activation)
        ]
        for time_step in range(1, time_steps + 1):
            on = 1.0 if method == "qcfs" or time_step <= 3 else 0.0
            one = neurons[0](on * conv2d(image, weight, bias, padding=1))
            a = one * neurons[0].theta
            two = neurons[1](conv2d(a, network.second.weight, on * network.second.bias, padding=1) + a)
            b = avg_pool2d(two * neurons[1].theta, 2).reshape(1, -1)
            three = neurons[2](linear(b, network.third.weight, on * network.third.bias))
            logits.append(linear(three * neurons[2].theta, network.last.weight, on * network.last.bias))
            spikes.append(sum(int((fired != 0).sum()) for fired in (one, two, three)))
    shape = (len(images), time_steps)
    return torch.cat(logits).detach().view(*shape, -1), torch.tensor(spikes).view(shape)


def run(snn: SpikingNetwork, images: Tensor, time_steps: int = TIME_STEPS) -> tuple[Tensor, Tensor, State]:
    """Logits (N, T, C), spikes (N, T) and the last state."""
    logits, spikes = [], []
    state: State | None = None
    with torch.inference_mode():
        drive = snn.drive(images)
        for time_step in range(1, time_steps + 1):
            step = snn.step(drive, state, time_step)
            state = step.state
            logits.append(step.logits)
            spikes.append(step.spikes)
    assert state is not None
    return torch.stack(logits, 1), torch.stack(spikes, 1), state


def images(count: int = 6, seed: int = 1) -> Tensor:
    return torch.randn(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("method", METHODS)
def test_equals_a_plain_implementation(method: str, seed: int) -> None:
    network = Small(method, seed)
    logits, spikes, _ = run(convert(network), images())
    expected_logits, expected_spikes = plain(network, images(), TIME_STEPS, method)
    torch.testing.assert_close(logits, expected_logits, rtol=0, atol=1e-11)
    assert torch.equal(spikes, expected_spikes)
    assert int(spikes.sum()) > 500 and len(spikes.unique()) > 10
    if method == "qffs":
        assert all(set(layer.net.unique().tolist()) <= {0, 1, 2, 3} for layer in run(convert(network), images())[2].values())  # type: ignore[union-attr]


def test_spike_counts_by_hand() -> None:
    """One unit a layer, identity weights: a current of 0.6 at theta 1 fires at steps 1, 3, 5, 6, 8."""
    first, second = (nn.Conv2d(1, 1, 1, bias=False) for _ in range(2))
    make = activation("qcfs", levels=4, bits=None, initial_threshold=1.0)
    network = nn.Sequential(first, make(), second, make(), nn.Flatten(), nn.Linear(1, 1)).double()
    with torch.no_grad():
        first.weight.fill_(1.0)
        second.weight.fill_(0.5)
        network[5].weight.fill_(2.0)  # type: ignore[operator, union-attr]
        network[5].bias.fill_(0.25)  # type: ignore[operator, union-attr]
    logits, spikes, _ = run(convert(network), torch.tensor([0.6, 0.0, 5.0], dtype=torch.float64).view(3, 1, 1, 1), 8)
    # Sample 0: V = 1.1* 0.7 1.3* 0.9 1.5* 1.1* 0.7 1.3*  -> fires at 1, 3, 5, 6, 8; the next layer gets half a threshold
    # each time: 0.5 + 0.5 = 1 fires at once, then at every second spike: 1, 5, 8.
    assert spikes[0].tolist() == [2, 0, 1, 0, 2, 1, 0, 2]
    assert logits[0, :, 0].tolist() == [2.25, 0.25, 0.25, 0.25, 2.25, 0.25, 0.25, 2.25]
    assert spikes[1].tolist() == [0] * 8
    assert spikes[2].tolist() == [2, 1, 2, 1, 2, 1, 2, 1]


def test_negative_spikes_count_one() -> None:
    """A layer that fires at step 1 and takes it back at step 2 has emitted two spikes."""
    network = Small("qffs")
    snn = convert(network)
    drive = snn.drive(images(2))
    first = snn.step(drive, None, 1)
    reverse = Drive({node: -3 * value for node, value in drive.active.items()}, drive.silent)
    second = snn.step(reverse, first.state, 2)
    counted = torch.zeros(2, dtype=torch.int64)
    for name, layer in second.state.items():
        before = first.state[name]
        assert isinstance(layer, signed.State) and isinstance(before, signed.State)
        counted += (layer.net - before.net).abs().flatten(1).sum(1).long()
    assert any(bool((layer.net < first.state[name].net).any()) for name, layer in second.state.items())  # type: ignore[union-attr]
    assert torch.equal(second.spikes, counted)


@pytest.mark.parametrize("method", METHODS)
def test_finished_samples_can_be_left_out(method: str) -> None:
    """state[keep] goes on as if the others were still there; the old state still serves."""
    snn = convert(Small(method))
    batch = images(7)
    logits, spikes, _ = run(snn, batch)
    keep = torch.tensor([5, 0, 3])
    with torch.inference_mode():
        drive, state = snn.drive(batch), None
        for time_step in range(1, 3):
            state = snn.step(drive, state, time_step).state
        assert state is not None
        held = {name: [tensor.clone() for tensor in layer] for name, layer in state.items()}
        fewer = {name: type(layer)(*(tensor[keep] for tensor in layer)) for name, layer in state.items()}
        part = Drive(*({node: value[keep] for node, value in values.items()} for values in (drive.active, drive.silent)))
        ongoing: State = fewer
        for time_step in range(3, TIME_STEPS + 1):
            step = snn.step(part, ongoing, time_step)
            ongoing = step.state
            torch.testing.assert_close(step.logits, logits[keep, time_step - 1], rtol=0, atol=1e-12)
            assert torch.equal(step.spikes, spikes[keep, time_step - 1])
    for name, layer in state.items():
        assert all(torch.equal(tensor, before) for tensor, before in zip(layer, held[name], strict=True))
        assert all(len(tensor) == 7 for tensor in layer), "the batch comes first"


@pytest.mark.parametrize("method", METHODS)
def test_step_is_a_function_of_its_arguments(method: str) -> None:
    """The same drive, state and time step give the same outcome, whatever was run between."""
    snn = convert(Small(method))
    with torch.inference_mode():
        drive = snn.drive(images(3))
        before = snn.step(drive, None, 1)
        once = snn.step(drive, before.state, 2)
        run(snn, images(5, seed=9))
        again = snn.step(drive, before.state, 2)
    assert torch.equal(once.logits, again.logits) and torch.equal(once.spikes, again.spikes)


def test_thresholds_are_read_anew() -> None:
    """After a change of type and after loading a state dict, which both replace the thresholds."""
    snn, other = convert(Small("qcfs", 0)), convert(Small("qcfs", 0))
    with torch.no_grad():
        for layer in other.layers().values():
            layer.threshold.mul_(2)
    run(snn, images(2), 2)
    snn.load_state_dict(other.state_dict())
    torch.testing.assert_close(run(snn, images(2))[0], run(other, images(2))[0])
    logits, _, state = run(snn.float(), images(2).float(), 2)
    assert logits.dtype == torch.float32
    assert all(
        isinstance(layer, integrate_and_fire.State) and layer.potential.dtype == torch.float32 for layer in state.values()
    )


# Traces

NORMALISATION = Normalisation((0.4, 0.5, 0.6), (0.2, 0.3, 0.25))


def pictures(count: int) -> TensorImages:
    generator = torch.Generator().manual_seed(4)
    pixels = torch.randint(0, 256, (count, 3, 16, 16), generator=generator, dtype=torch.uint8)
    return TensorImages(pixels, torch.randint(0, 10, (count,), generator=generator), 10, NORMALISATION)


def small_resnet(method: str) -> nn.Module:
    make = activation(method, levels=4, bits=2, initial_threshold=1.0)
    return build("resnet18", "cifar", classes=10, resolution=16, width=1 / 16, activation=make, seed=0).eval()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("batch_size", [1, 4, 5, 11, 64])
def test_collect(method: str, batch_size: int, tmp_path: Path) -> None:
    """The traces folder holds what a plain loop over the same batches gives, to the bit, the last batch short or not."""
    ann = small_resnet(method)
    data, told = pictures(11), []
    collect(
        convert(ann),
        ann,
        data,
        6,
        tmp_path,
        device=torch.device("cpu"),
        batch_size=batch_size,
        facts={"network": "toy", "split": "test", "trained_on_calibration": False},
        progress=lambda done, total, text: told.append((done, total, text)),
    )
    traces = Traces.load(tmp_path)
    batch = NORMALISATION(data.pixels)
    runs = [run(convert(ann), part, 6) for part in batch.split(batch_size)]
    logits, spikes = (torch.cat([outcome[which] for outcome in runs]) for which in (0, 1))
    state = runs[0][2]
    assert traces.logits.dtype == np.float32 and traces.logits.shape == (11, 6, 10)
    np.testing.assert_array_equal(traces.labels, data.labels.numpy())
    assert traces.spikes is not None and traces.ann_logits is not None
    assert int(traces.spikes.sum()) > 0
    np.testing.assert_array_equal(traces.logits, logits.numpy())
    np.testing.assert_array_equal(traces.spikes, spikes.numpy())
    with torch.inference_mode():
        np.testing.assert_allclose(traces.ann_logits, ann(batch).numpy(), rtol=0, atol=1e-5)
    layers = traces.meta["layers"]
    assert layers == {name: layer.potential[0].numel() for name, layer in state.items()} and len(layers) == 17
    assert traces.meta["neurons"] == sum(layers.values())
    assert (traces.meta["network"], traces.meta["trained_on_calibration"]) == ("toy", False)
    batches = -(-11 // batch_size)
    assert [entry[:2] for entry in told] == [(number + 1, batches) for number in range(batches)]
    assert told[-1][2] == "11 of 11 images"


def test_collect_neurons_by_hand(tmp_path: Path) -> None:
    """ResNet-18 at 4, 8, 16, 32 channels on 16 px: 5 layers of 4 x 256, then 4 each of 8 x 64, 16 x 16, 32 x 4."""
    ann = small_resnet("qcfs")
    collect(convert(ann), ann, pictures(1), 1, tmp_path, device=torch.device("cpu"), batch_size=1, facts={})
    assert Traces.load(tmp_path).meta["neurons"] == 5 * 1024 + 4 * (512 + 256 + 128)


def test_collect_stops_where_progress_raises(tmp_path: Path) -> None:
    ann = small_resnet("qcfs")

    def cancel(*given: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect(
            convert(ann), ann, pictures(4), 1, tmp_path, device=torch.device("cpu"), batch_size=2, facts={}, progress=cancel
        )
