"""`seenn_2`: the idea of SEENN-II, the exit decided from the start (Li et al., NeurIPS 2023), as far as traces allow.

SEENN-II trains a second network by reinforcement learning: it looks at the input image and names the step at which to stop, and
is rewarded for stopping early and right. Traces hold no images, so that the first step's output takes the place of the image:
after step 1 it is decided when the sample exits, whatever comes later. The score at step t is the log-odds that exiting there
loses nothing (the prediction at t is right, or that at T is wrong too), by a logistic regression on the three largest gaps of
the first output. One threshold on it stands for the weight of the reward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dynconf_core.confidence.folds import FOLDS, fitted_in_folds
from dynconf_core.confidence.max_softmax import sigmoid
from dynconf_core.confidence.measure import ConfidenceMeasure, State, StepOutputs, chunks
from dynconf_core.confidence.smoothing import PLAIN, Smoothing
from dynconf_core.confidence.step_parameters import at_step, checked_table, log_odds
from dynconf_core.traces.schema import Traces

GAPS = 3
PULL = 1e-4


@dataclass(frozen=True, eq=False, repr=False)
class SeennII(ConfidenceMeasure):
    """The log-odds at each step that exiting there loses nothing, known after the first step.

    Attributes:
        weights: (T, 1 + 3): at each step the intercept and the weight of the largest logit minus the second, third and fourth
            largest of step 1 (0 where there are fewer classes); None: not fitted yet.

    Raises:
        InputError: for weights that are not rows of four finite numbers.
    """

    name = "seenn_2"
    label = "probability of no loss, after step 1"
    least_samples = 10 * FOLDS
    least_steps = 2
    rival = True

    weights: Sequence[Sequence[float]] | None = None

    def __post_init__(self) -> None:
        if self.weights is not None:
            object.__setattr__(self, "weights", checked_table("seenn_2 weights", self.weights, 1 + GAPS))

    @property
    def fitted(self) -> bool:
        return self.weights is not None

    def fit(self, calibration: Traces, smoothing: Smoothing, seed: int) -> tuple[Self, NDArray[np.float64] | None]:
        """One regression a step on all calibration samples, and out-of-fold scores; smoothing is not used."""
        return fitted_in_folds(calibration, seed, lambda traces: type(self)(_weights(traces)))

    def initial(self, samples: int, classes: int, device: torch.device | str = "cpu") -> State:
        """The gaps (n, 3) float64 of the first step, initially 0."""
        return (torch.zeros(samples, GAPS, dtype=torch.float64, device=device),)

    def step(self, outputs: StepOutputs, state: State) -> tuple[Tensor, State]:
        gaps = torch.where((outputs.step == 1)[:, None], first_gaps(outputs.accumulated), state[0])
        return _odds(at_step(self.weights, outputs.step), gaps), (gaps,)

    def scores(self, traces: Traces, smoothing: Smoothing = PLAIN) -> NDArray[np.float64]:
        rows = at_step(self.weights, torch.arange(1, traces.time_steps + 1))
        return _odds(rows, torch.from_numpy(_gaps(traces))[:, None]).numpy()

    def shown(self, score: float) -> float:
        return sigmoid(score)


def first_gaps(logits: Tensor) -> Tensor:
    """(n, 3): the largest logit minus the second, third and fourth largest of (n, C); 0 where there are fewer classes."""
    ordered = logits.sort(dim=-1, descending=True).values[:, : GAPS + 1]
    gaps = ordered[:, :1] - ordered[:, 1:]
    return torch.nn.functional.pad(gaps, (0, GAPS - gaps.shape[1]))


def _odds(weights: Tensor, gaps: Tensor) -> Tensor:
    """Intercept plus weights times gaps, summed in a fixed order; the leading axes broadcast."""
    odds = weights[..., 0] + weights[..., 1] * gaps[..., 0]
    for place in range(1, GAPS):
        odds = odds + weights[..., place + 1] * gaps[..., place]
    return odds


def _gaps(traces: Traces) -> NDArray[np.float64]:
    gaps = np.empty((traces.samples, GAPS), dtype=np.float64)
    for rows, accumulated in chunks(traces):
        gaps[rows] = first_gaps(accumulated[:, 0]).numpy()
    return gaps


def _weights(traces: Traces) -> list[list[float]]:
    from sklearn.linear_model import LogisticRegression

    gaps, correct = _gaps(traces), traces.correct()
    loses_nothing = correct | ~correct[:, -1:]
    mean, deviation = gaps.mean(axis=0), gaps.std(axis=0)
    deviation[~(deviation > 0)] = 1.0
    standard = (gaps - mean) / deviation
    found = []
    for fine in loses_nothing.T:
        if fine.all() or not fine.any():
            found.append([log_odds(float(fine.mean()), len(fine)), *[0.0] * GAPS])
            continue
        regression = LogisticRegression(C=1 / PULL, solver="newton-cholesky", max_iter=200).fit(standard, fine)
        weights = regression.coef_[0] / deviation
        found.append([float(regression.intercept_[0] - weights @ mean), *weights.tolist()])
    return found
