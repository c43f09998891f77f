"""Random networks of every shape that conversion knows.

The weights of a ``RandomNetwork`` are small whole numbers times powers of two, its thresholds powers of two (times n), so that
every number of the ANN and of the SNN is exact in float32, rounding or not: two implementations must agree to the bit.
"""

from __future__ import annotations

import math
import random
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from dynconf_core.activations.lsq import LSQ
from dynconf_core.activations.potential import Charging, learn_potentials
from dynconf_core.activations.qcfs import QCFS
from dynconf_core.conversion.convert import convert
from dynconf_core.simulation.network import SpikingNetwork

SIDE = 8
CLASSES = 5
BLOCKS = ("plain", "depthwise", "residual", "option_a", "projection", "concatenate", "max_pool", "average_pool", "slices")
ANALOGUE_BLOCKS = ("normalised", "bottleneck")
"""Blocks in which values that are no spikes meet weights."""


def dyadic_images(count: int, seed: int, side: int = SIDE) -> Tensor:
    """Multiples of 1/16 in [-2, 2]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-32, 33, (count, 3, side, side), generator=generator).float() / 16


def charge(network: nn.Module) -> list[float]:
    """Give every layer a learned initial potential of its own, in sixteenths."""
    layers = [module for module in network.modules() if isinstance(module, Charging)]
    values = [(3 + 7 * number % 11) / 16 for number in range(len(layers))]
    learn_potentials(network)
    for module, value in zip(layers, values, strict=True):
        assert module.offset is not None
        module.offset.data.fill_(value - 0.5)
    return values


def lively(network: nn.Module, side: int) -> nn.Module:
    """The network, in evaluation mode, with normalisations that have seen noise and biases that let many neurons fire."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        network(torch.randn(4, 3, side, side, generator=generator))
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.bias.uniform_(-0.2, 0.4, generator=generator)
    return network.eval()


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


def positive_network(method: str, hidden: int = 24) -> nn.Sequential:
    """Every weight positive and random: all neurons fire in all steps, and all sums are as large as they can be."""
    generator = torch.Generator().manual_seed(0)

    def fire() -> nn.Module:
        return QCFS(4, 1.0) if method == "qcfs" else LSQ(2)

    layers = [nn.Linear(6, hidden), fire(), nn.Linear(hidden, hidden), fire(), nn.Linear(hidden, 4)]
    network = nn.Sequential(*layers)
    with torch.no_grad():
        for parameter in (parameter for layer in layers if isinstance(layer, nn.Linear) for parameter in layer.parameters()):
            parameter.copy_(0.5 + torch.rand(parameter.shape, generator=generator))
    return network.eval()


def converted(network: nn.Module, images: Tensor, **options: Any) -> SpikingNetwork:
    """With the way to thresholds that suits the network."""
    learned = not any(isinstance(module, nn.ReLU) for module in network.modules())
    return convert(network, images, thresholds="learned" if learned else "error", **options)
