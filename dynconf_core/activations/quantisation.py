"""The interface between a trained activation and conversion: what it quantises to, and which neuron model replaces it."""

from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor


class Quantisation(NamedTuple):
    """q(x) = theta / n clip(floor(n x / theta + 1/2), 0, n), or with two sides q(x) - slope q(-x).

    Attributes:
        levels: n, the number of levels above 0.
        threshold: theta > 0, one number or one per channel: ``()``, ``(1,)``, ``(C,)``, ``(1, C, 1, 1)``. Computed from the
            module's parameters with their gradients, so that fine-tuning can change it.
        neurons: the neuron model that replaces the activation, by name (see ``dynconf_core.neurons.model.NEURONS``) or as
            ``package.module:Class``.
        slope: of the negative side, one number or one per channel; 0 for an activation that is never negative.
    """

    levels: int
    threshold: Tensor
    neurons: str
    slope: Tensor | float = 0.0


@runtime_checkable
class Quantised(Protocol):
    """An activation module that can be converted: all it needs is this method."""

    def quantisation(self) -> Quantisation:
        """The function that the trained module computes."""
