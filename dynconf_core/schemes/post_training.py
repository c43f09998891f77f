"""Post-training conversion: the ReLUs of a network trained elsewhere become signed neurons.

The thresholds are those with the least error on calibration images; thresholds and biases are then corrected layer by layer.
See ``dynconf_core.conversion``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from dynconf_core.networks.architecture import Activation
from dynconf_core.schemes.field import Field, whole


@dataclass(frozen=True)
class PostTraining:
    """Post-training conversion to signed neurons with ``levels`` (n) levels, at most T."""

    levels: int = 15

    title: ClassVar[str] = "post-training"
    neurons: ClassVar[str] = "signed"
    starts_from_a_threshold: ClassVar[bool] = False
    images: ClassVar[int] = 1024
    fields: ClassVar[Mapping[str, Field]] = {"levels": whole(1, 256)}

    @classmethod
    def preset(cls, profile: str, family: str) -> tuple[Self, int]:
        """n = 15 and T = 32 in every profile."""
        return cls(levels=15), 32

    def activation(self, initial_threshold: float) -> Activation:
        """A plain ReLU; see ``ConversionScheme``."""
        from torch import nn

        return nn.ReLU

    def network(self) -> dict[str, Any]:
        """Nothing, since the network is the same for every n; see ``ConversionScheme``."""
        return {}

    def conversion(self, time_steps: int) -> dict[str, Any]:
        """See ``ConversionScheme``."""
        return {"thresholds": "error", "neurons": self.neurons, "levels": min(self.levels, time_steps), "correct": True}
