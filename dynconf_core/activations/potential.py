"""Membrane potentials that neurons start from, learned for each layer in fine-tuning.

A neuron with V(0) = phi thresholds fires earlier the larger phi is. What its activation does with phi depends on whether the
neurons settle:

    integrate-and-fire   after T steps of the same current x: theta / T clip(floor(T x / theta + phi), 0, T), which tends to
                         clip(x, 0, theta) whatever phi is; so QCFS keeps its own shift of 1/2, the only one that is right on
                         average, and phi belongs to the SNN alone
    signed               settle at s clip(floor(x / s + phi), 0, n); so LSQ rounds with the shift phi too
"""

import torch
from torch import Tensor, nn

from dynconf_core.activations.quantisation import HALF
from dynconf_core.errors import InputError

OFFSET = "offset"
"""The last part of the parameter's name in a state dict."""


class Charging(nn.Module):
    """An activation whose neurons can learn what membrane potential they start from, one number for the layer.

    Attributes:
        offset: V(0) - 1/2 in units of the threshold, from -1/2 to 1/2; None: nothing is learned, V(0) is 1/2.
    """

    offset: nn.Parameter | None

    def __init__(self) -> None:
        super().__init__()
        self.register_parameter(OFFSET, None)

    @property
    def initial(self) -> Tensor | float:
        """V(0) in units of the threshold."""
        return HALF if self.offset is None else self.offset + HALF

    def learn_potential(self) -> None:
        """Let V(0) be a parameter, which starts at 1/2."""
        if self.offset is None:
            like = next(self.parameters(), torch.zeros(()))
            self.offset = nn.Parameter(torch.zeros((), dtype=like.dtype, device=like.device))


def learn_potentials(network: nn.Module) -> None:
    """Let the neurons of every activation learn what they start from.

    Raises:
        InputError: if no activation of the network can.
    """
    found = [module for module in network.modules() if isinstance(module, Charging)]
    if not found:
        raise InputError(
            "fine_tune_potentials=true: no activation of the network can learn an initial potential: use QCFS or LSQ, derive "
            "your own from dynconf_core.activations.potential.Charging, or leave it out."
        )
    for module in found:
        module.learn_potential()


@torch.no_grad()
def keep_potentials(network: nn.Module) -> None:
    """Bring learned potentials back to where they may be, from 0 to 1, after a step of an optimiser."""
    for module in network.modules():
        if isinstance(module, Charging) and module.offset is not None:
            module.offset.clamp_(-HALF, HALF)


def not_learning(network: nn.Module) -> dict[str, Charging]:
    """The activations that could learn and do not, by the name that their parameter would have in a state dict."""
    return {
        f"{name}.{OFFSET}" if name else OFFSET: module
        for name, module in network.named_modules()
        if isinstance(module, Charging) and module.offset is None
    }
