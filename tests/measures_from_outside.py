"""A confidence measure as a user would write one, outside the package."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from torch import Tensor

from dynconf_core.confidence.measure import ConfidenceMeasure, State, StepOutputs
from dynconf_core.confidence.smoothing import Smoothing
from dynconf_core.traces.schema import Traces


@dataclass(frozen=True)
class ShareOfVotes(ConfidenceMeasure):
    """The share of steps that voted for the current prediction; each class starts with a few votes."""

    name = "share_of_votes"
    label = "share of votes"
    reads_smoothing = True
    prior: float = 0.25

    def initial(self, samples: int, classes: int, device: torch.device | str = "cpu") -> State:
        return (torch.full((samples, classes), self.prior, dtype=torch.float64, device=device),)

    def step(self, outputs: StepOutputs, state: State) -> tuple[Tensor, State]:
        votes = state[0].scatter_add(1, outputs.smoothed.argmax(dim=1, keepdim=True), torch.ones_like(state[0]))
        return votes.gather(1, outputs.prediction[:, None])[:, 0] / votes.sum(dim=1), (votes,)

    def smoothings(self, traces: Traces) -> list[Smoothing]:
        return [Smoothing("sum", 2.0), Smoothing("mean", 0.5)]

    def shown(self, score: float) -> float:
        return 100 * score


@dataclass(frozen=True)
class FailsOnTest(ShareOfVotes):
    """Raises for the 497 test images of the digits while the environment says so, in whatever process it runs."""

    name = "fails_on_test"
    label = "share of votes"

    def step(self, outputs: StepOutputs, state: State) -> tuple[Tensor, State]:
        if len(outputs.smoothed) == 497 and os.environ.get("FAULT_OF_THE_TEST"):
            raise ArithmeticError("a fault made by the test")
        return super().step(outputs, state)
