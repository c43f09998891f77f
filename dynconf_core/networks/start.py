"""What a network's training starts from: residual branches that give nothing at first, or the weights of another network.

Weights are copied by name where names and shapes fit. torchvision's names of ResNets and VGGs are translated into ours. What
does not fit (a head for other classes, a stem for other images) keeps its random weights.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from dynconf_core.errors import InputError
from dynconf_core.networks.checkpoint import read
from dynconf_core.networks.state_dicts import OPTIONAL, candidates, fitted
from dynconf_core.networks.unfit import faults, likely_cause

SHOWN = 5
"""How many names a message lists."""
VGG_HEAD = {"classifier.0": "head.1", "classifier.3": "head.3", "classifier.6": "head.5"}


@runtime_checkable
class Residual(Protocol):
    """A block whose input is added to what its branch gives."""

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """The last batch normalisation of the branch."""


def zero_last_norms(network: nn.Module) -> None:
    """Set the scale of every branch's last normalisation to 0, so that each block passes on its shortcut alone at first.

    Raises:
        InputError: for a network without such blocks.
    """
    norms = [module.last_norm for module in network.modules() if isinstance(module, Residual)]
    if not norms:
        raise InputError("zero_gamma=true: the network has no residual blocks (modules with a `last_norm`): leave it out.")
    if not any(norm.weight.any() for norm in norms):
        raise InputError("zero_gamma=true changes nothing: the network's branches start with scale 0 anyway; leave it out.")
    for norm in norms:
        nn.init.zeros_(norm.weight)


@dataclass(frozen=True)
class Copied:
    """What ``copy_weights`` did.

    Attributes:
        copied: the names of the network's tensors that were replaced.
        kept: the others, which keep what they were, without batch counters.
    """

    copied: tuple[str, ...]
    kept: tuple[str, ...]


def copy_weights(network: nn.Module, path: Path) -> Copied:
    """Replace the tensors of ``network`` by those of a file that have their names and shapes.

    The file may hold what ``load_checkpoint`` takes. Half of the network's weight matrices must be found in it, since fewer fit
    by accident.

    Raises:
        InputError: if it cannot be read or is for another network. The network is then unchanged.
    """
    content = read(path)
    own = {name: value for name, value in network.state_dict().items() if isinstance(value, Tensor)}
    matrices = [name for name, value in own.items() if value.ndim > 1]
    best: dict[str, Tensor] = {}
    nearest: dict[str, Tensor] = {}
    for candidate in sorted(candidates(content), key=lambda one: one.averaged):
        for given in (fitted(candidate.tensors, own), *_translated(candidate.tensors)):
            fitting = {name: value for name, value in given.items() if name in own and _fits(value, own[name])}
            if len(fitting) > len(best):
                best, nearest = fitting, given
            nearest = nearest or given
    found = [name for name in matrices if name in best]
    if 2 * len(found) < len(matrices):
        wanted = {name: own[name] for name in matrices}
        given = {name: value for name, value in nearest.items() if value.ndim > 1}
        told = "; ".join(faults(given, wanted)) if given else "it holds no state dict"
        other_width = given.keys() == wanted.keys() and not found
        cause = "Was it made for another width?" if other_width else likely_cause(given, wanted) if given else ""
        raise InputError(
            f"initial_weights={path}: {len(found)} of the network's {len(matrices)} weight matrices are in it, under half: "
            f"{told}. {cause}".rstrip()
        )
    network.load_state_dict(best, strict=False)
    left = tuple(name for name in own if name not in best and not name.endswith(OPTIONAL))
    return Copied(tuple(best), left)


def wait_for_a_batch(network: nn.Module, copied: Copied, percentile: float) -> None:
    """Let thresholds that are not among the copied ones be set from the first batch, at a percentile of their inputs."""
    for name, module in network.named_modules():
        if hasattr(module, "percentile") and f"{name}.threshold" not in copied.copied:
            module.percentile = percentile


def _fits(value: Tensor, own: Tensor) -> bool:
    return value.shape == own.shape and not value.is_complex() and not own.is_complex()


def _translated(tensors: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """The same tensors under our names, if they have those of torchvision's ResNets or VGGs."""
    plain = {name.removeprefix("module."): value for name, value in tensors.items()}
    if "layer1.0.conv1.weight" in plain and "fc.weight" in plain:
        yield {_of_resnet(name, plain): value for name, value in plain.items()}
    if "classifier.0.weight" in plain and any(name.startswith("features.") for name in plain):
        yield _without_biases({_of_vgg(name): value for name, value in plain.items()})


def _of_resnet(name: str, names: Mapping[str, Tensor]) -> str:
    outside = {"conv1": "stem.0", "bn1": "stem.1", "fc": "head.2"}
    first, _, last = name.partition(".")
    if first in outside:
        return f"{outside[first]}.{last}"
    found = re.fullmatch(r"layer(\d+)\.(\d+)\.(?:(conv|bn)(\d)|downsample\.(\d))\.(\w+)", name)
    if found is None:
        return name
    stage, index, kind, number, shortcut, what = found.groups()
    block = int(index) + sum(
        len({other.split(".")[1] for other in names if other.startswith(f"layer{earlier}.")})
        for earlier in range(1, int(stage))
    )
    if shortcut is not None:
        return f"blocks.{block}.shortcut.{shortcut}.{what}"
    return f"blocks.{block}.body.{3 * (int(number) - 1) + (kind == 'bn')}.{what}"


def _of_vgg(name: str) -> str:
    layer, _, what = name.rpartition(".")
    return f"{VGG_HEAD.get(layer, layer)}.{what}"


def _without_biases(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same function without the biases of convolutions, which the means of the batch normalisation behind them take in."""
    found = dict(tensors)
    for name, bias in tensors.items():
        layer = re.fullmatch(r"features\.(\d+)\.bias", name)
        mean = f"features.{int(layer[1]) + 1}.running_mean" if layer else ""
        if mean in found:
            found[mean] = found[mean] - bias
            del found[name]
    return found
