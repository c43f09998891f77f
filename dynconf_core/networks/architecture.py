"""What an architecture is, and the registry of those there are.

One of your own is one file: an ``Architecture`` object, named as ``package.module:OBJECT`` in a ``Setting`` or to
``dynconf convert``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from dynconf_core.data.images import Normalisation
from dynconf_core.registry import Registry, no_instance_of

if TYPE_CHECKING:
    from torch import nn

STEMS = ("cifar", "imagenet")
"""How a network begins: for small images (a 3 x 3 convolution), or for large ones (7 x 7 with stride 2, and a pool)."""
NARROWEST = 4
"""Channels that a layer has at least, whatever the width."""
Activation = Callable[[], "nn.Module"]
"""Makes the activation of one layer."""


def scaled(channels: int, width: float) -> int:
    """``channels`` times the factor ``width``, rounded, at least four."""
    return max(NARROWEST, round(channels * width))


class Make(Protocol):
    """Makes a network, its weights not yet initialised."""

    def __call__(self, *, stem: str, classes: int, resolution: int, width: float, activation: Activation) -> "nn.Module":
        """Logits ``(N, classes)`` of images ``(N, 3, resolution, resolution)``.

        Args:
            stem: one of ``STEMS``; an architecture with but one may disregard it.
            classes: number of classes C.
            resolution: side of the input in pixels.
            width: factor on every layer's channels (1 is the published network).
            activation: makes one layer's activation.
        """


@dataclass(frozen=True)
class Published:
    """What published weights of an architecture were trained on.

    Attributes:
        classes: C.
        resolution: side of the square input in pixels.
        shorter_side: pixels to which an image's shorter side is resized before its centre is cut out; ``resolution`` where
            the images of the data set have that size already.
        normalisation: mean and standard deviation that the weights expect.
    """

    classes: int
    resolution: int
    shorter_side: int
    normalisation: Normalisation


@dataclass(frozen=True)
class Architecture:
    """A network's plan.

    Attributes:
        make: makes the network.
        smallest: the smallest side of the input, in pixels.
        published: of its published weights, where there are any.
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
