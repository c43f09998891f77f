"""What a training run is made of besides its network and images."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """SGD with momentum, linear warm-up, then cosine to 0; the last epoch is taken.

    Attributes:
        epochs: passes over the training images.
        batch_size: images a step; the last incomplete batch of an epoch is dropped (every epoch is shuffled anew).
        learning_rate: at the end of the warm-up.
        augmentation: names from ``dynconf_core.data.images.AUGMENTATIONS``.
        initial_threshold: lambda of every QCFS layer at the start.
        momentum, weight_decay: of SGD; the decay acts on every parameter, lambda too, as in the QCFS source.
        warm_up: the share of all steps over which the learning rate rises from 0.
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
    """The learning rate of ``step`` (from 0) of ``steps``."""
    warm = max(1, round(recipe.warm_up * steps))
    if step < warm:
        return recipe.learning_rate * (step + 1) / warm
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
