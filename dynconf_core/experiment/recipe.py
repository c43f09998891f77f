"""Training recipes."""

import math
from dataclasses import dataclass


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
    """

    epochs: int
    batch_size: int
    learning_rate: float
    augmentation: tuple[str, ...]
    initial_threshold: float
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warm_up: float = 0.1


def learning_rate(step: int, steps: int, recipe: Recipe) -> float:
    """The learning rate at ``step`` (from 0) of ``steps``."""
    warm = max(1, round(recipe.warm_up * steps))
    if step < warm:
        return recipe.learning_rate * (step + 1) / warm
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
