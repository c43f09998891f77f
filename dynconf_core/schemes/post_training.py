"""Post-training conversion: a plain ReLU network becomes signed neurons, thresholds and corrections found from images.

The thresholds are those with the least error on the calibration images, biases and thresholds are then corrected layer by
layer; see ``dynconf_core.conversion``. For networks that somebody has trained elsewhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from dynconf_core.networks.architecture import Activation
from dynconf_core.schemes.field import Field, whole


@dataclass(frozen=True)
class PostTraining:
    """Signed neurons with ``levels`` (n) spikes at most, at most T."""

    levels: int = 15

    title: ClassVar[str] = "post-training"
    neurons: ClassVar[str] = "signed"
    starts_from_a_threshold: ClassVar[bool] = False
    images: ClassVar[int] = 1024
    fields: ClassVar[Mapping[str, Field]] = {"levels": whole(1, 256)}

    @classmethod
    def preset(cls, profile: str, family: str) -> tuple[Self, int]:
        """n = 15 and T = 32, everywhere."""
        return cls(levels=15), 32

    def activation(self, initial_threshold: float) -> Activation:
        """See ``ConversionScheme``: a plain ReLU."""
        from torch import nn

        return nn.ReLU

    def network(self) -> dict[str, Any]:
        """See ``ConversionScheme``: the network is the same for every n."""
        return {}

    def conversion(self, time_steps: int) -> dict[str, Any]:
        """See ``ConversionScheme``."""
        return {"thresholds": "error", "neurons": self.neurons, "levels": min(self.levels, time_steps), "correct": True}
