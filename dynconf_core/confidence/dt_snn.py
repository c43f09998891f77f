"""`dt_snn`: DT-SNN, the normalised entropy of the softmax of the summed logits (Li et al., DAC 2023).

A sample exits when the entropy over log C falls below a threshold; the published code proposes 0.1. (The paper writes the mean
of the logits, the code takes their sum.) It is the measure `entropy` without smoothing, and shares its code.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dynconf_core.confidence.entropy import Entropy
from dynconf_core.confidence.measure import State, StepOutputs
from dynconf_core.confidence.smoothing import PLAIN, Smoothing
from dynconf_core.traces.schema import Traces


class DtSnn(Entropy):
    """Minus the entropy of softmax(z_t) over log C; the rule's smoothing is not used."""

    name = "dt_snn"
    reads_smoothing = False
    searches_smoothing = False
    of_softmax = False
    rival = True
    default_threshold = -0.1

    def step(self, outputs: StepOutputs, state: State) -> tuple[Tensor, State]:
        return self.of_smoothed(PLAIN.smoothed(outputs.accumulated, outputs.step)), state

    def scores(self, traces: Traces, smoothing: Smoothing = PLAIN) -> NDArray[np.float64]:
        return super().scores(traces, PLAIN)

    def smoothings(self, traces: Traces) -> list[Smoothing]:
        return [PLAIN]
