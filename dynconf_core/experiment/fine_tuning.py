"""How a trained network is fine-tuned as the SNN that it becomes."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from dynconf_core.errors import InputError
from dynconf_core.experiment.recipe import Recipe

STRONG = ("autoaugment", "cutout")
"""Augmentations of long trainings, which a few epochs leave out."""


@dataclass(frozen=True)
class FineTuning:
    """SGD with the momentum, weight decay and batch size of the recipe, and cosine decay to 0.

    The loss is the mean over the first time steps, and ``settled`` times that of the network itself, which the SNN approaches
    in later steps. Each of these terms is cross-entropy with the labels and, to the part ``distilled``, with the probabilities
    of the trained network.

    Attributes:
        epochs: passes over the training images; 0: the network is converted as it was trained.
        steps: the number of first time steps that are simulated.
        learning_rate: at the start.
        settled: the weight of the network's own loss.
        distilled: the part of every loss that the trained network's probabilities take, from 0 to 1.
        potentials: whether each layer's initial membrane potential is learned too.
    """

    epochs: int = 0
    steps: int = 4
    learning_rate: float = 0.01
    settled: float = 1.0
    distilled: float = 0.5
    potentials: bool = field(default=False, metadata={"omitted": True})

    @classmethod
    def recorded(cls, provenance: Mapping[str, Any]) -> "FineTuning":
        """That of a checkpoint, by its provenance; none if it does not tell of any.

        Raises:
            InputError: if the provenance is damaged.
        """
        given, known = provenance.get("fine_tuning"), asdict(NONE)
        if given is None:
            return NONE
        try:
            return cls(**{name: type(known[name])(value) for name, value in dict(given).items() if name in known})
        except (TypeError, ValueError) as error:
            raise InputError(f"what a checkpoint says of its fine-tuning is damaged ({error}): write it again.") from error

    def __bool__(self) -> bool:
        """Whether there is any."""
        return self.epochs > 0

    def __str__(self) -> str:
        """In tables, runs and figures: ``fine-tuned for 2 epochs over 4 steps``, ``... with learned initial potentials``."""
        epochs, steps = (f"{count} {what}{'s'[: count != 1]}" for count, what in ((self.epochs, "epoch"), (self.steps, "step")))
        learned = " with learned initial potentials" if self.potentials else ""
        return f"fine-tuned for {epochs} over {steps}{learned}" if self else "not fine-tuned"

    def augmentation(self, recipe: Recipe) -> tuple[str, ...]:
        """The augmentations of a recipe that are used."""
        return tuple(name for name in recipe.augmentation if name not in STRONG)

    def as_dict(self, recipe: Recipe) -> dict[str, Any]:
        """All values that determine it, with those of the recipe, for keys and provenance."""
        own = asdict(self)
        return {
            **{name: value for name, value in own.items() if name != "potentials" or value},
            "batch_size": recipe.batch_size,
            "momentum": recipe.momentum,
            "weight_decay": recipe.weight_decay,
            **{name: False for name in ("decay_thresholds", "decay_norms") if not getattr(recipe, name)},
            "augmentation": list(self.augmentation(recipe)),
        }


NONE = FineTuning()
"""No fine-tuning."""
