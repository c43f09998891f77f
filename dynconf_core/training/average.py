"""The moving average of a network's weights over the steps of its training, and the statistics that belong to it."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from dynconf_core.training.parallel import NORMS

BATCHES = 100
"""Batches after which batch normalisation, which forgets a tenth with each, has the statistics of the averaged weights."""


class Average:
    """The average of the parameters of ``network``, learned thresholds among them: a <- d a + (1 - d) w after every step.

    d is ``decay``, at the start (1 + n) / (10 + n) after n steps if that is less, so that the first weights are soon forgotten.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = network
        self.decay = decay
        self.steps = 0
        self.mean = [one.detach().clone() for one in network.parameters()]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the parameters as they are now."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        get_ema_multi_avg_fn(decay)(self.mean, list(self.network.parameters()), self.steps)

    @torch.no_grad()
    def into_network(self) -> None:
        """Make the average the network's parameters, and forget the statistics of its batch normalisation."""
        for own, mean in zip(self.network.parameters(), self.mean, strict=True):
            own.copy_(mean)
        for module in self.network.modules():
            if isinstance(module, NORMS):
                module.reset_running_stats()

    def state(self) -> dict[str, Any]:
        """What ``load`` needs to go on."""
        return {"steps": self.steps, "mean": self.mean}

    @torch.no_grad()
    def load(self, state: dict[str, Any]) -> None:
        """Go on from a ``state``."""
        self.steps = state["steps"]
        kept: list[Tensor] = state["mean"]
        for own, mean in zip(self.mean, kept, strict=True):
            own.copy_(mean)
