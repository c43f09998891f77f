"""Features of the outputs up to a step, for learned measures: what max softmax does not see is their trend.

The trend is captured by r_t, an average of the logits in which each step has half the weight of the next one, r_t = (r_{t-1} +
logits_t) / 2. If another class than the current prediction leads in r_t, it is overtaking the prediction. The square roots come
from random walks: the sum of t outputs deviates by about sqrt(t).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dynconf_core.confidence.elementary import gap, logarithm
from dynconf_core.confidence.step_parameters import LARGEST
from dynconf_core.traces.schema import Traces

FEATURES = ("gap", "gap_per_root_step", "gap_per_step", "recent_margin_root_step", "inverse_root_step", "log_step")
"""In the order of `features`; each is clipped to +-1e100, so that no sum overflows."""


def features(accumulated: Tensor, recent: Tensor, step: Tensor) -> list[Tensor]:
    """The features (...) float64, in the order of `FEATURES`, of traces (n, T) or of one step (n,).

    - gap: z_(1) - z_(2), the largest accumulated logit minus the second largest;
    - gap_per_root_step, gap_per_step: gap / sqrt(t) and gap / t;
    - recent_margin_root_step: sqrt(t) times (r of the prediction minus the largest r of the other classes); negative while the
      prediction is being overtaken;
    - inverse_root_step, log_step: 1 / sqrt(t) and log t.

    Args:
        accumulated: z (..., C) float64.
        recent: r (..., C) float64, see `dynconf_core.confidence.recent`.
        step: t (...), counted from 1; broadcasts.
    """
    steps = step.to(torch.float64)
    root = steps.sqrt()
    lead = gap(accumulated).clamp(max=LARGEST)
    prediction = accumulated.argmax(dim=-1, keepdim=True)
    rival = recent.scatter(-1, prediction, -math.inf).amax(dim=-1)
    margin = (recent.gather(-1, prediction)[..., 0] - rival).clamp(-LARGEST, LARGEST)
    by_step = (torch.ones_like(root) / root, logarithm(steps))
    return [lead, lead / root, lead / steps, margin * root, *(value.expand(lead.shape) for value in by_step)]


def final_predictions(traces: Traces) -> NDArray[np.bool_]:
    """(N, T): whether the prediction at each step equals the one at T, which is what a learned score estimates."""
    predictions = traces.predictions()
    return np.equal(predictions, predictions[:, -1:])
