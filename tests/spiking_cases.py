"""Random networks of every shape that conversion knows, and a second implementation of what their SNNs do.

The weights of a ``RandomNetwork`` are small whole numbers times powers of two, its thresholds powers of two (times n), so that
every number of the ANN and of the SNN is exact in float32, rounding or not: two implementations must agree to the bit.
"""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from dynconf_core.activations.lsq import LSQ
from dynconf_core.activations.qcfs import QCFS
from dynconf_core.graph.graph import Node
from dynconf_core.graph.operations import evaluate
from dynconf_core.simulation.network import SpikingNetwork, State
from dynconf_core.training.loop import _initialise_steps

SIDE = 8
CLASSES = 5
BLOCKS = ("plain", "depthwise", "residual", "option_a", "projection", "concatenate", "max_pool", "average_pool", "slices")
ANALOGUE_BLOCKS = ("normalised", "bottleneck")
"""Blocks in which values that are no spikes meet weights."""


def dyadic_images(count: int, seed: int, side: int = SIDE) -> Tensor:
    """Multiples of 1/16 in [-2, 2]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-32, 33, (count, 3, side, side), generator=generator).float() / 16


def gaussian_images(count: int, seed: int, side: int = SIDE) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


class RandomNetwork(nn.Module):
    """A network drawn by ``seed``: a stem, some blocks, a head.

    Args:
        seed: of everything.
        method: "qcfs", "qffs" or "relu".
        bits: of LSQ.
        dyadic: whether its numbers are exact in binary; else they are normally distributed.
        blocks: which are drawn from.
    """

    def __init__(self, seed: int, method: str, bits: int = 2, dyadic: bool = True, blocks: tuple[str, ...] = BLOCKS) -> None:
        super().__init__()
        self.draw, self.method, self.bits = random.Random(seed), method, bits
        self.top = 2**bits - 1 if method == "qffs" else 1
        self.kinds: list[str] = []
        self.parts = nn.ModuleList()
        channels, side = self.draw.choice((2, 3, 4)), SIDE
        self.stem = self._weights(3, channels, 3)
        self.stem_activation = self._activation()
        for _ in range(self.draw.randint(1, 4)):
            kind = self.draw.choice(blocks)
            if side <= 2 and kind in ("option_a", "max_pool", "average_pool"):
                kind = "plain"
            made, channels, side = getattr(self, f"_{kind}")(channels, side)
            self.kinds.append(kind)
            self.parts.append(nn.ModuleDict(made))
        self.pool = nn.AdaptiveAvgPool2d(1) if self.draw.random() < 0.5 else nn.Identity()
        features = channels if isinstance(self.pool, nn.AdaptiveAvgPool2d) else channels * side * side
        hidden = self.draw.choice((0, 6))
        self.hidden = nn.Sequential(nn.Linear(features, hidden), self._activation()) if hidden else nn.Identity()
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(hidden or features, CLASSES, bias=self.draw.random() < 0.8)
        self._fill(dyadic)
        self.eval()
        self._set_thresholds(dyadic_images(4, seed), dyadic)

    # Parts

    def _activation(self) -> nn.Module:
        if self.method == "relu":
            return nn.ReLU()
        return QCFS(4, 1.0) if self.method == "qcfs" else LSQ(self.bits)

    def _weights(self, inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
        normalised = self.draw.random() < 0.5
        layer = nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=not normalised)
        return nn.Sequential(layer, nn.BatchNorm2d(outputs, eps=0.0)) if normalised else nn.Sequential(layer)

    def _plain(self, channels: int, side: int) -> tuple[dict[str, nn.Module], int, int]:
        stride = self.draw.choice((1, 2)) if side > 2 else 1
        outputs = self.draw.choice((2, 4, 6))
        return {"a": self._weights(channels, outputs, 3, stride), "fire": self._activation()}, outputs, side // stride

    def _depthwise(self, channels: int, side: int) -> tuple[dict[str, nn.Module], int, int]:
        made = {"a": self._weights(channels, 2 * channels, 3, groups=channels), "fire": self._activation()}
        return made, 2 * channels, side

    def _residual(self, channels: int, side: int) -> tuple[dict[str, nn.Module], int, int]:
        made = {"a": self._weights(channels, 4, 3), "inner": self._activation(), "b": self._weights(4, channels, 3)}
        return {**made, "fire": self._activation()}, channels, side

    def _option_a(self, channels: int, side: int) -> tuple[dict[str, nn.Module], int, int]:
        return {"a": self._weights(channels, channels + 3, 3, 2), "fire": self._activation()}, channels + 3, side // 2

    def _projection(self, channels: int, side: int) -> tuple[dict[str, nn.Module], int, int]:
        made = {"a": self._weights(channels, 4, 3), "b": self._weights(channels, 4, 1), "fire": self._activation()}
        return made, 4, side

    def _concatenate(self, channels: int, side: int) -> tuple[dict[str, nn.Module], int, int]:
        made = {"a": self._weights(channels, 3, 1), "fire_a": self._activation(), "pool": nn.MaxPool2d(3, 1, 1)}
        return {**made, "b": self._weights(channels, 2, 1), "fire_b": self._activation()}, 5 + channels, side

    def _max_pool(self, channels: int, side: int) -> tuple[dict[str, nn.Module], int, int]:
        pool = self.draw.choice((nn.MaxPool2d(2), nn.MaxPool2d(3, 2, 1), nn.MaxPool2d(3, 2, ceil_mode=True)))
        return {"pool": pool}, channels, side // 2

    def _average_pool(self, channels: int, side: int) -> tuple[dict[str, nn.Module], int, int]:
        pool = self.draw.choice((nn.AvgPool2d(2), nn.AvgPool2d(4, 2, 1), nn.AvgPool2d((2, 1), 2)))
        return {"pool": pool}, channels, side // 2

    def _slices(self, channels: int, side: int) -> tuple[dict[str, nn.Module], int, int]:
        """Activations that read views of one value, one of them in place in a plain network."""
        made = {"a": self._weights(channels, 4, 3), "fire_a": self._activation(), "fire_b": self._activation()}
        return made, 4, side

    def _normalised(self, channels: int, side: int) -> tuple[dict[str, nn.Module], int, int]:
        made = {"norm": nn.BatchNorm2d(channels, eps=0.0), "a": self._weights(channels, 4, 3), "fire": self._activation()}
        return made, 4, side

    def _bottleneck(self, channels: int, side: int) -> tuple[dict[str, nn.Module], int, int]:
        made = {"a": self._weights(channels, 2, 1), "b": self._weights(2, 2, 3), "c": self._weights(2, 4, 1)}
        return {**made, "inner": self._activation(), "d": self._weights(2, 2, 1), "fire": self._activation()}, 4, side

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(N, C)`` of images ``(N, 3, 8, 8)``."""
        x = self.stem_activation(self.stem(x))
        for kind, part in zip(self.kinds, self.parts, strict=True):
            x = _through(kind, part, x)
        x = torch.flatten(self.pool(x), 1)
        result: Tensor = self.head(self.dropout(self.hidden(x)))
        return result

    # Numbers

    @torch.no_grad()
    def _fill(self, dyadic: bool) -> None:
        generator = torch.Generator().manual_seed(self.draw.randrange(2**30))

        def numbers(like: Tensor, scale: float) -> Tensor:
            if dyadic:
                return torch.randint(-3, 4, like.shape, generator=generator) * 2.0 ** round(math.log2(scale / 2))
            return scale * torch.randn(like.shape, generator=generator)

        def choice(like: Tensor, values: tuple[float, ...]) -> Tensor:
            return torch.tensor(values)[torch.randint(0, len(values), like.shape, generator=generator)]

        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                weight = numbers(module.weight, 1.5 / math.sqrt(module.weight[0].numel()))
                # The image and the biases meet thresholds of n steps: multiples of n stay exact.
                module.weight.copy_(weight * (self.top if module is self.stem[0] else 1))
                if module.bias is not None:
                    module.bias.copy_(self.top * numbers(module.bias, 0.25))
            elif isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None and module.running_var is not None
                module.running_mean.copy_(self.top * numbers(module.running_mean, 0.25))
                module.running_var.copy_(choice(module.running_var, (0.25, 1.0, 4.0)))
                module.weight.copy_(choice(module.weight, (0.5, 1.0, 2.0, -1.0)))
                module.bias.copy_(self.top * numbers(module.bias, 0.25))

    @torch.no_grad()
    def _set_thresholds(self, batch: Tensor, dyadic: bool) -> None:
        def fit(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            size = max(2 * float(inputs[0].abs().mean()) / math.sqrt(self.top), 2**-4)
            value = 2.0 ** round(math.log2(size)) if dyadic else size
            (module.step if isinstance(module, LSQ) else module.threshold).fill_(value)  # type: ignore[union-attr, operator]

        hooks = [module.register_forward_pre_hook(fit) for module in self.modules() if isinstance(module, LSQ | QCFS)]
        self(batch)
        for hook in hooks:
            hook.remove()


def _through(kind: str, part: nn.Module, x: Tensor) -> Tensor:
    get = part.__getitem__  # type: ignore[operator]
    if kind in ("plain", "depthwise"):
        return get("fire")(get("a")(x))
    if kind == "residual":
        return get("fire")(get("b")(get("inner")(get("a")(x))) + x)
    if kind == "option_a":
        return get("fire")(get("a")(x) + pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 2)))
    if kind == "projection":
        return get("fire")(get("a")(x) + get("b")(x))
    if kind == "concatenate":
        return torch.cat([get("fire_a")(get("a")(x)), x, get("fire_b")(get("b")(get("pool")(x)))], 1)
    if kind in ("max_pool", "average_pool"):
        return get("pool")(x)
    if kind == "slices":
        both = get("a")(x)
        return torch.cat([get("fire_b")(both[:, 2:]), get("fire_a")(both[:, :2])], 1)
    if kind == "normalised":
        return get("fire")(get("a")(get("norm")(x)))
    assert kind == "bottleneck"
    narrow = get("a")(x)
    return get("fire")(get("c")(narrow + get("d")(get("inner")(get("b")(narrow)))))


# A second implementation: the network itself, its activations replaced by neurons, run once a time step in float64


class PlainNeuron(nn.Module):
    """One layer in the units of the ANN, from the equations and from nothing of the product."""

    def __init__(self, theta: float, top: int | None) -> None:
        super().__init__()
        self.theta, self.top = theta, top
        self.potential: Tensor | None = None
        self.count: Tensor | None = None
        self.inputs: list[Tensor] = []
        self.spikes: list[Tensor] = []

    def forward(self, current: Tensor) -> Tensor:
        if self.potential is None or self.count is None:
            self.potential, self.count = torch.zeros_like(current) + self.theta / 2, torch.zeros_like(current)
        self.potential = self.potential + current
        if self.top is None:
            fired = torch.where(self.potential >= self.theta, 1.0, 0.0).to(current)
        else:
            up = (self.potential >= self.theta) & (self.count < self.top)
            down = (self.potential < 0) & (self.count > 0)
            fired = torch.where(up, 1.0, torch.where(down, -1.0, 0.0)).to(current)
        self.potential = self.potential - self.theta * fired
        self.count = self.count + fired
        self.inputs.append(current.clone())
        self.spikes.append(fired)
        return self.theta * fired


class PlainMaxPool(nn.Module):
    """Sends by how much the maximum of the running sums has changed."""

    def __init__(self, pool: nn.MaxPool2d) -> None:
        super().__init__()
        self.pool = pool
        self.total: Tensor | float = 0.0
        self.sent: Tensor | float = 0.0

    def forward(self, x: Tensor) -> Tensor:
        self.total = self.total + x
        before, self.sent = self.sent, self.pool(self.total)
        change: Tensor = self.sent - before
        return change


@torch.no_grad()
def plain_simulation(network: nn.Module, images: Tensor, time_steps: int) -> tuple[Tensor, dict[str, PlainNeuron]]:
    """Logits ``(N, T, C)`` float64, and the neurons by the activations' names."""
    spiking = copy.deepcopy(network).double()
    neurons: dict[str, PlainNeuron] = {}
    active = time_steps
    for name, module in list(spiking.named_modules()):
        if isinstance(module, QCFS):
            neurons[name] = PlainNeuron(float(module.threshold), None)
        elif isinstance(module, LSQ):
            neurons[name], active = PlainNeuron(module.top * float(module.step), module.top), module.top
        elif isinstance(module, nn.MaxPool2d):
            spiking.set_submodule(name, PlainMaxPool(module))
        if name in neurons:
            spiking.set_submodule(name, neurons[name])
    logits = []
    for time_step in range(1, time_steps + 1):
        if time_step == active + 1:
            for module in spiking.modules():
                if isinstance(module, nn.BatchNorm2d):
                    assert module.running_mean is not None
                    module.running_mean.zero_()
                if isinstance(getattr(module, "bias", None), Tensor):
                    module.bias.zero_()  # type: ignore[union-attr, operator]
        logits.append(spiking(images.double() * (time_step <= active)))
    return torch.stack(logits, 1), neurons


# The product's SNN, run: as it is, and its graph in float64


@torch.no_grad()
def simulated(snn: SpikingNetwork, images: Tensor, time_steps: int) -> tuple[Tensor, dict[str, Tensor], State]:
    """Logits ``(N, T, C)``, spikes ``(N, T, ...)`` by layer (max pools too), and the last state."""
    seen: dict[str, list[Tensor]] = {}

    def look(node: Node, spikes: Tensor) -> None:
        seen.setdefault(node.name, []).append(spikes.clone())

    drive, state, logits = snn.drive(images), None, []
    for time_step in range(1, time_steps + 1):
        step = snn.step(drive, state, time_step, look)
        state = step.state
        logits.append(step.logits.clone())
    assert state is not None
    return torch.stack(logits, 1), {name: torch.stack(steps, 1) for name, steps in seen.items()}, state


@torch.no_grad()
def in_float64(snn: SpikingNetwork, images: Tensor, time_steps: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits ``(N, T, C)`` and the largest value of every node, computed in float64 by a loop of its own."""
    potentials: dict[str, Tensor] = {}
    counts: dict[str, Tensor] = {}
    largest: dict[str, Tensor] = {}
    logits = []
    drive = {node.name for node in snn.graph.nodes} - snn.graph.after(("neurons",))
    for time_step in range(1, time_steps + 1):
        values: dict[str, Tensor] = {}
        acting = snn.active_steps is None or time_step <= snn.active_steps
        for node in snn.graph.nodes:
            own = {key: value.double() for key, value in snn.tensors()[node.name].items()}
            inputs = [values[name] for name in node.inputs]
            if node.kind == "input":
                value = images.double() * acting
            elif node.kind == "neurons":
                start = own["initial"].view(-1, *[1] * (inputs[0].ndim - 2))
                potential = potentials.get(node.name, torch.zeros_like(inputs[0]) + start) + inputs[0]
                count = counts.get(node.name, torch.zeros_like(potential))
                largest[node.name + " charged"] = potential.abs().max()
                value = (potential >= 1).double()
                if node.settings["signed"]:
                    value = value * (count < node.settings["levels"]) - ((potential < 0) & (count > 0)).double()
                potentials[node.name], counts[node.name] = potential - value, count + value
            elif node.kind == "max_pool":
                before = counts.get(node.name, torch.zeros_like(inputs[0]))
                counts[node.name] = before + inputs[0]
                value = evaluate(node, [counts[node.name]], own) - evaluate(node, [before], own)
            else:
                value = evaluate(node, inputs, own, biased=acting or node.name in drive)
                value = value * acting if node.name in drive else value
            values[node.name] = value
            largest[node.name] = torch.maximum(largest.get(node.name, value.new_zeros(())), value.abs().max())
        logits.append(values[snn.graph.output.name])
    return torch.stack(logits, 1), largest


# A network trained for real


class DigitsNetwork(nn.Module):
    """Three convolutions with batch normalisation, one in a residual block with a max pool behind it, and two linear layers."""

    def __init__(self, activation: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.first, self.norm1, self.fire1 = nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12), activation()
        self.second, self.norm2, self.fire2 = nn.Conv2d(12, 12, 3, padding=1), nn.BatchNorm2d(12), activation()
        self.pool = nn.MaxPool2d(2)
        self.third, self.norm3, self.fire3 = nn.Conv2d(12, 16, 3, padding=1), nn.BatchNorm2d(16), activation()
        self.average, self.fourth, self.fire4 = nn.AvgPool2d(2), nn.Linear(64, 24), activation()
        self.last = nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(N, 10)`` of images ``(N, 1, 8, 8)``."""
        x = self.fire1(self.norm1(self.first(x)))
        x = self.pool(self.fire2(self.norm2(self.second(x)) + x))
        x = self.average(self.fire3(self.norm3(self.third(x))))
        logits: Tensor = self.last(self.fire4(self.fourth(torch.flatten(x, 1))))
        return logits


@cache
def digits() -> tuple[Tensor, Tensor]:
    """Images ``(1797, 1, 8, 8)``, normalised and shuffled, and labels; the first 1200 are for training."""
    from sklearn.datasets import load_digits

    data = load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(0))
    pictures = torch.tensor(data.images, dtype=torch.float32)[order, None]
    return (pictures / 16 - 0.3) / 0.38, torch.tensor(data.target)[order]


@cache
def trained_on_digits(kind: str) -> DigitsNetwork:
    """``kind``: "relu", "relu6", "qcfs" or "qffs". The networks are shared: copy one before it is changed."""
    made = {"relu": nn.ReLU, "relu6": nn.ReLU6, "qcfs": lambda: QCFS(4, 2.0), "qffs": lambda: LSQ(2)}[kind]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = DigitsNetwork(made)
    images, labels = digits()
    _initialise_steps(network, images[:64])
    optimiser = torch.optim.Adam(network.parameters(), lr=4e-3)
    generator = torch.Generator().manual_seed(1)
    for epoch in range(6):
        for group in optimiser.param_groups:
            group["lr"] = 4e-3 * (1 - epoch / 6)
        for batch in torch.randperm(1200, generator=generator).split(50):
            optimiser.zero_grad()
            cross_entropy(network(images[batch]), labels[batch]).backward()
            optimiser.step()
    return network.eval()
