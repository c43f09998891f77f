"""`entropy`: minus the entropy of softmax(z'_t) over log C, in [-1, 0] (SEENN; DT-SNN)."""

from __future__ import annotations

import torch
from torch import Tensor

from dynconf_core.confidence.elementary import exponential, logarithm, logarithm_1p, others_behind, total
from dynconf_core.confidence.measure import SmoothedMeasure
from dynconf_core.confidence.smoothing import Smoothing
from dynconf_core.confidence.temperature import fitting_alphas
from dynconf_core.traces.schema import Traces


class Entropy(SmoothedMeasure):
    """Minus the entropy over log C; `shown` is the normalised entropy itself."""

    name = "entropy"
    label = "entropy / log C"
    searches_smoothing = True
    of_softmax = True

    def of_smoothed(self, smoothed: Tensor) -> Tensor:
        """-1 (uniform softmax) to 0 (certainty).

        With d_j = z'_j - z'_max and u the sum of exp(d_j) over all classes but the (first) largest, -log softmax_j is log(1 +
        u) - d_j, and the entropy is log(1 + u) + sum_j (-d_j) exp(d_j) / (1 + u): a sum of non-negative terms, accurate near 0
        too.
        """
        others = others_behind(smoothed)
        weights = exponential(others)
        # The largest class itself, at -inf, contributes nothing to either sum.
        weighted = total(weights * torch.where(torch.isinf(others), 0.0, others))
        weight = total(weights)
        entropy = logarithm_1p(weight) - weighted / (1.0 + weight)
        return -(entropy / logarithm(torch.full_like(entropy, smoothed.shape[-1])))

    def smoothings(self, traces: Traces) -> list[Smoothing]:
        alphas = fitting_alphas(traces)
        return [Smoothing("sum", alpha) for alpha in (alphas[0] / 5, *(alphas[place] for place in (0, 7, 12)))]

    def shown(self, score: float) -> float:
        return 0.0 - score
