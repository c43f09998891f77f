"""A confidence measure of your own: an exponential average of the gap between the two largest accumulated logits.

cd examples
dynconf analyse TRACES.npz --rule own_measure:EmaGap     # choose a rule with it, and compare it with all others
dynconf reproduce --rule own_measure:EmaGap              # run the eight settings with it

from own_measure import EmaGap
agent = ExitAgent.from_json("analysis/rule.json", measure=EmaGap)   # use it at run time
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dynconf_core import ConfidenceMeasure, StepOutputs

State = tuple[Tensor, ...]


@dataclass(frozen=True)
class EmaGap(ConfidenceMeasure):
    """e_t = keep e_{t-1} + (1 - keep) g_t with the gap g_t of accumulated logits; e_0 = 0."""

    name = "ema_gap"
    label = "average gap"
    keep: float = 0.5

    def initial(self, samples: int, classes: int, device: torch.device | str = "cpu") -> State:
        return (torch.zeros(samples, dtype=torch.float64, device=device),)

    def step(self, outputs: StepOutputs, state: State) -> tuple[Tensor, State]:
        first, second = outputs.accumulated.topk(2).values.unbind(-1)
        average = self.keep * state[0] + (1 - self.keep) * (first - second)
        return average, (average,)
