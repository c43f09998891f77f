"""A network from its description, the plain values that stand in a checkpoint's provenance and in a stage's key."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from dynconf_core.activations.factory import activation
from dynconf_core.networks.build import build


def described(description: Mapping[str, Any], seed: int) -> nn.Module:
    """The untrained network of a description: ``architecture``, ``stem``, ``classes``, ``resolution``, ``width``, ``method``,
    ``levels``, ``bits`` and, where it is to be trained, ``initial_threshold``."""
    make = activation(
        description["method"],
        levels=description["levels"],
        bits=description["bits"],
        initial_threshold=description.get("initial_threshold", 8.0),
    )
    return build(
        description["architecture"],
        description["stem"],
        classes=description["classes"],
        resolution=description["resolution"],
        width=description["width"],
        activation=make,
        seed=seed,
    )


def parameters(network: nn.Module) -> int:
    """How many numbers training may change."""
    return sum(parameter.numel() for parameter in network.parameters())
