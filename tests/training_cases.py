"""A tiny network, pictures and a recipe, for the tests of training."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from dynconf_core.data.images import Normalisation, TensorImages
from dynconf_core.experiment.recipe import Recipe
from dynconf_core.networks.architecture import Activation
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


def pictures(count: int = 27, seed: int = 0, side: int = 16) -> TensorImages:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, 3, side, side), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, 10, (count,), generator=generator)
    return TensorImages(pixels, labels, 10, Normalisation((0.5, 0.5, 0.5), (0.25, 0.25, 0.25)))


def equal(one: nn.Module, other: nn.Module) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return list(first) == list(second) and all(torch.equal(first[name], second[name]) for name in first)
