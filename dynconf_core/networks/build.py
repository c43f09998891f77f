"""From an architecture's name to an initialised network."""

import torch
from torch import nn

from dynconf_core.errors import InputError
from dynconf_core.networks.architecture import ARCHITECTURES, STEMS, Activation


def build(
    architecture: str,
    stem: str,
    *,
    classes: int,
    resolution: int,
    width: float,
    activation: Activation,
    seed: int,
) -> nn.Module:
    """An initialised network; the same for the same arguments, whatever else the process draws.

    Args:
        architecture: a name in ``ARCHITECTURES``.
        stem, classes, resolution, width, activation: see ``Make``.
        seed: of the initial weights.

    Raises:
        InputError: for an unknown architecture or stem, or a resolution that is too small for the architecture.
    """
    found = ARCHITECTURES.get(architecture)
    if stem not in STEMS:
        raise InputError(f"stem={stem!r} is unknown: choose one of {', '.join(STEMS)}.")
    if resolution < found.smallest:
        raise InputError(f"resolution={resolution}: {architecture} needs at least {found.smallest} pixels.")
    network = found.make(stem=stem, classes=classes, resolution=resolution, width=width, activation=activation)
    if not isinstance(network, nn.Module):
        raise InputError(f"architecture {architecture!r} makes a {type(network).__name__}: its make must give an nn.Module.")
    _initialise(network, torch.Generator().manual_seed(seed))
    return network


def parameters(network: nn.Module) -> int:
    """How many numbers training may change."""
    return sum(parameter.numel() for parameter in network.parameters())


def _initialise(network: nn.Module, generator: torch.Generator) -> None:
    """Kaiming fan-out for convolutions, fan-in for linear layers.

    The generator is the network's own: torch's global one is shared between threads.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=generator)
        elif isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu", generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
