"""Fitting the learned score on the calibration split, cross-fitted.

The threshold is searched on the same samples that fit the weights. A score that has seen a sample's future knows it too
well, and a threshold chosen on such scores would exit too early on new ones. So the samples are parted into folds; each is
scored by weights fitted on the others, and these out-of-fold scores are what the threshold search is given. The weights that
are shipped are fitted on all samples.

A row of the regression is a sample at a step, and counts 1 / sqrt(t): late steps are many and tell nearly the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from dynconf_core.confidence.learned import FEATURES, LearnedScore, features, recent_average
from dynconf_core.confidence.scores import chunks, logits_of
from dynconf_core.errors import InputError
from dynconf_core.traces.schema import Traces

FOLDS = 5
# Rows (a sample at a step) that one fit reads at most: neighbouring steps tell nearly the same.
ROWS = 2**20
# The features are alike (gaps over powers of t), so that a strong pull towards 0 would spoil their differences; a weak one
# keeps the weights finite where a few samples are told apart without error.
PULL = 1e-4


def fit_learned_score(traces: Traces, seed: int, folds: int = FOLDS) -> tuple[LearnedScore, NDArray[np.float64]]:
    """Fit the probability that the prediction at step t < T is that at T.

    Args:
        traces: the calibration split, of at least `folds` samples and two time steps; labels are not looked at.
        seed: parts the samples into folds.
        folds: K of the cross-fitting.

    Returns:
        The score fitted on all samples, and the out-of-fold scores (N, T) float64 for the search of the threshold.

    Raises:
        InputError: for traces too small.
    """
    if traces.time_steps < 2:
        raise InputError(f"time_steps = {traces.time_steps}: the rule learned needs traces of at least 2 time steps.")
    if not 2 <= folds <= traces.samples:
        raise InputError(
            f"folds = {folds} of {traces.samples} calibration samples: the rule learned needs from 2 folds to one a sample."
        )
    fold = np.random.Generator(np.random.PCG64(seed)).permutation(traces.samples) % folds
    rows = _regression_rows(traces, fold)
    held_out = [_fitted(rows.where(rows.fold != k)) for k in range(folds)]
    out_of_fold = np.empty((traces.samples, traces.time_steps), dtype=np.float64)
    steps = torch.arange(1, traces.time_steps + 1)
    for samples, accumulated in chunks(traces):
        found = features(accumulated, recent_average(logits_of(traces, samples)), steps)
        chosen = out_of_fold[samples]
        for k, learned in enumerate(held_out):
            mine = fold[samples] == k
            chosen[mine] = learned.of_features(found).numpy()[mine]
    return _fitted(rows), out_of_fold


def final_predictions(traces: Traces) -> NDArray[np.bool_]:
    """(N, T): whether the prediction at each step is that at T, which the learned score estimates."""
    predictions = traces.predictions()
    return np.equal(predictions, predictions[:, -1:])


@dataclass(frozen=True, eq=False)
class _Rows:
    """R rows: the features (R, F), whether the prediction is final, the step t and the fold, each (R,)."""

    features: NDArray[np.float64]
    final: NDArray[np.bool_]
    step: NDArray[np.int64]
    fold: NDArray[np.int64]

    def where(self, kept: NDArray[np.bool_]) -> _Rows:
        return _Rows(self.features[kept], self.final[kept], self.step[kept], self.fold[kept])


def _regression_rows(traces: Traces, fold: NDArray[np.int64]) -> _Rows:
    """Up to `ROWS` rows, evenly spread over samples and steps; the step T is left out: there everything is final."""
    early = traces.time_steps - 1
    stride = math.ceil(traces.samples * early / ROWS)
    # Every stride-th step, begun at another one from sample to sample.
    sample, step = np.nonzero((np.arange(traces.samples)[:, None] + np.arange(early)) % stride == 0)
    rows = np.empty((len(sample), len(FEATURES)), dtype=np.float64)
    steps = torch.arange(1, traces.time_steps + 1)
    for samples, accumulated in chunks(traces):
        found = torch.stack(features(accumulated, recent_average(logits_of(traces, samples)), steps), dim=-1).numpy()
        first, last = np.searchsorted(sample, (samples.start, samples.stop))
        rows[first:last] = found[sample[first:last] - samples.start, step[first:last]]
    return _Rows(rows, final_predictions(traces)[sample, step], step + 1, fold[sample])


def _fitted(rows: _Rows) -> LearnedScore:
    """Logistic regression on standardised features, the standardisation folded into the weights."""
    from sklearn.linear_model import LogisticRegression

    if rows.final.all() or not rows.final.any():  # nothing to tell apart: everybody is as sure
        final, other = int(rows.final.sum()), int((~rows.final).sum())
        return LearnedScore(dict.fromkeys(FEATURES, 0.0), math.log((final + 0.5) / (other + 0.5)))
    mean = rows.features.mean(axis=0)
    deviation = rows.features.std(axis=0)
    deviation[~(deviation > 0)] = 1.0
    regression = LogisticRegression(C=1 / PULL, solver="newton-cholesky", max_iter=200)
    regression.fit((rows.features - mean) / deviation, rows.final, sample_weight=1 / np.sqrt(rows.step))
    weights = regression.coef_[0] / deviation
    intercept = float(regression.intercept_[0] - weights @ mean)
    return LearnedScore(dict(zip(FEATURES, weights.tolist(), strict=True)), intercept)
