"""The interface between a trained activation and conversion: what it quantises to, and which neuron model replaces it."""

from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor

HALF = 0.5
"""The shift of an activation that rounds half up, and V(0) of neurons that agree with it, in units of the threshold."""


class Quantisation(NamedTuple):
    """q(x) = theta / n clip(floor(n x / theta + shift), 0, n), or with two sides q(x) - slope q(-x).

    Attributes:
        levels: n, the number of levels above 0.
        threshold: theta > 0, one number or one per channel: ``()``, ``(1,)``, ``(C,)``, ``(1, C, 1, 1)``. Computed from the
            module's parameters with their gradients, so that fine-tuning can change it.
        neurons: the neuron model that replaces the activation, by name (see ``dynconf_core.neurons.model.NEURONS``) or as
            ``package.module:Class``.
        slope: of the negative side, one number or one per channel; 0 for an activation that is never negative.
        shift: from 0 to 1, one number or one per channel; 1/2 rounds half up.
        initial: V(0) of the neurons in units of the threshold, from 0 to 1, one number or one per channel. Neurons that settle
            at q(x) need V(0) = ``shift``.
    """

    levels: int
    threshold: Tensor
    neurons: str
    slope: Tensor | float = 0.0
    shift: Tensor | float = HALF
    initial: Tensor | float = HALF

    def charge(self) -> dict[str, Tensor | float]:
        """``shift`` and ``initial`` by name, without those that are the plain number 1/2."""
        found = {"shift": self.shift, "initial": self.initial}
        return {name: given for name, given in found.items() if isinstance(given, Tensor) or given != HALF}


@runtime_checkable
class Quantised(Protocol):
    """An activation module that can be converted: all it needs is this method."""

    def quantisation(self) -> Quantisation:
        """The function that the trained module computes."""
