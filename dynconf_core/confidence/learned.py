"""`learned`: the log-odds that the current prediction equals the one at T, fitted on the calibration split.

An exit loses no accuracy if waiting would not have changed the prediction, right or wrong. Max softmax estimates whether the
prediction is right; this measure estimates whether it is final, with a logistic regression on six features of the logits.

In terms of optimal stopping (Ferguson, "Optimal Stopping and Applications", ch. 2: finite horizon), every step has the same
cost, and stopping costs the probability that the prediction at T is a different one. Stopping when this probability falls below
a constant is an approximation: the optimal rule would also consider how fast it is about to fall.

What max softmax does not see is the trend of the outputs. It is captured by r_t, an average of the logits in which each step
has half the weight of the next one, r_t = (r_{t-1} + logits_t) / 2. If another class than the current prediction leads in r_t,
it is overtaking the prediction. The square roots come from random walks: the sum of t outputs deviates by about sqrt(t).

The threshold is searched on the samples that the weights were fitted on. Scores that were fitted to a sample's own future are
too good, and a threshold chosen on them would exit too early on new samples. The samples are therefore divided into folds, and
each is scored with weights fitted on the other folds; the threshold is searched on these out-of-fold scores. The final weights
are fitted on all samples. A row of the regression is one sample at one step with the weight 1 / sqrt(t), because late steps are
numerous and nearly alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dynconf_core.confidence.elementary import gap, logarithm
from dynconf_core.confidence.max_softmax import sigmoid
from dynconf_core.confidence.measure import ConfidenceMeasure, State, StepOutputs, chunks, logits_of
from dynconf_core.confidence.recent import next_recent, recent_average
from dynconf_core.confidence.smoothing import PLAIN, Smoothing
from dynconf_core.errors import InputError
from dynconf_core.traces.schema import Traces

FEATURES = ("gap", "gap_per_root_step", "gap_per_step", "recent_margin_root_step", "inverse_root_step", "log_step")
# Larger features are clipped to it and larger weights are rejected, so that no sum overflows.
LARGEST = 1e100
FOLDS = 5
# Maximum number of rows (a sample at a step) in a fit: neighbouring steps are nearly alike.
ROWS = 2**20
# The features are similar (gaps over powers of t), so that strong regularisation would blur their differences; a weak one keeps
# the weights finite where a few samples are perfectly separable.
PULL = 1e-4


@dataclass(frozen=True, eq=False)
class Learned(ConfidenceMeasure):
    """A logistic regression: intercept + sum of weight times feature, as log-odds; `shown` is the probability.

    Attributes:
        weights: by the names in `FEATURES`, for the features as they are (the standardisation is folded in); None: not fitted
            yet.
        intercept: the log-odds if all features are 0.

    Raises:
        InputError: for a feature that is unknown or missing, or a number that is not finite or exceeds 1e100.
    """

    name = "learned"
    label = "probability that the prediction is final"
    least_samples = FOLDS
    least_steps = 2

    weights: Mapping[str, float] | None = None
    intercept: float = 0.0

    def __post_init__(self) -> None:
        if self.weights is None:
            return
        if not isinstance(self.weights, Mapping) or set(self.weights) != set(FEATURES):
            raise InputError(f"learned weights = {self.weights!r}; give one number for each of {', '.join(FEATURES)}.")
        for name, value in (*self.weights.items(), ("intercept", self.intercept)):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= LARGEST:
                raise InputError(f"learned {name} = {value!r} is not a finite number; give one within +-1e100.")
        object.__setattr__(self, "weights", {name: float(self.weights[name]) for name in FEATURES})
        object.__setattr__(self, "intercept", float(self.intercept))

    @property
    def fitted(self) -> bool:
        return self.weights is not None

    def fit(self, calibration: Traces, smoothing: Smoothing, seed: int) -> tuple[Self, NDArray[np.float64] | None]:
        """See `fit_learned`; labels and smoothing are not used."""
        fitted, out_of_fold = fit_learned(calibration, seed)
        return type(self)(fitted.weights, fitted.intercept), out_of_fold

    def initial(self, samples: int, classes: int, device: torch.device | str = "cpu") -> State:
        """r_0 (n, C) float64: 0."""
        return (torch.zeros(samples, classes, dtype=torch.float64, device=device),)

    def step(self, outputs: StepOutputs, state: State) -> tuple[Tensor, State]:
        recent = next_recent(state[0], outputs.logits)
        return self.of_features(features(outputs.accumulated, recent, outputs.step)), (recent,)

    def scores(self, traces: Traces, smoothing: Smoothing = PLAIN) -> NDArray[np.float64]:
        scores = np.empty((traces.samples, traces.time_steps), dtype=np.float64)
        for rows, found in _features_of(traces):
            scores[rows] = self.of_features(found).numpy()
        return scores

    def of_features(self, found: list[Tensor]) -> Tensor:
        """The log-odds (...) float64 for the result of `features`, summed in a fixed order."""
        if self.weights is None:
            raise InputError("measure 'learned' needs its fitted parameters: call fit on calibration traces first.")
        odds = torch.full_like(found[0], self.intercept)
        for weight, feature in zip(self.weights.values(), found, strict=True):
            odds += feature * weight
        return odds

    def shown(self, score: float) -> float:
        return sigmoid(score)

    @classmethod
    def from_json(cls, parameters: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`; an InputError names what is missing or wrong."""
        if not {"weights", "intercept"} <= set(parameters) or parameters["weights"] is None:
            raise InputError(f"measure 'learned' needs its fitted parameters, not {parameters!r}: give weights and intercept.")
        return cls(weights=parameters["weights"], intercept=parameters["intercept"])


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


def fit_learned(traces: Traces, seed: int, folds: int = FOLDS) -> tuple[Learned, NDArray[np.float64]]:
    """Fit the probability that the prediction at a step t < T equals the one at T.

    Args:
        traces: the calibration split, with at least `folds` samples and two time steps; labels are not used.
        seed: of the division into folds.
        folds: K of the cross-fitting.

    Returns:
        The measure fitted on all samples, and the out-of-fold scores (N, T) float64 for the threshold search.

    Raises:
        InputError: for traces that are too small.
    """
    if traces.time_steps < 2:
        raise InputError(f"time_steps = {traces.time_steps}: the measure learned needs traces of at least 2 time steps.")
    if not 2 <= folds <= traces.samples:
        raise InputError(
            f"folds = {folds} of {traces.samples} calibration samples: the measure learned needs 2 folds to one per sample."
        )
    fold = np.random.Generator(np.random.PCG64(seed)).permutation(traces.samples) % folds
    rows = _regression_rows(traces, fold)
    held_out = [_fitted(rows.where(rows.fold != k)) for k in range(folds)]
    out_of_fold = np.empty((traces.samples, traces.time_steps), dtype=np.float64)
    for samples, found in _features_of(traces):
        chosen = out_of_fold[samples]
        for k, learned in enumerate(held_out):
            mine = fold[samples] == k
            chosen[mine] = learned.of_features(found).numpy()[mine]
    return _fitted(rows), out_of_fold


def final_predictions(traces: Traces) -> NDArray[np.bool_]:
    """(N, T): whether the prediction at each step equals the one at T, which is what the learned score estimates."""
    predictions = traces.predictions()
    return np.equal(predictions, predictions[:, -1:])


@dataclass(frozen=True, eq=False)
class _Rows:
    """R rows: the features (R, F), and whether the prediction is final, the step t and the fold, each (R,)."""

    features: NDArray[np.float64]
    final: NDArray[np.bool_]
    step: NDArray[np.int64]
    fold: NDArray[np.int64]

    def where(self, kept: NDArray[np.bool_]) -> _Rows:
        return _Rows(self.features[kept], self.final[kept], self.step[kept], self.fold[kept])


def _regression_rows(traces: Traces, fold: NDArray[np.int64]) -> _Rows:
    """Up to `ROWS` rows, spread evenly over samples and steps; steps from a sample's end (T) on are left out, because all
    predictions are final there."""
    early = traces.time_steps - 1
    stride = math.ceil(traces.samples * early / ROWS)
    # Every stride-th step, starting at a different one from sample to sample.
    taking_part = (np.arange(traces.samples)[:, None] + np.arange(early)) % stride == 0
    if traces.lengths is not None:
        taking_part &= np.arange(1, early + 1) < traces.lengths[:, None]
    sample, step = np.nonzero(taking_part)
    rows = np.empty((len(sample), len(FEATURES)), dtype=np.float64)
    for samples, found in _features_of(traces):
        columns = torch.stack(found, dim=-1).numpy()
        first, last = np.searchsorted(sample, (samples.start, samples.stop))
        rows[first:last] = columns[sample[first:last] - samples.start, step[first:last]]
    return _Rows(rows, final_predictions(traces)[sample, step], step + 1, fold[sample])


def _fitted(rows: _Rows) -> Learned:
    """Logistic regression on standardised features, the standardisation folded into the weights."""
    from sklearn.linear_model import LogisticRegression

    if rows.final.all() or not rows.final.any():  # only one class: the same log-odds for all
        final, other = int(rows.final.sum()), int((~rows.final).sum())
        return Learned(dict.fromkeys(FEATURES, 0.0), math.log((final + 0.5) / (other + 0.5)))
    mean = rows.features.mean(axis=0)
    deviation = rows.features.std(axis=0)
    deviation[~(deviation > 0)] = 1.0
    regression = LogisticRegression(C=1 / PULL, solver="newton-cholesky", max_iter=200)
    regression.fit((rows.features - mean) / deviation, rows.final, sample_weight=1 / np.sqrt(rows.step))
    weights = regression.coef_[0] / deviation
    intercept = float(regression.intercept_[0] - weights @ mean)
    return Learned(dict(zip(FEATURES, weights.tolist(), strict=True)), intercept)


def _features_of(traces: Traces) -> Iterator[tuple[slice, list[Tensor]]]:
    """(slice of samples, their `features` (n, T)), piece by piece."""
    steps = torch.arange(1, traces.time_steps + 1)
    for samples, accumulated in chunks(traces):
        yield samples, features(accumulated, recent_average(logits_of(traces, samples)), steps)
