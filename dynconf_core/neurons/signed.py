"""The neuron of QFFS: it can take back a spike by a negative one, so that the net count settles at the quantised activation.

    V(t) = V(t-1) + I(t);   up = [V >= 1 and c < n];   down = [V < 0 and c > 0];   d = up - down
    V(t) -= d;   c += d;   V(0) = 1/2

in units of the threshold theta = n s. Li, Ma, Furber, Front. Neurosci. 2022, 10.3389/fnins.2022.918793 (negative spikes against
occasional noise). A spike has the height theta and the sign of d. The image and the biases are applied only in the first n time
steps; the layers then settle one after the other, and c s finally equals s clip(floor(x / s + 1/2), 0, n), the LSQ activation.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Self

import torch
from torch import Tensor

from dynconf_core.errors import InputError
from dynconf_core.neurons.model import NeuronModel, State, triangle


class PotentialAndCount(NamedTuple):
    """The membrane potential, in units of the threshold, and the net spike count c (``net``), both ``(N, ...)``, after the
    step."""

    potential: Tensor
    net: Tensor


@dataclass(frozen=True)
class Signed(NeuronModel):
    """Sends at most one spike of either sign per time step; its net spike count stays between 0 and n = ``levels``."""

    levels: int = 15
    name: ClassVar[str] = "signed"
    free_potential: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if type(self.levels) is not int or self.levels < 1:
            raise InputError(f"levels={self.levels!r}: signed neurons need a whole number of levels, at least 1.")

    def initial(self, like: Tensor, potential: Tensor | float) -> PotentialAndCount:
        """V(0) = ``potential`` and c(0) = 0."""
        return PotentialAndCount(super().initial(like, potential)[0], torch.zeros_like(like))

    def fire(self, state: State, out: Tensor) -> tuple[Tensor, PotentialAndCount]:
        """d = up - down, V -= d, c += d."""
        potential, net = state
        # floor(V), clipped to [-1, 1], is 1 for V >= 1 and -1 for V < 0; the limits of c then suppress some of these spikes.
        after = out.copy_(potential).floor_().clamp_(-1, 1).add(net).clamp_(0, self.levels)
        spikes = torch.sub(after, net, out=out)
        return spikes, PotentialAndCount(potential.sub_(spikes), after)

    def slope(self, state: State) -> Tensor:
        """A triangle around V = 1 where a further spike is possible, and one around V = 0 where one can be taken back."""
        potential, net = state
        return triangle(potential - 1) * (net < self.levels) + triangle(potential) * (net > 0)

    @property
    def sends(self) -> tuple[int, int]:
        """-1, 0 or 1."""
        return -1, 1

    def sends_in_all(self, time_steps: int) -> tuple[int, int]:
        """The bounds of the net spike count."""
        return 0, self.levels

    @property
    def active_steps(self) -> int:
        """n."""
        return self.levels

    def __str__(self) -> str:
        return f"signed with n = {self.levels}"

    @classmethod
    def of(cls, levels: int | None) -> Self:
        """The model with n = ``levels``.

        Raises:
            InputError: if ``levels`` is None.
        """
        if levels is None:
            raise InputError("neurons='signed' with levels=None: signed neurons need levels (n, such as 15).")
        return cls(levels)
