"""A measure of confidence from outside: an exponential average of the gap between the two largest logits."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dynconf_core.confidence.measure import ConfidenceMeasure, State, StepOutputs


@dataclass(frozen=True, eq=False)
class RunningGap(ConfidenceMeasure):
    """``decay`` is what of the average is kept in a step."""

    decay: float = 0.5
    name: ClassVar[str] = "running_gap"

    def initial(self, samples: int, classes: int, device: torch.device | str = "cpu") -> State:
        return (torch.zeros(samples, dtype=torch.float64, device=device),)

    def step(self, outputs: StepOutputs, state: State) -> tuple[Tensor, State]:
        first, second = outputs.accumulated.topk(2, dim=1).values.unbind(1)
        average = self.decay * state[0] + (1 - self.decay) * (first - second)
        return average, (average,)
