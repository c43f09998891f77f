"""`gap`: the largest z'_t minus the second largest (the top-k gap of SNNCutoff)."""

from __future__ import annotations

from torch import Tensor

from dynconf_core.confidence.elementary import gap
from dynconf_core.confidence.measure import SmoothedMeasure
from dynconf_core.confidence.smoothing import PLAIN, Smoothing
from dynconf_core.traces.schema import Traces


class Gap(SmoothedMeasure):
    """The gap between the two largest smoothed logits. Its order does not depend on alpha, only on the exponent of the step."""

    name = "gap"
    label = "gap"

    def of_smoothed(self, smoothed: Tensor) -> Tensor:
        return gap(smoothed)

    def smoothings(self, traces: Traces) -> list[Smoothing]:
        return [PLAIN, *(Smoothing("power", 1.0, exponent) for exponent in (0.25, 0.5))]
