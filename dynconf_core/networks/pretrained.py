"""Pretrained networks by name: versions with ReLU activations, and the input that their weights were trained on.

Architectures with published weights (``resnet20`` to ``resnet110``, see ``resnet_cifar``) have their name in ``ARCHITECTURES``;
``torchvision/NAME`` stands for torchvision's reference classification networks, whose weights torchvision publishes.
"""

from typing import Any

from torch import nn

from dynconf_core.data.images import Normalisation
from dynconf_core.errors import InputError
from dynconf_core.libraries import torchvision
from dynconf_core.networks.architecture import ARCHITECTURES, STEMS, Architecture, Published
from dynconf_core.networks.convertible import CONVERTIBLE, reason

TORCHVISION = "torchvision/"


def names() -> tuple[str, ...]:
    """Every name that ``architecture`` accepts: networks that convert."""
    models = torchvision().models
    offered = sorted({*CONVERTIBLE}.intersection(models.list_models(module=models)))
    return (*_published(), *(TORCHVISION + name for name in offered))


def pretrained(name: str) -> Published:
    """The input that the weights of the network ``name`` expect; for torchvision's networks, their default weights.

    Raises:
        InputError: for an unknown name, or an architecture without published weights.
    """
    if _own(name):
        return _described(name)[1]
    transform = _torchvision_weights(name, "default").transforms()
    mean, std = tuple(transform.mean), tuple(transform.std)
    return Published(1000, transform.crop_size[0], transform.resize_size[0], Normalisation(mean, std))


def architecture(name: str, *, classes: int | None = None, weights: str | None = None) -> nn.Module:
    """The network ``name`` with ReLU activations, in evaluation mode.

    Args:
        name: one of ``names()``, or an ``Architecture`` of your own as ``package.module:OBJECT``.
        classes: number of classes C; None: as many as the published weights have.
        weights: None if a checkpoint will replace the weights; "default" for the weights that torchvision publishes (or the
            name of one set of them, such as "IMAGENET1K_V1"), taken from torch's cache or downloaded.

    Raises:
        InputError: for an unknown name, and for ``weights`` that are not published, have another number of classes than
            ``classes`` or cannot be downloaded.
    """
    if classes is not None and classes < 2:
        raise InputError(f"classes={classes}: a classifier needs at least 2.")
    if _own(name):
        found, published = _described(name)
        if weights is not None:
            raise InputError(f"weights={weights!r}: none are published with {name}; give its checkpoint (--checkpoint PATH).")
        network = found.make(
            stem=STEMS[0],
            classes=classes or published.classes,
            resolution=published.resolution,
            width=1.0,
            activation=nn.ReLU,
        )
        return network.eval()
    offered = _torchvision_weights(name, weights or "default")
    if weights is not None and classes not in (None, 1000):
        raise InputError(f"weights={weights!r} of {name} have 1000 classes, not {classes}: leave one of the two out.")
    theirs: nn.Module = torchvision().models.get_model(name.removeprefix(TORCHVISION), num_classes=classes or 1000)
    if weights is not None:
        from dynconf_core.networks.checkpoint import load_checkpoint
        from dynconf_core.networks.published_weights import fetched

        load_checkpoint(theirs, fetched(offered.url))
    return theirs.eval()


def _own(name: str) -> bool:
    """Whether ``name`` is an architecture with published weights, or one of another package or of the user."""
    foreign = name in ARCHITECTURES.names() and not ARCHITECTURES.own(name)
    return ":" in name or foreign or name in _published()


def _published() -> tuple[str, ...]:
    return tuple(name for name, found in ARCHITECTURES.usable().items() if found.published is not None)


def _described(name: str) -> tuple[Architecture, Published]:
    found = ARCHITECTURES.get(name)
    if found.published is None:
        raise InputError(f"architecture={name!r} does not say what its weights were trained on: set its field `published`.")
    return found, found.published


def _torchvision_weights(name: str, weights: str) -> Any:
    """The entry for ``weights`` in torchvision's enumeration of the weights of ``name``."""
    known = names()
    if name not in known:
        why = reason(name.removeprefix(TORCHVISION)) if name.startswith(TORCHVISION) else None
        if why is not None:
            raise InputError(f"architecture={name!r} cannot be converted by name: {why}.")
        shown = ", ".join((*_published(), "torchvision/resnet18", "torchvision/vgg16_bn"))
        hint = f" (did you mean {TORCHVISION + name!r}?)" if TORCHVISION + name in known else ""
        raise InputError(f"architecture={name!r} is unknown{hint}: choose one such as {shown}.")
    entries = torchvision().models.get_model_weights(name.removeprefix(TORCHVISION))
    if weights == "default":
        return entries.DEFAULT
    by_name = {entry.name: entry for entry in entries}
    if weights not in by_name:
        raise InputError(f"weights={weights!r} of {name} are not published: choose default, {', '.join(by_name)}.")
    return by_name[weights]
