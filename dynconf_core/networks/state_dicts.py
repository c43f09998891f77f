"""Finding the weights for a network in what a training script has saved.

Scripts keep a state dict bare or under a key of their own, beside optimisers, counters and averaged weights, and wrappers
(``DataParallel``, ``torch.compile``, Lightning, ...) put words before the names. A candidate is taken only if all its names are
those of the network, so what is tried here cannot load weights into the wrong place.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

DEEPEST = 3
"""Levels of keys above a state dict, such as ``state``, ``model``."""
WRAPPING = frozenset(["module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"])
"""What ``DataParallel``, ``torch.compile``, FSDP and activation checkpoints put into names, at the front or further in."""
BESIDES = frozenset(["total_ops", "total_params", "n_averaged"])
"""Last parts of the names of what profilers (thop) and averaging (``AveragedModel``) add to a state dict."""
OPTIONAL = "num_batches_tracked"
"""Batch counters of normalisation layers, which old versions of torch did not save."""
AVERAGED = ("ema", "swa", "averag", "teacher", "target")
"""What keys of averaged copies of the weights hold."""


@dataclass(frozen=True)
class Candidate:
    """A state dict in a file.

    Attributes:
        key: where it stands, such as "model" or "state.model"; "" for the file's own level.
        tensors: its names and tensors.
    """

    key: str
    tensors: Mapping[str, Tensor]

    @property
    def averaged(self) -> bool:
        """Whether its key says that it is an average, such as "model_ema"."""
        return any(word in self.key.lower() for word in AVERAGED)


def candidates(content: Mapping[Any, Any]) -> list[Candidate]:
    """Every state dict in the content of a file, the outer ones first; plain values beside their tensors are left out."""
    return list(_below(content, "", DEEPEST))


def _below(content: Mapping[Any, Any], key: str, deeper: int) -> Iterator[Candidate]:
    tensors = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
    if tensors:
        yield Candidate(key, tensors)
    for name, value in content.items():
        if deeper and isinstance(name, str) and isinstance(value, Mapping):
            yield from _below(value, f"{key}.{name}" if key else name, deeper - 1)


def fitted(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``tensors`` under the names that ``wanted`` has, as far as that is possible.

    Tried are the names as they are, without the words of wrappers, and then without the parts before a ``.`` that all of them
    share. The first that fits is returned, or the one that has the most names in common.
    """
    best: dict[str, Tensor] | None = None
    for renamed in _renamed(tensors):
        found = {name: value for name, value in renamed.items() if name in wanted or not _besides(name)}
        if not lacking(found, wanted) and not beyond(found, wanted):
            return found
        if best is None or len(found.keys() & wanted.keys()) > len(best.keys() & wanted.keys()):
            best = found
    return best or {}


def lacking(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    """The names that ``wanted`` has and ``found`` has not, without those of batch counters."""
    return [name for name in wanted if name not in found and not name.endswith(OPTIONAL)]


def beyond(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    """The names that ``found`` has and ``wanted`` has not."""
    return [name for name in found if name not in wanted]


def _renamed(tensors: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    yield dict(tensors)
    names = [".".join(part for part in name.split(".") if part not in WRAPPING) for name in tensors]
    while True:
        weights = [name for name in names if not _besides(name)]
        if not weights or not all(weights) or len(set(weights)) < len(weights):
            return
        yield dict(zip(names, tensors.values(), strict=True))
        shared = f"{weights[0].partition('.')[0]}."
        if not all(name.startswith(shared) for name in weights):
            return
        names = [name.removeprefix(shared) for name in names]


def _besides(name: str) -> bool:
    return name.rpartition(".")[2] in BESIDES
