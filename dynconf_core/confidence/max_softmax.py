"""`max_softmax`: the confidence of Li, Jones and Furber (ICCV 2023), c_t = max softmax(z'_t), as its log-odds log(c / (1 - c)).

Both give the same order, but the softmax itself is rounded to exactly 1 as soon as the gap exceeds about 37 (float64; 17 in
float32), for right and wrong predictions alike, so that a threshold can no longer separate them.

Alpha matters: for small alpha the log-odds approach the gap between the two largest logits, which is best for some networks;
with alpha about as large as that gap they also distinguish less certain predictions. Constant temperatures from a hundredth of
the median gap up to the gap itself are therefore tried (the paper's form), and a few that depend on the step.
"""

from __future__ import annotations

import contextlib
import math

from torch import Tensor

from dynconf_core.confidence.elementary import exponential, logarithm, others_behind, total
from dynconf_core.confidence.measure import SmoothedMeasure
from dynconf_core.confidence.smoothing import Smoothing
from dynconf_core.confidence.temperature import fit_power, fitting_alphas
from dynconf_core.errors import InputError
from dynconf_core.traces.schema import Traces


class MaxSoftmax(SmoothedMeasure):
    """Log-odds of the largest softmax probability; `shown` is the probability."""

    name = "max_softmax"
    label = "softmax"
    searches_smoothing = True
    of_softmax = True

    def of_smoothed(self, smoothed: Tensor) -> Tensor:
        """-logsumexp of (z'_j - z'_max) over all classes but the (first) largest, in nats.

        0 corresponds to a softmax of one half. The score does not saturate: it grows with the gap.
        """
        others = others_behind(smoothed)
        # The distance of the second largest is taken out of the sum, so that the sum never underflows to 0.
        runner_up = others.amax(dim=-1, keepdim=True)
        return -(runner_up[..., 0] + logarithm(total(exponential(others - runner_up))))

    def smoothings(self, traces: Traces) -> list[Smoothing]:
        alphas = fitting_alphas(traces)
        found = [Smoothing("sum", alpha) for alpha in (alphas[0] / 5, *(alphas[place] for place in (0, 5, 9, 13)))]
        # More confident at early steps than the sum, which imposes a minimum latency; equal at T, where alpha_T is the same.
        sharper = traces.time_steps**0.5
        found += [Smoothing("power", alphas[place] * sharper, -0.5) for place in (5, 9)]
        found.append(Smoothing("mean", fitting_alphas(traces, "mean")[9]))
        with contextlib.suppress(InputError):  # constant logits: there is nothing to fit
            found.append(fit_power(traces))
        return found

    def shown(self, score: float) -> float:
        return sigmoid(score)


def sigmoid(x: float) -> float:
    """1 / (1 + exp(-x)) without overflow: the probability whose log-odds are x."""
    if x >= 0:
        return 1.0 / (1.0 + math.exp(-x))
    return math.exp(x) / (1.0 + math.exp(x))
