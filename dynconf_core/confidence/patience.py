"""`patience`: the number of consecutive steps, including this one, with an unchanged prediction."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dynconf_core.confidence.measure import ConfidenceMeasure, State, StepOutputs
from dynconf_core.confidence.smoothing import PLAIN, Smoothing
from dynconf_core.traces.schema import Traces


class Patience(ConfidenceMeasure):
    """Consecutive steps with the same prediction; smoothing is not used."""

    name = "patience"
    label = "number of steps unchanged"

    def initial(self, samples: int, classes: int, device: torch.device | str = "cpu") -> State:
        """The last prediction (n,) int64, initially -1, and the number of steps it has been unchanged (n,) int64."""
        return (
            torch.full((samples,), -1, dtype=torch.int64, device=device),
            torch.zeros(samples, dtype=torch.int64, device=device),
        )

    def step(self, outputs: StepOutputs, state: State) -> tuple[Tensor, State]:
        last, stood = state
        stood = stood * (outputs.prediction == last) + 1
        return stood.to(torch.float64), (outputs.prediction, stood)

    def scores(self, traces: Traces, smoothing: Smoothing = PLAIN) -> NDArray[np.float64]:
        return standing(torch.from_numpy(traces.predictions())).numpy().astype(np.float64)


def standing(predictions: Tensor) -> Tensor:
    """(n, T) int64: the number of consecutive steps, including this one, for which each prediction (n, T) has been
    unchanged."""
    steps = torch.arange(predictions.shape[1]).expand(predictions.shape)
    changed = torch.ones_like(predictions, dtype=torch.bool)
    changed[:, 1:] = predictions[:, 1:] != predictions[:, :-1]
    since = torch.where(changed, steps, 0).cummax(dim=1).values
    return steps - since + 1
