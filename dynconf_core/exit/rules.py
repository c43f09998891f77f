"""An exit rule: a score, its smoothing and a threshold; the first score above the threshold exits, else T.

This is the decision-making agent of Li, Jones and Furber (ICCV 2023) as data: `to_json` is what `rule.json`,
the results and a user's own code hold.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dynconf_core.confidence.scores import checked_measure, score, shown
from dynconf_core.confidence.smoothing import Smoothing
from dynconf_core.errors import InputError
from dynconf_core.traces import Traces

INFINITIES = {"inf": math.inf, "-inf": -math.inf}


@dataclass(frozen=True)
class Rule:
    """Exit at the first step whose score `measure` of the smoothed logits is greater than `threshold`.

    Attributes:
        measure: a name in `dynconf_core.confidence.scores.SCORES`.
        smoothing: what is done to the accumulated logits first.
        threshold: in units of the score (log-odds for `max_softmax`); inf never exits, -inf at once.

    Raises:
        InputError: for an unknown measure or a threshold that is not a number.
    """

    measure: str
    smoothing: Smoothing
    threshold: float

    def __post_init__(self) -> None:
        checked_measure(self.measure)
        if isinstance(self.threshold, bool) or not isinstance(self.threshold, (int, float)):
            raise InputError(f'threshold = {self.threshold!r} is not a number; give one, or "inf" or "-inf".')
        if math.isnan(self.threshold):
            raise InputError('threshold = nan compares with nothing; give a number, or "inf" or "-inf".')
        object.__setattr__(self, "threshold", float(self.threshold))

    def exit_steps(self, traces: Traces) -> NDArray[np.int64]:
        """(N,) the step, from 1, at which each sample of `traces` exits."""
        return exit_steps(score(traces, self.measure, self.smoothing), self.threshold)

    def to_json(self) -> dict[str, Any]:
        """The entry that files hold; JSON has no infinity, so the threshold may be "inf" or "-inf"."""
        threshold: float | str = self.threshold
        if math.isinf(self.threshold):
            threshold = "inf" if self.threshold > 0 else "-inf"
        return {
            "rule": self.measure,
            "smoothing": self.smoothing.to_dict(),
            "threshold": threshold,
            "threshold_shown": shown(self.measure, self.threshold),
        }

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Rule:
        """The reverse of `to_json`; further fields are left alone.

        Raises:
            InputError: naming the field that is missing or wrong.
        """
        if not isinstance(entry, Mapping):
            raise InputError(f"a rule is a JSON object, not a {type(entry).__name__}.")
        for name in ("rule", "smoothing", "threshold"):
            if name not in entry:
                raise InputError(f"the rule lacks the field {name}; it needs rule, smoothing and threshold.")
        threshold = entry["threshold"]
        if isinstance(threshold, str):
            if threshold not in INFINITIES:
                raise InputError(f'threshold = {threshold!r} is not a number; give one, or "inf" or "-inf".')
            threshold = INFINITIES[threshold]
        return cls(entry["rule"], Smoothing.from_dict(entry["smoothing"]), threshold)


def exit_steps(scores: NDArray[np.float64], threshold: float) -> NDArray[np.int64]:
    """(N,) the first step, from 1, whose score (N, T) is greater than the threshold; T where none is."""
    leaves = scores > threshold
    leaves[:, -1] = True
    steps: NDArray[np.int64] = leaves.argmax(axis=1) + 1
    return steps


def at_exit(correct: NDArray[np.bool_], steps: NDArray[np.int64]) -> dict[str, float]:
    """{"accuracy", "mean_steps"} of samples that leave at `steps` (N,), from 1; correct is (N, T)."""
    right = correct[np.arange(len(steps)), steps - 1]
    return {"accuracy": float(right.mean()), "mean_steps": float(steps.mean())}
