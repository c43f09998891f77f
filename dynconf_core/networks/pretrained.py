"""Networks that somebody has trained elsewhere, by name: plain ReLU versions, and the input they were trained on.

``resnet20`` to ``resnet110`` are the CIFAR ResNets (``resnet_cifar.py``); ``torchvision/NAME`` are torchvision's reference
classification networks, whose weights torchvision publishes.
"""

from dataclasses import dataclass
from typing import Any

from torch import nn

from dynconf_core.data.folder import NORMALISATION as IMAGENET
from dynconf_core.data.images import Normalisation
from dynconf_core.errors import InputError
from dynconf_core.networks.resnet_cifar import CIFAR_DEPTHS, CifarResNet
from dynconf_core.torchvision_import import torchvision

CIFAR = {f"resnet{depth}": depth for depth in CIFAR_DEPTHS}
TORCHVISION = "torchvision/"
REWRITTEN = ("densenet", "googlenet", "inception")
"""torchvision renames their weights, or transforms their input, while it loads: a plain state dict does not fit them."""


@dataclass(frozen=True)
class Pretrained:
    """What a named network was trained on.

    Attributes:
        name: as ``architecture`` takes it.
        classes: C of the published weights.
        resolution: side of the square input in pixels.
        shorter_side: pixels to which an image's shorter side is resized before its centre is cut out; ``resolution`` where
            the images of the data set have that size already.
        normalisation: mean and standard deviation that the published weights expect.
    """

    name: str
    classes: int
    resolution: int
    shorter_side: int
    normalisation: Normalisation


def names() -> tuple[str, ...]:
    """Every name that ``architecture`` knows."""
    models = torchvision().models
    listed: list[str] = models.list_models(module=models)
    offered = sorted(name for name in listed if not name.startswith(REWRITTEN))
    return (*CIFAR, *(TORCHVISION + name for name in offered))


def pretrained(name: str) -> Pretrained:
    """The input of the network ``name``.

    The CIFAR ResNets' checkpoints in wide use were trained with ImageNet's mean and standard deviation; for torchvision's
    networks the input is that of their default weights.

    Raises:
        InputError: for an unknown name.
    """
    if name in CIFAR:
        return Pretrained(name, 10, 32, 32, IMAGENET)
    transform = _torchvision_weights(name, "default").transforms()
    mean, std = tuple(transform.mean), tuple(transform.std)
    return Pretrained(name, 1000, transform.crop_size[0], transform.resize_size[0], Normalisation(mean, std))


def architecture(name: str, *, classes: int | None = None, weights: str | None = None) -> nn.Module:
    """The network ``name`` with ReLU activations, in evaluation mode.

    Args:
        name: one of ``names()``.
        classes: number of classes C; that of the published weights where it is not given.
        weights: None for weights that a checkpoint is to replace; "default" for the weights that torchvision publishes (or the
            name of one set of them, such as "IMAGENET1K_V1"), from torch's own cache or downloaded.

    Raises:
        InputError: for an unknown name; for ``weights`` that are not published, do not have ``classes`` classes or cannot be
            downloaded.
    """
    if classes is not None and classes < 2:
        raise InputError(f"classes={classes}: a classifier has at least 2.")
    network: nn.Module
    if name in CIFAR:
        if weights is not None:
            raise InputError(f"weights={weights!r}: none are published with {name}; give its checkpoint (--checkpoint PATH).")
        network = CifarResNet(CIFAR[name], classes or 10)
        return network.eval()
    published = _torchvision_weights(name, weights or "default")
    if weights is not None and classes not in (None, 1000):
        raise InputError(f"weights={weights!r} of {name} have 1000 classes, not {classes}: leave the one or the other out.")
    network = torchvision().models.get_model(name.removeprefix(TORCHVISION), num_classes=classes or 1000)
    if weights is not None:
        from dynconf_core.networks.published_weights import fetched
        from dynconf_core.training.checkpoint import load_checkpoint

        load_checkpoint(network, fetched(published.url))
    return network.eval()


def _torchvision_weights(name: str, weights: str) -> Any:
    """The entry of torchvision's enumeration of the weights of ``name``."""
    known = names()
    if name not in known:
        shown = ", ".join((*CIFAR, "torchvision/resnet18", "torchvision/vgg16_bn"))
        hint = f" (did you mean {TORCHVISION + name!r}?)" if TORCHVISION + name in known else ""
        raise InputError(f"architecture={name!r} is unknown{hint}: choose one such as {shown}.")
    entries = torchvision().models.get_model_weights(name.removeprefix(TORCHVISION))
    if weights == "default":
        return entries.DEFAULT
    by_name = {entry.name: entry for entry in entries}
    if weights not in by_name:
        raise InputError(f"weights={weights!r} of {name} are not published: choose default, {', '.join(by_name)}.")
    return by_name[weights]
