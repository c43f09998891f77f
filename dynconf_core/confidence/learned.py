"""A learned score: the log-odds that the present prediction is the one the network will give at T.

An exit loses nothing where waiting would not have changed the prediction, right or wrong. Max softmax estimates that the
prediction is right; this score estimates that it is final, by a logistic regression on six features of the logits, fitted
on the calibration split by `dynconf_core.confidence.fit_learned`.

In the terms of optimal stopping (Ferguson, "Optimal Stopping and Applications", ch. 2: a finite horizon) every step costs the
same, and to stop costs the chance that the answer at T is another. To stop where that chance is below a constant is an
approximation: the best rule would also weigh how fast the chance is about to fall.

What max softmax cannot see is the way the outputs are going: r_t, the average of the logits in which each step before
counts half as much as the next, r_t = (r_{t-1} + logits_t) / 2. Where a rival of the present prediction leads in r_t, the
prediction is being overtaken. The square roots come from random walks: a sum of t outputs strays by sqrt(t).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dynconf_core.confidence.elementary import logarithm
from dynconf_core.confidence.measures import gap
from dynconf_core.errors import InputError

FEATURES = ("gap", "gap_per_root_step", "gap_per_step", "recent_margin_root_step", "inverse_root_step", "log_step")
# Logits beyond it count alike, and no weight is above it, so that no sum overflows.
LARGEST = 1e100


def features(accumulated: Tensor, recent: Tensor, step: Tensor) -> list[Tensor]:
    """The features (...) float64, in the order of `FEATURES`, of traces (n, T) or of one step (n,).

    - gap: z_(1) - z_(2), the largest accumulated logit minus the second;
    - gap_per_root_step, gap_per_step: gap / sqrt(t) and gap / t;
    - recent_margin_root_step: sqrt(t) times r of the prediction minus the largest r of the others; negative where the
      prediction is being overtaken;
    - inverse_root_step, log_step: 1 / sqrt(t) and log t.

    Args:
        accumulated: z (..., C) float64.
        recent: r (..., C) float64, see `recent_average`.
        step: t (...), from 1; broadcasts.
    """
    steps = step.to(torch.float64)
    root = steps.sqrt()
    lead = gap(accumulated).clamp(max=LARGEST)
    prediction = accumulated.argmax(dim=-1, keepdim=True)
    rival = recent.scatter(-1, prediction, -math.inf).amax(dim=-1)
    margin = (recent.gather(-1, prediction)[..., 0] - rival).clamp(-LARGEST, LARGEST)
    by_step = (torch.ones_like(root) / root, logarithm(steps))
    return [lead, lead / root, lead / steps, margin * root, *(value.expand(lead.shape) for value in by_step)]


def next_recent(recent: Tensor, logits: Tensor) -> Tensor:
    """r_t (..., C) of r_{t-1} and the logits of step t, all float64; r_0 is 0."""
    return (recent + logits) * 0.5


def recent_average(logits: Tensor) -> Tensor:
    """r (n, T, C) of the logits (n, T, C) of each step, float64."""
    averages = torch.empty_like(logits)
    recent = torch.zeros_like(logits[:, 0])
    for step in range(logits.shape[1]):
        recent = next_recent(recent, logits[:, step])
        averages[:, step] = recent
    return averages


@dataclass(frozen=True)
class LearnedScore:
    """A logistic regression: intercept + sum of weight times feature, as log-odds.

    Attributes:
        weights: by the names of `FEATURES`, for the features as they are (no standardisation is left).
        intercept: the log-odds where all features are 0.

    Raises:
        InputError: for a feature that is unknown or missing, or a number that is not finite or beyond 1e100.
    """

    weights: Mapping[str, float]
    intercept: float

    def __post_init__(self) -> None:
        if not isinstance(self.weights, Mapping) or set(self.weights) != set(FEATURES):
            raise InputError(f"learned weights = {self.weights!r}; give one number for each of {', '.join(FEATURES)}.")
        for name, value in (*self.weights.items(), ("intercept", self.intercept)):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= LARGEST:
                raise InputError(f"learned {name} = {value!r} is not a finite number; give one within +-1e100.")
        object.__setattr__(self, "weights", {name: float(self.weights[name]) for name in FEATURES})
        object.__setattr__(self, "intercept", float(self.intercept))

    def score(self, accumulated: Tensor, recent: Tensor, step: Tensor) -> Tensor:
        """The log-odds (...) float64, for the arguments of `features`."""
        return self.of_features(features(accumulated, recent, step))

    def of_features(self, found: list[Tensor]) -> Tensor:
        """The log-odds (...) float64 of what `features` gives, summed in a fixed order."""
        odds = torch.full_like(found[0], self.intercept)
        for weight, feature in zip(self.weights.values(), found, strict=True):
            odds += feature * weight
        return odds

    def to_dict(self) -> dict[str, Any]:
        """{"weights": {...}, "intercept": ...}, as files hold it."""
        return {"weights": dict(self.weights), "intercept": self.intercept}

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> LearnedScore:
        """The reverse of `to_dict`; an InputError names what is missing or wrong."""
        if not isinstance(entry, Mapping) or not {"weights", "intercept"} <= set(entry):
            raise InputError(f"learned = {entry!r} lacks weights or intercept; give both, as a JSON object.")
        return cls(weights=entry["weights"], intercept=entry["intercept"])
