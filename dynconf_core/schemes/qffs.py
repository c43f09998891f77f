"""QFFS: activations with a learned step size (LSQ) become signed neurons that start at half the threshold.

Li, Ma, Furber, "Quantization Framework for Fast Spiking Neural Networks", Front. Neurosci. 2022, 10.3389/fnins.2022.918793.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from dynconf_core.networks.architecture import Activation
from dynconf_core.schemes.field import Field, whole


@dataclass(frozen=True)
class QFFSScheme:
    """QFFS with activations of ``bits`` bits."""

    bits: int

    title: ClassVar[str] = "QFFS"
    neurons: ClassVar[str] = "signed"
    starts_from_a_threshold: ClassVar[bool] = False
    images: ClassVar[int] = 32
    fields: ClassVar[Mapping[str, Field]] = {"bits": whole(1, 8)}

    @classmethod
    def preset(cls, profile: str, family: str) -> tuple[Self, int]:
        """2 bits and T = 8 in every profile."""
        return cls(bits=2), 8

    def activation(self, initial_threshold: float) -> Activation:
        """See ``ConversionScheme``; the step size is initialised from the first batch, so the threshold is not used."""
        from dynconf_core.activations.lsq import LSQ

        return lambda: LSQ(self.bits)

    def network(self) -> dict[str, Any]:
        """See ``ConversionScheme``."""
        return {"bits": self.bits}

    def conversion(self, time_steps: int) -> dict[str, Any]:
        """See ``ConversionScheme``."""
        return {"thresholds": "learned"}
