"""Conversion: folding, what is refused, and that a settled or long-run SNN equals the network it came from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dynconf_core.activations.factory import activation
from dynconf_core.activations.lsq import LSQ
from dynconf_core.activations.qcfs import QCFS
from dynconf_core.conversion.convert import convert
from dynconf_core.conversion.file import load_snn, save_snn
from dynconf_core.conversion.graph import folded
from dynconf_core.errors import InputError
from dynconf_core.networks.build import build
from dynconf_core.networks.description import described
from dynconf_core.neurons import signed
from dynconf_core.simulation.network import State
from dynconf_core.training.checkpoint import save_checkpoint, write_atomically
from dynconf_core.training.loop import _initialise_steps

NETWORKS = ("vgg16", "resnet18", "resnet50")


def disturbed(network: nn.Module, seed: int) -> nn.Module:
    """Batch statistics and affine parameters as after some training, none of them trivial."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            with torch.no_grad():
                module.running_mean.copy_(0.3 * torch.randn(module.num_features, generator=generator))
                module.running_var.copy_(0.5 + torch.rand(module.num_features, generator=generator))
                module.weight.copy_(0.5 + torch.rand(module.num_features, generator=generator))
                module.bias.copy_(0.3 * torch.randn(module.num_features, generator=generator))
    return network


def random_network(architecture: str, method: str, *, stem: str = "cifar", seed: int = 0, resolution: int = 32) -> nn.Module:
    """A float64 network in evaluation mode, its weights random, its LSQ steps set from a batch."""
    make = activation(method, levels=4, bits=2, initial_threshold=2.0)
    network = build(architecture, stem, classes=10, resolution=resolution, width=1 / 16, activation=make, seed=seed)
    network = disturbed(network.double(), seed)
    _initialise_steps(network, images(4, resolution, seed=seed + 50))
    return disturbed(network, seed).eval()


def images(count: int, resolution: int = 32, seed: int = 7) -> Tensor:
    return torch.randn(count, 3, resolution, resolution, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# Folding


@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
@pytest.mark.parametrize("architecture", NETWORKS)
def test_folding_changes_nothing(architecture: str, stem: str) -> None:
    """In float64, once with the quantisers and once with a smooth function, which shows every digit."""
    network = random_network(architecture, "qcfs", stem=stem)
    with torch.inference_mode():
        plain, graph = network(images(3)), folded(network)
        torch.testing.assert_close(graph(images(3)), plain, rtol=0, atol=1e-10)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in graph.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in network.modules()), "the network itself stays"

    smooth = disturbed(
        build(architecture, stem, classes=10, resolution=32, width=1 / 16, activation=nn.Tanh, seed=1).double(), 1
    )
    with torch.inference_mode():
        expected = smooth.eval()(images(3))
        for name, module in list(smooth.named_modules()):
            if isinstance(module, nn.Tanh):
                smooth.set_submodule(name, TanhQCFS())
        torch.testing.assert_close(folded(smooth)(images(3)), expected, rtol=0, atol=1e-10)
    assert expected.std() > 1e-3


class TanhQCFS(QCFS):
    """A smooth function that passes for a known activation."""

    def __init__(self) -> None:
        super().__init__(4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x)


def test_folding_by_hand() -> None:
    """w' = w gamma / sqrt(var + eps), b' = (b - mean) gamma / sqrt(var + eps) + beta."""
    convolution, norm = nn.Conv2d(1, 1, 1).double(), nn.BatchNorm2d(1, eps=0.25).double()
    with torch.no_grad():
        convolution.weight.fill_(3.0)
        assert convolution.bias is not None and norm.running_mean is not None and norm.running_var is not None
        convolution.bias.fill_(1.0)
        norm.weight.fill_(4.0)
        norm.bias.fill_(-2.0)
        norm.running_mean.fill_(0.5)
        norm.running_var.fill_(3.75)
    graph = folded(nn.Sequential(convolution, norm, QCFS(4)).eval())
    (fused,) = (module for module in graph.modules() if isinstance(module, nn.Conv2d))
    assert fused.bias is not None
    assert (fused.weight.item(), fused.bias.item()) == (6.0, -1.0)


# What is refused


class Joined(nn.Module):
    """Applies a function that conversion may not know."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.activation, self.function = nn.Conv2d(3, 4, 3), QCFS(4), function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.activation(self.first(x)))


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (nn.Sequential(nn.Conv2d(3, 4, 3), QCFS(4), nn.MaxPool2d(2)), "MaxPool2d at '_2' cannot be converted"),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU()), "GELU at '_1' cannot be converted"),
        (nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), QCFS(4)), "ReLU at '_0_1' cannot be converted"),
        (nn.Sequential(nn.BatchNorm2d(3), QCFS(4)), "0 is a batch normalisation that follows no convolution"),
        (nn.Sequential(nn.Conv2d(3, 4, 3), QCFS(4), nn.BatchNorm2d(4)), "2 is a batch normalisation that follows no"),
        (Joined(lambda x: x * 2), "mul at 'mul' cannot be converted"),
        (Joined(lambda x: x + 0.5), "add at 'add' cannot be converted"),
        (Joined(torch.relu), "relu at 'relu' cannot be converted"),
        (Joined(lambda x: x.mean((2, 3))), "mean at 'mean' cannot be converted"),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()), "activations are none: all QCFS, or all LSQ"),
        (nn.Sequential(nn.Conv2d(3, 4, 3), QCFS(4), nn.Conv2d(4, 4, 3), LSQ(2)), r"LSQ\(bits=2\).*QCFS\(levels=4\)"),
        (nn.Sequential(nn.Conv2d(3, 4, 3), LSQ(2), nn.Conv2d(4, 4, 3), LSQ(3)), r"LSQ\(bits=2\).*LSQ\(bits=3\)"),
    ],
)
def test_refuses(network: nn.Module, words: str) -> None:
    with pytest.raises(InputError, match=words):
        convert(network)


def test_refuses_a_normalisation_of_a_convolution_that_is_read_twice() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution, self.norm, self.activation = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), QCFS(4)

        def forward(self, x: Tensor) -> Tensor:
            y = self.convolution(x)
            result: Tensor = self.activation(self.norm(y) + y)
            return result

    with pytest.raises(InputError, match="norm is a batch normalisation that follows no convolution of its own"):
        convert(Twice())


def test_refuses_a_convolution_of_two_normalisations() -> None:
    """The weights of one place, folded, would serve at the other."""
    convolution = nn.Conv2d(3, 3, 3, padding=1)
    network = nn.Sequential(convolution, nn.BatchNorm2d(3), QCFS(4), convolution, nn.BatchNorm2d(3), QCFS(4))
    with pytest.raises(InputError, match="1 is a batch normalisation that follows no convolution of its own"):
        convert(network)


@pytest.mark.parametrize("threshold", [0.0, -1.0, float("nan"), float("inf")])
def test_refuses_thresholds_that_never_or_always_fire(threshold: float) -> None:
    layer = QCFS(4)
    with torch.no_grad():
        layer.threshold.fill_(threshold)
    with pytest.raises(InputError, match="1 has the threshold"):
        convert(nn.Sequential(nn.Conv2d(3, 4, 3), layer))


def test_thresholds() -> None:
    """theta = lambda for QCFS, n s for LSQ; the input acts for ever or for n steps."""
    quantised = random_network("resnet18", "qffs")
    snn = convert(quantised)
    steps = [module.step.item() for module in quantised.modules() if isinstance(module, LSQ)]
    assert sorted(float(layer.threshold) for layer in snn.layers().values()) == sorted(3 * step for step in steps)
    assert {layer.top for layer in snn.layers().values()} == {3} and snn.active_steps == 3
    snn = convert(random_network("resnet18", "qcfs"))
    assert {float(layer.threshold) for layer in snn.layers().values()} == {2.0}
    assert {layer.top for layer in snn.layers().values()} == {None} and snn.active_steps is None
    assert len(snn.layers()) == 17


# QFFS: the settled network is the quantised one


def quantised(network: nn.Module, batch: Tensor) -> tuple[Tensor, dict[str, Tensor], dict[str, float]]:
    """Logits of the folded ANN, every layer's LSQ activations and steps, by the name of the node."""
    graph = folded(network)
    names = {str(node.target): node.name for node in graph.graph.nodes if node.op == "call_module"}
    seen: dict[str, Tensor] = {}
    steps: dict[str, float] = {}

    def keep(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        return lambda module, inputs, output: seen.__setitem__(name, output.clone())

    for target, module in graph.named_modules():
        if isinstance(module, LSQ):
            module.register_forward_hook(keep(names[target]))
            steps[names[target]] = module.step.item()
    with torch.inference_mode():
        return graph(batch), seen, steps


def settled(network: nn.Module, batch: Tensor) -> tuple[Tensor, State, int]:
    """z_T, the state and T once a step from n on has passed without a spike."""
    snn = convert(network)
    assert snn.active_steps is not None
    with torch.inference_mode():
        drive, state, total = snn.drive(batch), None, torch.zeros(())
        for time_step in range(1, snn.active_steps * (len(snn.layers()) + 2)):
            step = snn.step(drive, state, time_step)
            state, total = step.state, total + step.logits
            if time_step > snn.active_steps and int(step.spikes.sum()) == 0:
                return total, state, time_step
    raise AssertionError("the network never settled")


@pytest.mark.parametrize(
    ("architecture", "stem", "seed"),
    [
        ("vgg16", "cifar", 0),
        ("vgg16", "cifar", 1),
        ("resnet18", "cifar", 0),
        ("resnet18", "imagenet", 1),
        ("resnet50", "imagenet", 0),
    ],
)
def test_settled_network_equals_the_quantised_one(architecture: str, stem: str, seed: int) -> None:
    """Every layer's net spike count times s is its LSQ activation, and z_T / n are the logits."""
    network = random_network(architecture, "qffs", stem=stem, seed=seed)
    batch = images(3)
    logits, activations, steps = quantised(network, batch)
    total, state, _ = settled(network, batch)
    assert set(state) == set(activations) and len(activations) == sum(isinstance(m, LSQ) for m in network.modules())
    used = set()
    for name, expected in activations.items():
        layer = state[name]
        assert isinstance(layer, signed.State)
        assert torch.equal(layer.net * steps[name], expected), name
        used |= set(layer.net.unique().tolist())
    assert used == {0, 1, 2, 3}, "all levels occur, or the test shows little"
    torch.testing.assert_close(total / 3, logits, rtol=0, atol=1e-9)


def test_settling_needs_negative_spikes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above has teeth: neurons that never take a spike back settle somewhere else."""

    def positive_only(current: Tensor, state: signed.State, parameters: signed.Parameters) -> tuple[Tensor, signed.State]:
        potential = state.potential + current
        spikes = ((potential >= parameters.threshold) & (state.net < parameters.top)).to(potential.dtype)
        return spikes, signed.State(potential - parameters.threshold * spikes, state.net + spikes)

    network, batch = random_network("resnet18", "qffs"), images(3)
    logits, activations, steps = quantised(network, batch)
    monkeypatch.setattr(signed, "step", positive_only)
    total, state, _ = settled(network, batch)
    wrong = []
    for name, expected in activations.items():
        layer = state[name]
        assert isinstance(layer, signed.State)
        wrong.append(float((layer.net * steps[name] != expected).double().mean()))
    assert max(wrong) > 0.1
    assert float((total / 3 - logits).abs().max()) > 1e-3


def test_biases_that_never_stop_would_not_settle() -> None:
    """The gate matters: with the input on in all steps the running logits do not come to rest at n times the ANN's."""
    network, batch = random_network("vgg16", "qffs"), images(2)
    logits, _, _ = quantised(network, batch)
    _, _, steps = settled(network, batch)
    snn = convert(network)
    snn.active_steps = None
    total = torch.zeros(())
    with torch.inference_mode():
        drive, state = snn.drive(batch), None
        for time_step in range(1, steps + 1):
            step = snn.step(drive, state, time_step)
            state, total = step.state, total + step.logits
    assert float((total / 3 - logits).abs().max()) > 1e-2


# QCFS: the long-run mean is the network without its floor


class Clip(nn.Module):
    """What an integrate-and-fire neuron's mean output approaches."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(0, self.threshold)


@pytest.mark.parametrize(("architecture", "resolution"), [("resnet18", 16), ("vgg16", 32)])
def test_mean_logits_approach_the_network_without_floor(architecture: str, resolution: int) -> None:
    """The error falls like 1/T: it is bounded by what the membranes hold back, a constant, over T."""
    network, batch = random_network(architecture, "qcfs", resolution=resolution), images(2, resolution)
    clipped = folded(network)
    for target, module in list(clipped.named_modules()):
        if isinstance(module, QCFS):
            clipped.set_submodule(target, Clip(module.threshold.item()))
    snn = convert(network)
    errors = {}
    with torch.inference_mode():
        expected = clipped(batch)
        drive, state, total = snn.drive(batch), None, torch.zeros(())
        for time_step in range(1, 513):
            step = snn.step(drive, state, time_step)
            state, total = step.state, total + step.logits
            if time_step in (8, 32, 128, 512):
                errors[time_step] = float((total / time_step - expected).abs().mean())
    assert expected.std() > 0.1
    assert errors[8] > errors[32] > errors[128] > errors[512]
    assert errors[512] < errors[8] / 16, "1/T would be 64 times less"
    assert errors[512] * 512 < 4 * errors[128] * 128


# The file


DESCRIPTION = {
    "architecture": "resnet18",
    "stem": "cifar",
    "classes": 10,
    "resolution": 16,
    "width": 1 / 16,
    "method": "qffs",
    "levels": None,
    "bits": 2,
}


@pytest.mark.parametrize("method", ["qcfs", "qffs"])
def test_file_round_trip(method: str, tmp_path: Any) -> None:
    description = {**DESCRIPTION, "method": method, "levels": 4}
    network = disturbed(described(description, seed=3), 3)
    _initialise_steps(network, images(4, 16).float())
    snn = convert(disturbed(network, 3).eval())
    save_snn(snn, description, tmp_path / "snn.pt")
    loaded = load_snn(tmp_path / "snn.pt")
    assert loaded.active_steps == snn.active_steps
    assert list(loaded.layers()) == list(snn.layers())
    batch, states = images(2, 16).float(), [None, None]
    spikes = 0
    with torch.inference_mode():
        for time_step in range(1, 6):
            steps = [which.step(which.drive(batch), states[i], time_step) for i, which in enumerate((snn, loaded))]
            assert torch.equal(steps[0].logits, steps[1].logits) and torch.equal(steps[0].spikes, steps[1].spikes)
            states = [step.state for step in steps]  # type: ignore[misc]
            spikes += int(steps[0].spikes.sum())
    assert spikes > 0


def test_files_that_are_no_network(tmp_path: Any) -> None:
    path = tmp_path / "snn.pt"
    with pytest.raises(InputError, match="does not exist"):
        load_snn(path)
    path.write_bytes(b"no checkpoint at all")
    with pytest.raises(InputError, match="cannot be read"):
        load_snn(path)
    save_checkpoint(described(DESCRIPTION, seed=0), {}, path)
    with pytest.raises(InputError, match="holds no converted network"):
        load_snn(path)
    snn = convert(described(DESCRIPTION, seed=0))
    save_snn(snn, {**DESCRIPTION, "width": 1 / 8}, path)
    with pytest.raises(InputError, match="does not fit its own description"):
        load_snn(path)
    write_atomically({"network": DESCRIPTION, "state_dict": {}}, path)
    with pytest.raises(InputError, match="does not fit its own description"):
        load_snn(path)
