"""The definition of an architecture, the registry of architectures, and building an initialised network from one.

An architecture of your own takes one file: an ``Architecture`` object, named as ``package.module:OBJECT`` in a ``Setting`` or
in ``dynconf convert``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature
from typing import TYPE_CHECKING, Protocol

from dynconf_core.data.images import Normalisation
from dynconf_core.errors import InputError
from dynconf_core.registry import Registry, no_instance_of
from dynconf_core.wording import an

if TYPE_CHECKING:
    import torch
    from torch import nn

STEMS = ("cifar", "imagenet")
"""The first layers: for small images (a 3 x 3 convolution) or for large ones (7 x 7 with stride 2, and a pool)."""
NARROWEST = 4
"""The minimum number of channels in a layer, for any width."""
COLOURS = 3
"""The usual number of channels of the images."""
Activation = Callable[[], "nn.Module"]
"""Makes the activation of one layer."""


def scaled(channels: int, width: float) -> int:
    """``channels`` times the factor ``width``, rounded, but at least four."""
    return max(NARROWEST, round(channels * width))


class Make(Protocol):
    """Makes a network, with its weights not yet initialised."""

    def __call__(self, *, stem: str, classes: int, resolution: int, width: float, activation: Activation) -> "nn.Module":
        """A network that gives logits ``(N, classes)`` for images ``(N, 3, resolution, resolution)``.

        One that takes an argument ``channels`` too is also made for other numbers of channels, and of features of vectors.

        Args:
            stem: one of ``STEMS``; an architecture with a single stem may ignore it.
            classes: number of classes C.
            resolution: side of the input in pixels.
            width: factor on every layer's channels (1 is the published network).
            activation: makes the activation of one layer.
        """


@dataclass(frozen=True)
class Published:
    """What the published weights of an architecture were trained on.

    Attributes:
        classes: number of classes C.
        resolution: side of the square input in pixels.
        shorter_side: the pixels to which an image's shorter side is resized before its centre is cut out; equal to
            ``resolution`` if the images of the data set already have that size.
        normalisation: mean and standard deviation that the weights expect.
    """

    classes: int
    resolution: int
    shorter_side: int
    normalisation: Normalisation


@dataclass(frozen=True)
class Architecture:
    """The definition of a network.

    Attributes:
        make: makes the network.
        smallest: the smallest possible side of the input, in pixels.
        published: what its published weights were trained on; None if there are none.
    """

    make: Make
    smallest: int = 1
    published: Published | None = None


_NETWORKS = "dynconf_core.networks"
ARCHITECTURES: Registry[Architecture] = Registry(
    "architecture",
    "dynconf.architectures",
    {
        "vgg16": f"{_NETWORKS}.vgg:VGG16",
        **{f"resnet{depth}": f"{_NETWORKS}.resnet:RESNET{depth}" for depth in (18, 34, 50)},
        **{f"resnet{depth}": f"{_NETWORKS}.resnet_cifar:RESNET{depth}" for depth in (20, 32, 44, 56, 110)},
    },
    no_instance_of(Architecture),
)


def build(
    architecture: str,
    stem: str,
    *,
    classes: int,
    resolution: int,
    width: float,
    activation: Activation,
    seed: int,
    channels: int = COLOURS,
) -> "nn.Module":
    """An initialised network; the same for the same arguments, whatever random numbers the process draws elsewhere.

    Args:
        architecture: a name in ``ARCHITECTURES``.
        stem, classes, resolution, width, activation: see ``Make``.
        seed: of the initial weights.
        channels: of the images; F for vectors ``(N, F)``.

    Raises:
        InputError: for an unknown architecture or stem, or a resolution or number of channels that the architecture is not for.
    """
    import torch
    from torch import nn

    found = ARCHITECTURES.get(architecture)
    if stem not in STEMS:
        raise InputError(f"stem={stem!r} is unknown: choose one of {', '.join(STEMS)}.")
    if resolution < found.smallest:
        raise InputError(f"resolution={resolution}: {architecture} needs at least {found.smallest} pixels.")
    more: dict[str, int] = {}
    if channels != COLOURS:
        if "channels" not in signature(found.make).parameters:
            raise InputError(
                f"architecture {architecture!r} is for {COLOURS} channels, the data have {channels}: give its `make` an "
                "argument `channels`."
            )
        more["channels"] = channels
    network = found.make(stem=stem, classes=classes, resolution=resolution, width=width, activation=activation, **more)
    if not isinstance(network, nn.Module):
        raise InputError(f"architecture {architecture!r} makes {an(network)}: its make must give an nn.Module.")
    _initialise(network, torch.Generator().manual_seed(seed))
    return network


def parameters(network: "nn.Module") -> int:
    """The number of trainable parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


def _initialise(network: "nn.Module", generator: "torch.Generator") -> None:
    """Kaiming initialisation: fan-out for convolutions, fan-in for linear layers.

    The generator belongs to this network alone, because torch's global one is shared between threads.
    """
    from torch import nn

    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=generator)
        elif isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu", generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
