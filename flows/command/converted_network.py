"""What ``dynconf convert`` converts: a pretrained network by name, or one of the user's own, with its weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dynconf_core.errors import InputError

if TYPE_CHECKING:
    from torch import nn

    from dynconf_core.networks.architecture import Published

DEFAULT = "default"
"""The ``--checkpoint`` that stands for torchvision's weights."""


@dataclass(frozen=True)
class Subject:
    """The network to convert.

    Attributes:
        name: of the architecture, as given.
        network: with its weights, in evaluation mode.
        checkpoint: the name of the file of its weights; None for those that the user's own function gave it.
        published: what its weights were trained on, where that is known.
    """

    name: str
    network: nn.Module
    checkpoint: str | None
    published: Published | None

    @property
    def weights(self) -> str:
        """What to call the weights in a sentence."""
        return self.checkpoint or self.name


def subject(
    architecture: str | None, network: str | None, checkpoint: str | None, key: str | None, say: Callable[[str], None]
) -> Subject:
    """The network of ``--architecture`` or ``--network``, with the weights of ``--checkpoint``.

    Args:
        architecture: the value of ``--architecture``.
        network: the value of ``--network``.
        checkpoint: the value of ``--checkpoint``.
        key: the value of ``--weights``: where in the file the weights stand.
        say: called with what is to be known about the choice of the weights.

    Raises:
        InputError: unless one of both names a network, and the weights fit.
    """
    if (architecture is None) == (network is None):
        raise InputError("--architecture and --network: give one of both, the network to convert.")
    from dynconf_core.networks.checkpoint import load_checkpoint
    from dynconf_core.networks.own_network import own_network
    from dynconf_core.networks.pretrained import architecture as network_called
    from dynconf_core.networks.pretrained import pretrained

    if network is not None:
        made, name, published = own_network(network), network, None
        if checkpoint == DEFAULT:
            raise InputError(f"--checkpoint {DEFAULT}: no weights are published with --network {network}; give a file.")
    else:
        assert architecture is not None
        name, published = architecture, pretrained(architecture)
        if checkpoint is None:
            raise InputError(f"--checkpoint: give the file of the weights of {architecture}, or `{DEFAULT}` for torchvision's.")
        made = network_called(architecture, weights=DEFAULT if checkpoint == DEFAULT else None)
    if checkpoint not in (None, DEFAULT):
        load_checkpoint(made, Path(checkpoint), key=key, say=say)
    elif key is not None:
        raise InputError(f"--weights {key}: it chooses among the weights in a file, and --checkpoint names none.")
    return Subject(name, made.eval(), None if checkpoint is None else Path(checkpoint).name, published)
