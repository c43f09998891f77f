"""`seenn_1`: SEENN-I, the largest softmax probability of the summed logits over a divisor (Li et al., NeurIPS 2023).

The published code divides the sum by 8 for networks converted with QCFS, and by nothing for networks that are trained directly;
its threshold for QCFS is 0.8. It is max softmax with the smoothing z / 8, and shares its code: the log-odds give the same exits
as the probability, and do not round to 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dynconf_core.confidence.max_softmax import MaxSoftmax
from dynconf_core.confidence.measure import State, StepOutputs
from dynconf_core.confidence.smoothing import PLAIN, Smoothing
from dynconf_core.traces.schema import Traces


@dataclass(frozen=True, eq=False, repr=False)
class SeennI(MaxSoftmax):
    """Log-odds of the largest probability of softmax(z_t / divisor); the rule's smoothing is not used.

    Attributes:
        divisor: > 0, of the summed logits.

    Raises:
        InputError: for a divisor that is not a finite number above 0.
    """

    name = "seenn_1"
    label = "softmax"
    reads_smoothing = False
    searches_smoothing = False
    of_softmax = False
    rival = True
    default_threshold = math.log(0.8 / 0.2)

    divisor: float = 8.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "divisor", Smoothing("sum", self.divisor).alpha)

    def step(self, outputs: StepOutputs, state: State) -> tuple[Tensor, State]:
        return self.of_smoothed(Smoothing("sum", self.divisor).smoothed(outputs.accumulated, outputs.step)), state

    def scores(self, traces: Traces, smoothing: Smoothing = PLAIN) -> NDArray[np.float64]:
        return super().scores(traces, Smoothing("sum", self.divisor))

    def smoothings(self, traces: Traces) -> list[Smoothing]:
        return [PLAIN]
