"""`max_softmax`: the confidence of Li, Jones and Furber (ICCV 2023), c_t = max softmax(z'_t), as its log-odds log(c / (1 - c)).

The two order alike, but the softmax itself reaches exactly 1 for right and wrong answers alike as soon as the gap passes some
37 (float64; 17 in float32), and a threshold can then no longer tell them apart.

Alpha matters: the smaller it is, the closer log-odds come to the gap of the two highest logits, which is best for some
networks; about as large as that gap is, they tell apart what is less sure. So constant temperatures from a hundredth of the
median gap to all of it are tried (the paper's form), and a few that depend on the step.
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
    """Log-odds of the largest softmax; a person reads the softmax."""

    name = "max_softmax"
    label = "softmax"
    searches_smoothing = True
    of_softmax = True

    def of_smoothed(self, smoothed: Tensor) -> Tensor:
        """-logsumexp over the classes but the first largest of (z'_j - z'_max), in nats.

        0 is a softmax of one half, and nothing saturates: it grows as the gap does.
        """
        others = others_behind(smoothed)
        # The runner-up's distance is taken out of the sum, so that exp never underflows to a sum of 0.
        runner_up = others.amax(dim=-1, keepdim=True)
        return -(runner_up[..., 0] + logarithm(total(exponential(others - runner_up))))

    def smoothings(self, traces: Traces) -> list[Smoothing]:
        alphas = fitting_alphas(traces)
        found = [Smoothing("sum", alpha) for alpha in (alphas[0] / 5, *(alphas[place] for place in (0, 5, 9, 13)))]
        # Early steps are made surer than by the sum, which builds in a least latency: alike at T, where alpha_T is the same.
        sharper = traces.time_steps**0.5
        found += [Smoothing("power", alphas[place] * sharper, -0.5) for place in (5, 9)]
        found.append(Smoothing("mean", fitting_alphas(traces, "mean")[9]))
        with contextlib.suppress(InputError):  # constant logits: there is nothing to fit
            found.append(fit_power(traces))
        return found

    def shown(self, score: float) -> float:
        return sigmoid(score)


def sigmoid(x: float) -> float:
    """1 / (1 + exp(-x)) without overflow: the probability that log-odds of x stand for."""
    if x >= 0:
        return 1.0 / (1.0 + math.exp(-x))
    return math.exp(x) / (1.0 + math.exp(x))
