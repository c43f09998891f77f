"""From a network's name to an initialised network."""

import torch
from torch import nn

from dynconf_core.activations.factory import Activation
from dynconf_core.errors import InputError
from dynconf_core.networks.resnet import DEPTHS, Block, ResNet
from dynconf_core.networks.vgg import VGG

ARCHITECTURES = ("vgg16", *DEPTHS)
STEMS = ("cifar", "imagenet")


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
        architecture: one of ``ARCHITECTURES``.
        stem: one of ``STEMS``; VGG has but one.
        classes: number of classes C.
        resolution: side of the input in pixels.
        width: factor on every layer's channels (1 is the published network).
        activation: makes one layer's activation.
        seed: of the initial weights.

    Raises:
        InputError: for an unknown architecture or a resolution that VGG's five pools do not leave a pixel of.
    """
    if architecture not in ARCHITECTURES:
        raise InputError(f"architecture={architecture!r} is unknown: choose one of {', '.join(ARCHITECTURES)}.")
    network: nn.Module
    if architecture == "vgg16":
        if resolution < 32:
            raise InputError(f"resolution={resolution}: vgg16 pools five times and needs at least 32 pixels.")
        network = VGG(classes, activation, width, resolution)
    else:
        network = ResNet(architecture, stem, classes, activation, width)
    _initialise(network, torch.Generator().manual_seed(seed))
    return network


def _initialise(network: nn.Module, generator: torch.Generator) -> None:
    """Kaiming fan-out for convolutions; residual branches of bottlenecks start at 0, or a ResNet-50 trains badly.

    The generator is the network's own: torch's global one is shared between threads.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=generator)
        elif isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu", generator=generator)
            nn.init.zeros_(module.bias)
    for module in network.modules():
        if isinstance(module, Block) and len(module.body) > 6:
            last = module.body[-1]
            assert isinstance(last, nn.BatchNorm2d)
            nn.init.zeros_(last.weight)
