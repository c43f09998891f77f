"""How an activation tells its conversion: what it quantises to, and which neurons stand for it."""

from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor


class Quantisation(NamedTuple):
    """y = theta / n clip(floor(n x / theta + 1/2), 0, n).

    Attributes:
        levels: n, the number of levels above 0.
        threshold: theta, a number ``()`` or one a channel ``(C,)``, above 0.
        neurons: the model of its neurons, by name (see ``dynconf_core.neurons.model.NEURONS``) or as ``package.module:Class``.
    """

    levels: int
    threshold: Tensor
    neurons: str


@runtime_checkable
class Quantised(Protocol):
    """An activation module that conversion understands: it has this one method."""

    def quantisation(self) -> Quantisation:
        """What the trained module computes."""
