"""A tiny network, pictures and a recipe, for the tests of training."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from dynconf_core.data.images import Normalisation, TensorImages
from dynconf_core.experiment.recipe import Recipe
from dynconf_core.experiment.settings import Setting
from dynconf_core.networks.architecture import Activation, Architecture
from dynconf_core.schemes.network import described
from dynconf_core.schemes.scheme import SCHEMES

CPU = torch.device("cpu")
RECIPE = Recipe(epochs=3, batch_size=8, learning_rate=0.05, augmentation=("crop", "flip", "cutout"), initial_threshold=4.0)


def activation(method: str, initial_threshold: float = 8.0, **numbers: int) -> Activation:
    """The activation that a conversion scheme trains with, of those of ``numbers`` (levels, bits) that the scheme has."""
    scheme = SCHEMES.get(method)
    own = {name: value for name, value in numbers.items() if name in scheme.fields}
    return scheme(**own).activation(initial_threshold)


def description(method: str = "qcfs", **changes: Any) -> dict[str, Any]:
    plain = {
        "architecture": "resnet18",
        "stem": "cifar",
        "classes": 10,
        "resolution": 16,
        "width": 1 / 16,
        "method": method,
        **({"levels": 4} if method == "qcfs" else {"bits": 2}),
    }
    return {**plain, **changes}


def network(method: str = "qcfs", seed: int = 0, **changes: Any) -> nn.Module:
    return described({**description(method, **changes), "initial_threshold": 4.0}, seed)


class Small(nn.Module):
    """Two convolutions with batch normalisation, for what takes many starts; declared in another order than they are called."""

    def __init__(self, classes: int, channels: int, activation: Activation) -> None:
        super().__init__()
        self.last = nn.Linear(channels * 4, classes)
        self.second, self.second_norm, self.second_fire = _block(channels, channels, activation)
        self.first, self.first_norm, self.first_fire = _block(3, channels, activation)
        self.pool = nn.AdaptiveAvgPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first_fire(self.first_norm(self.first(x)))
        x = self.second_fire(self.second_norm(self.second(x)))
        logits: Tensor = self.last(self.pool(x).flatten(1))
        return logits


def _block(inputs: int, outputs: int, activation: Activation) -> tuple[nn.Module, nn.Module, nn.Module]:
    return nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(outputs), activation()


def _small(*, stem: str, classes: int, resolution: int, width: float, activation: Activation) -> nn.Module:
    return Small(classes, round(32 * width), activation)


SMALL = Architecture(_small, smallest=8)
SMALL_SETTING = Setting(
    "digits-small-qffs",
    "digits",
    "training_cases:SMALL",
    "qffs",
    recipes={"smoke": Recipe(epochs=8, batch_size=200, learning_rate=0.1, augmentation=(), initial_threshold=4.0)},
)
"""Named ``training_cases:SMALL_SETTING``."""


def small(method: str = "qcfs", seed: int = 0) -> Small:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Small(10, 8, activation(method, 4.0, levels=4, bits=2))


def pictures(count: int = 27, seed: int = 0, side: int = 16) -> TensorImages:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, 3, side, side), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, 10, (count,), generator=generator)
    return TensorImages(pixels, labels, 10, Normalisation((0.5, 0.5, 0.5), (0.25, 0.25, 0.25)))


def equal(one: nn.Module, other: nn.Module) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return list(first) == list(second) and all(torch.equal(first[name], second[name]) for name in first)
