"""Training recipes."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from dynconf_core.data.digests import content_digest
from dynconf_core.data.images import AUGMENTATIONS
from dynconf_core.errors import InputError
from dynconf_core.registry import unknown
from dynconf_core.schemes.field import Field, between, whole
from dynconf_core.wording import told


def _below_1(value: float) -> bool:
    return between(0, 1)(value) and value < 1


def _are_augmentations(text: str) -> bool:
    names = [] if text == "none" else text.split("+")
    return all(name in AUGMENTATIONS for name in names) and len(set(names)) == len(names)


def augmentations(text: str) -> tuple[str, ...]:
    """The names in "crop+flip", or none of "none", in the order in which images are changed, whichever they are written in."""
    return tuple(name for name in AUGMENTATIONS if name in text.split("+"))


OF_RECIPE: dict[str, Field] = {
    "epochs": whole(1, 10000),
    "batch_size": whole(2, 65536),
    "learning_rate": Field(float, "a number above 0, at most 10", between(1e-9, 10)),
    "warm_up": Field(float, "a fraction from 0 to 1", between(0, 1)),
    "initial_threshold": Field(float, "a number above 0, at most 1000", between(1e-3, 1000)),
    "augmentation": Field(str, f"none, or some of {', '.join(AUGMENTATIONS)} with + between", _are_augmentations),
    "momentum": Field(float, "a fraction from 0 to below 1", _below_1),
    "weight_decay": Field(float, "a number from 0 to 1", between(0, 1)),
    "nesterov": Field(bool, "true or false", lambda value: True),
    "label_smoothing": Field(float, "a fraction from 0 to below 1", _below_1),
    "averaging": Field(float, "a fraction from 0, no averaging, to below 1, such as 0.999", _below_1),
    "zero_gamma": Field(bool, "true or false", lambda value: True),
    "decay_thresholds": Field(bool, "true or false", lambda value: True),
    "decay_norms": Field(bool, "true or false", lambda value: True),
    "initial_weights": Field(str, "a file of weights", lambda value: True),
    "threshold_percentile": Field(float, "a number above 0, at most 100", between(1e-3, 100)),
    "finer_start": Field(int, "a power of two from 1 to 64", lambda value: value in (1, 2, 4, 8, 16, 32, 64)),
    "noise": Field(float, "a number of levels from 0 to 2", between(0, 2)),
    "rcs": Field(float, "a number from 0 to 100", between(0, 100)),
}
"""What the fields of a recipe may be."""


@dataclass(frozen=True)
class Recipe:
    """SGD with momentum, a linear warm-up, then cosine decay to 0; the weights after the last epoch are used.

    Attributes:
        epochs: passes over the training images.
        batch_size: images per step; the last, incomplete batch of an epoch is dropped (every epoch is shuffled anew).
        learning_rate: the learning rate at the end of the warm-up.
        augmentation: names from ``dynconf_core.data.images.AUGMENTATIONS``.
        initial_threshold: the initial lambda of every QCFS layer.
        momentum, weight_decay: of SGD; the decay acts on every parameter including lambda, as in the QCFS source.
        warm_up: the fraction of all steps over which the learning rate rises from 0.
        nesterov: whether the momentum is Nesterov's.
        label_smoothing: the share of the target that is spread evenly over all classes, from 0 to below 1.
        averaging: the decay of the exponential moving average of the weights over the steps; the network is the average. 0: the
            last weights.
        zero_gamma: whether the last batch normalisation of every residual block starts with scale 0.
        decay_thresholds: whether the weight decay acts on the thresholds (QCFS) and steps (LSQ) of activations.
        decay_norms: whether the weight decay acts on batch normalisation and biases.
        initial_weights: a file whose weights the network starts from, where they fit; "" for random ones.
        threshold_percentile: the percentile of a layer's positive inputs at which a threshold starts that ``initial_weights``
            does not hold.
        finer_start: by what factor the activations have more levels at the start, a power of two; it is halved at even
            intervals over the first half of the epochs. 1: no more.
        noise: half the width of uniform noise that an activation adds before it rounds, in levels; at 0.5 it rounds up as often
            as the place between two levels says (Noise Adaptor). 0: none.
        rcs: the weight of the RCS regulariser; see ``dynconf_core.activations.course``. 0: none.

    Raises:
        InputError: for a value that cannot work, see ``OF_RECIPE``, or Nesterov's momentum without momentum.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    augmentation: tuple[str, ...]
    initial_threshold: float
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warm_up: float = 0.1
    nesterov: bool = False
    label_smoothing: float = 0.0
    averaging: float = 0.0
    zero_gamma: bool = False
    decay_thresholds: bool = True
    decay_norms: bool = True
    initial_weights: str = ""
    threshold_percentile: float = 99.0
    finer_start: int = 1
    noise: float = 0.0
    rcs: float = 0.0

    def __post_init__(self) -> None:
        names: object = self.augmentation
        if isinstance(names, str) or not isinstance(names, Sequence):
            raise InputError(f"{told('augmentation', names)}: give a tuple of names, such as ('crop', 'flip').")
        object.__setattr__(self, "augmentation", tuple(names))
        for name in names:
            if name not in AUGMENTATIONS:
                raise InputError(unknown("augmentation", str(name), AUGMENTATIONS))
        for name, field in OF_RECIPE.items():
            if name != "augmentation":
                field.check(name, getattr(self, name))
        if self.nesterov and not self.momentum:
            raise InputError("nesterov=true needs a momentum above 0: set momentum too.")

    @property
    def guides_activations(self) -> bool:
        """Whether it asks of the activations what only those of a course can do."""
        return self.noise > 0 or self.rcs > 0 or self.finer_start > 1

    def as_dict(self) -> dict[str, Any]:
        """The recipe for keys, provenance and tables: options from ``nesterov`` on only where they are used.

        ``initial_weights`` is the sha256 of the file.

        Raises:
            InputError: if that file cannot be read.
        """
        given = {**asdict(self), "augmentation": list(self.augmentation)}
        if self.initial_weights:
            given["initial_weights"] = content_of(self.initial_weights)
        return {name: value for name, value in given.items() if name not in OPTIONS or value != OPTIONS[name]}


_NAMES = [field.name for field in fields(Recipe)]
OPTIONS = {field.name: field.default for field in fields(Recipe) if _NAMES.index(field.name) >= _NAMES.index("nesterov")}
"""The fields from ``nesterov`` on, with their defaults."""


def content_of(file: str) -> str:
    """The sha256 of a file.

    Raises:
        InputError: if it cannot be read.
    """
    try:
        return content_digest(Path(file))
    except OSError as error:
        raise InputError(
            f"initial_weights={file}: it cannot be read ({error.strerror}): name the file of the weights."
        ) from None


def learning_rate(step: int, steps: int, recipe: Recipe) -> float:
    """The learning rate at ``step`` (from 0) of ``steps``."""
    warm = max(1, round(recipe.warm_up * steps))
    if step < warm:
        return recipe.learning_rate * (step + 1) / warm
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def fineness(epoch: int, recipe: Recipe) -> int:
    """The factor on the number of levels in ``epoch`` (from 0): ``finer_start``, halved until it is 1 at half of the epochs."""
    halvings = recipe.finer_start.bit_length() - 1
    if halvings == 0:
        return 1
    passed = int(2 * epoch * halvings / recipe.epochs)
    return max(1, recipe.finer_start >> passed)
