"""QCFS: quantisation-clip-floor-shift activations become integrate-and-fire neurons with the learned thresholds.

Bu et al., "Optimal ANN-SNN Conversion for High-accuracy and Ultra-low-latency Spiking Neural Networks", ICLR 2022,
arXiv 2303.04347.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from dynconf_core.networks.architecture import Activation
from dynconf_core.schemes.field import Field, between, whole


@dataclass(frozen=True)
class QCFSScheme:
    """QCFS with ``levels`` (L) and V(0) = ``initial_potential``, in units of the threshold."""

    levels: int
    initial_potential: float = 0.5

    title: ClassVar[str] = "QCFS"
    neurons: ClassVar[str] = "integrate-and-fire"
    starts_from_a_threshold: ClassVar[bool] = True
    images: ClassVar[int] = 32
    fields: ClassVar[Mapping[str, Field]] = {
        "levels": whole(1, 256),
        "initial_potential": Field(
            float, "a number from 0 to below 1, in units of the threshold", lambda value: between(0, 1)(value) and value < 1
        ),
    }

    @classmethod
    def preset(cls, profile: str, family: str) -> tuple[Self, int]:
        """L = 4 and T = 32; L = 8 and T = 64 on the full ImageNet, where the paper's mean exit steps reach 49.5."""
        return (cls(levels=8), 64) if (profile, family) == ("paper", "imagenet") else (cls(levels=4), 32)

    def activation(self, initial_threshold: float) -> Activation:
        """See ``ConversionScheme``."""
        from dynconf_core.activations.qcfs import QCFS

        return lambda: QCFS(self.levels, initial_threshold)

    def network(self) -> dict[str, Any]:
        """See ``ConversionScheme``."""
        return {"levels": self.levels}

    def conversion(self, time_steps: int) -> dict[str, Any]:
        """See ``ConversionScheme``."""
        return {"thresholds": "learned", "initial_potential": self.initial_potential}
