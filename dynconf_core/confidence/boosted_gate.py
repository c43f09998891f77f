"""`boosted_gate`: gradient-boosted trees that decide whether the prediction is final, as an upper reference.

Gates of this kind (a learned classifier on the outputs so far, as in adaptive-inference SNNs) show what features of the outputs
can give at most; they cost far more parameters than the other measures. The trees read the features of `learned` and the
largest summed logit minus the third to fifth largest, and estimate the log-odds that the current prediction equals the one at
T. They are fitted by scikit-learn and stored as plain numbers, which are evaluated here, so that a live run needs no
scikit-learn.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dynconf_core.confidence.features import FEATURES, features, final_predictions
from dynconf_core.confidence.folds import fitted_in_folds
from dynconf_core.confidence.max_softmax import sigmoid
from dynconf_core.confidence.measure import ConfidenceMeasure, State, StepOutputs, chunks, logits_of
from dynconf_core.confidence.recent import next_recent, recent_average
from dynconf_core.confidence.smoothing import PLAIN, Smoothing
from dynconf_core.confidence.step_parameters import LARGEST, checked_numbers, checked_table, log_odds
from dynconf_core.errors import InputError
from dynconf_core.traces.schema import Traces

GAPS = 3
WIDTH = len(FEATURES) + GAPS
TREES, DEPTH = 40, 3
NODES, LEAVES = 2**DEPTH - 1, 2**DEPTH
# Rows of a fit: a sample at a step.
ROWS = 20_000
PULL = 1.0


@dataclass(frozen=True, eq=False, repr=False)
class BoostedGate(ConfidenceMeasure):
    """A logistic regression, corrected by the leaves that the features reach in each tree, as log-odds.

    Attributes:
        splits: (K, 14) for each complete tree of depth 3: the feature of each of the 7 inner nodes, level by level, then the
            thresholds; a larger feature goes right. None: not fitted yet.
        leaves: (K, 8) the value of each leaf, from left to right.
        weights: (9,) of the features in the regression, as they are.
        intercept: the log-odds if all features are 0, before any tree.

    Raises:
        InputError: for parameters of another form.
    """

    name = "boosted_gate"
    label = "probability that the prediction is final"
    least_samples = 500
    least_steps = 2
    rival = True

    splits: Sequence[Sequence[float]] | None = None
    leaves: Sequence[Sequence[float]] | None = None
    weights: Sequence[float] | None = None
    intercept: float = 0.0

    def __post_init__(self) -> None:
        if self.splits is None:
            return
        splits = checked_table("boosted_gate splits", self.splits, 2 * NODES)
        leaves = checked_table("boosted_gate leaves", self.leaves, LEAVES)
        if len(splits) != len(leaves):
            raise InputError(
                f"boosted_gate has {len(splits)} rows of splits and {len(leaves)} of leaves; give one each a tree."
            )
        if any(place not in range(WIDTH) for row in splits for place in row[:NODES]):
            raise InputError(f"boosted_gate splits name features that do not exist; give numbers from 0 to {WIDTH - 1}.")
        weights = checked_numbers("boosted_gate weights", self.weights)
        if len(weights) != WIDTH:
            raise InputError(f"boosted_gate has {len(weights)} weights; give one for each of the {WIDTH} features.")
        object.__setattr__(self, "weights", weights)
        object.__setattr__(self, "splits", splits)
        object.__setattr__(self, "leaves", leaves)
        object.__setattr__(self, "intercept", checked_numbers("boosted_gate intercept", (self.intercept,))[0])

    @property
    def fitted(self) -> bool:
        return self.splits is not None

    def fit(self, calibration: Traces, smoothing: Smoothing, seed: int) -> tuple[Self, NDArray[np.float64] | None]:
        """Trees on all calibration samples, and out-of-fold scores; labels and smoothing are not used."""
        return fitted_in_folds(calibration, seed, lambda traces: type(self)(*_fitted(traces, seed)))

    def initial(self, samples: int, classes: int, device: torch.device | str = "cpu") -> State:
        """The recent average r (n, C) float64 of `learned`, initially 0."""
        return (torch.zeros(samples, classes, dtype=torch.float64, device=device),)

    def step(self, outputs: StepOutputs, state: State) -> tuple[Tensor, State]:
        recent = next_recent(state[0], outputs.logits)
        return self.of_features(gate_features(outputs.accumulated, recent, outputs.step)), (recent,)

    def scores(self, traces: Traces, smoothing: Smoothing = PLAIN) -> NDArray[np.float64]:
        scores = np.empty((traces.samples, traces.time_steps), dtype=np.float64)
        for rows, found in _features_of(traces):
            scores[rows] = self.of_features(found).numpy()
        return scores

    @cached_property
    def _trees(self) -> tuple[Tensor, Tensor, Tensor]:
        """The features (K, 7) int64, thresholds (K, 7) and leaves (K, 8) float64."""
        table = torch.tensor(self.splits, dtype=torch.float64)
        return table[:, :NODES].long(), table[:, NODES:], torch.tensor(self.leaves, dtype=torch.float64)

    def of_features(self, found: Tensor) -> Tensor:
        """The log-odds (...) float64 of the features (..., 9), summed in the order of the trees."""
        if self.splits is None or self.weights is None:
            raise InputError("measure 'boosted_gate' needs its fitted parameters: call fit on calibration traces first.")
        which, limits, leaves = (part.to(found.device) for part in self._trees)
        odds = torch.full_like(found[..., 0], self.intercept)
        for place, weight in enumerate(self.weights):
            odds += found[..., place] * weight
        for of_tree, limit, leaf in zip(which, limits, leaves, strict=True):
            right = found[..., of_tree] > limit  # at every inner node
            node = right[..., 0].long() + 1
            for _ in range(DEPTH - 1):
                node = 2 * node + 1 + right.gather(-1, node[..., None])[..., 0]
            odds += leaf[node - NODES]
        return odds

    def shown(self, score: float) -> float:
        return sigmoid(score)


def gate_features(accumulated: Tensor, recent: Tensor, step: Tensor) -> Tensor:
    """(..., 9) float64: the features of `learned`, and the largest z minus the third to fifth largest (0 where there are
    fewer classes), of z and r (..., C) at the steps (...)."""
    ordered = accumulated.sort(dim=-1, descending=True).values[..., : GAPS + 2]
    gaps = (ordered[..., :1] - ordered[..., 2:]).clamp(max=LARGEST)
    gaps = torch.nn.functional.pad(gaps, (0, GAPS - gaps.shape[-1]))
    return torch.cat([torch.stack(features(accumulated, recent, step), dim=-1), gaps], dim=-1)


def _features_of(traces: Traces) -> Iterator[tuple[slice, Tensor]]:
    steps = torch.arange(1, traces.time_steps + 1)
    for rows, accumulated in chunks(traces):
        yield rows, gate_features(accumulated, recent_average(logits_of(traces, rows)), steps)


Parameters = tuple[list[list[float]], list[list[float]], list[float], float]


def _fitted(traces: Traces, seed: int) -> Parameters:
    """Splits, leaves, weights and intercept, from up to `ROWS` rows, spread evenly over samples and steps."""
    from sklearn.ensemble import GradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression

    early = traces.time_steps - 1
    stride = math.ceil(traces.samples * early / ROWS)
    taking_part = (np.arange(traces.samples)[:, None] + np.arange(early)) % stride == 0
    if traces.lengths is not None:
        taking_part &= np.arange(1, early + 1) < traces.lengths[:, None]
    final = final_predictions(traces)[:, :early][taking_part]
    if final.all() or not final.any():
        share = float(final.mean()) if len(final) else 1.0
        return [[0.0] * 2 * NODES], [[0.0] * LEAVES], [0.0] * WIDTH, log_odds(share, max(len(final), 1))
    importance = 1.0 / np.sqrt(np.nonzero(taking_part)[1] + 1.0)
    rows = np.concatenate([found.numpy()[:, :early][taking_part[samples]] for samples, found in _features_of(traces)])
    mean, deviation = rows.mean(axis=0), rows.std(axis=0)
    deviation[~(deviation > 0)] = 1.0
    # Trees alone tell nothing apart beyond their outermost splits, where most exits are: they correct a regression.
    boosting = GradientBoostingClassifier(
        init=LogisticRegression(C=1 / PULL, solver="newton-cholesky", max_iter=200),
        n_estimators=TREES,
        max_depth=DEPTH,
        subsample=0.5,
        min_samples_leaf=20,
        random_state=seed % 2**32,
    ).fit((rows - mean) / deviation, final, sample_weight=importance)
    weights = boosting.init_.coef_[0] / deviation
    trees = [_complete(tree.tree_, boosting.learning_rate, mean, deviation) for tree in boosting.estimators_[:, 0]]
    splits, leaves = [of_tree for of_tree, _ in trees], [of_tree for _, of_tree in trees]
    return splits, leaves, weights.tolist(), float(boosting.init_.intercept_[0] - weights @ mean)


def _complete(
    tree: Any, rate: float, mean: NDArray[np.float64], deviation: NDArray[np.float64]
) -> tuple[list[float], list[float]]:
    """A tree of standardised features as a complete one of depth 3 of the features as they are; where it ends earlier, both
    sides hold the same value."""
    which, limits, leaves = [0.0] * NODES, [0.0] * NODES, [0.0] * LEAVES

    def put(place: int, node: int) -> None:
        inner = tree.children_left[node] != tree.children_right[node]
        if place >= NODES:
            leaves[place - NODES] = rate * float(tree.value[node, 0, 0])
            return
        if inner:
            feature = int(tree.feature[node])
            which[place] = float(feature)
            limits[place] = float(tree.threshold[node] * deviation[feature] + mean[feature])
        put(2 * place + 1, int(tree.children_left[node]) if inner else node)
        put(2 * place + 2, int(tree.children_right[node]) if inner else node)

    put(0, 0)
    return which + limits, leaves
