"""`learned`: the log-odds that the current prediction equals the one at T, fitted on the calibration split.

An exit loses no accuracy if waiting would not have changed the prediction, right or wrong. Max softmax estimates whether the
prediction is right; this measure estimates whether it is final, in two layers:

1. a forecast of the prediction at T, which corrects the bias of each class at each early step
   (`dynconf_core.confidence.forecast`), and the log-odds of the largest softmax probability at three temperatures, of which one
   grows with the step, one with its root, and one is constant;
2. a logistic regression on piecewise linear functions (`dynconf_core.confidence.additive`) of these and of six features of the
   gap, the trend and the step (`dynconf_core.confidence.features`).

In terms of optimal stopping (Ferguson, "Optimal Stopping and Applications", ch. 2: finite horizon), every step has the same
cost, and stopping costs the probability that the prediction at T is a different one. Stopping when this probability falls below
a constant is an approximation: the optimal rule would also consider how fast it is about to fall.

The threshold is searched on the samples that the parameters were fitted on. Scores that were fitted to a sample's own future
are too good, and a threshold chosen on them would exit too early on new samples. Each sample is therefore scored with both
layers fitted on the other folds, for the search only. A row of the regression is one sample at one step; as late steps are
numerous and nearly alike, only those at which the forecast is fitted are taken, with the weight d / sqrt(t), where d is the
distance to the next one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dynconf_core.confidence.additive import Additive, fit_additive
from dynconf_core.confidence.elementary import gap
from dynconf_core.confidence.features import FEATURES, features
from dynconf_core.confidence.folds import FOLDS, fitted_in_folds
from dynconf_core.confidence.forecast import Forecast, fit_forecast, fitted_steps
from dynconf_core.confidence.max_softmax import MaxSoftmax, sigmoid
from dynconf_core.confidence.measure import ConfidenceMeasure, State, StepOutputs, chunks, logits_of
from dynconf_core.confidence.newton import one_thread
from dynconf_core.confidence.recent import next_recent, recent_average
from dynconf_core.confidence.smoothing import PLAIN, Form, Smoothing
from dynconf_core.confidence.step_parameters import LARGEST, checked_numbers
from dynconf_core.errors import InputError
from dynconf_core.traces.schema import Traces

TERMS = (*FEATURES, "softmax_sum", "softmax_root_step", "softmax_mean", "forecast", "forecast_root_step")
"""What the regression reads. The two last are the forecast's log-odds, and these times sqrt(t)."""
SOFTMAX = MaxSoftmax()
# The temperatures in units of the mean gap of a step: constant, times sqrt(t), times t.
TEMPERATURES: tuple[tuple[Form, float, float | None], ...] = (("sum", 1.2, None), ("power", 0.3, 0.5), ("mean", 0.3, None))


@dataclass(frozen=True, eq=False)
class Learned(ConfidenceMeasure):
    """A regression on the terms, as log-odds; `shown` is the probability.

    Attributes:
        regression: on `TERMS`; None: not fitted yet.
        forecast: the probabilities of the prediction at T.
        scale: > 0, the unit of the temperatures: the mean gap between the two largest logits of a step.

    Raises:
        InputError: for a term that is unknown or missing, or a scale that is not a number above 0.
    """

    name = "learned"
    label = "probability that the prediction is final"
    least_samples = FOLDS
    least_steps = 2

    regression: Additive | None = None
    forecast: Forecast | None = None
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.regression is None:
            return
        if not isinstance(self.regression, Additive) or set(self.regression.weights) != set(TERMS):
            raise InputError(f"learned regression = {str(self.regression)[:200]}; give one on the terms {', '.join(TERMS)}.")
        if not isinstance(self.forecast, Forecast):
            raise InputError(f"learned forecast = {str(self.forecast)[:200]}; give a Forecast.")
        object.__setattr__(self, "scale", checked_numbers("learned scale", (self.scale,))[0])
        if not self.scale > 0:
            raise InputError(f"learned scale = {self.scale!r} cannot divide logits; give a number above 0.")

    @property
    def fitted(self) -> bool:
        return self.regression is not None

    def fit(self, calibration: Traces, smoothing: Smoothing, seed: int) -> tuple[Self, NDArray[np.float64] | None]:
        """The measure fitted on all samples, and out-of-fold scores; labels and smoothing are not used."""
        return fitted_in_folds(calibration, seed, lambda traces: type(self)(**vars(fit_learned(traces))))

    def initial(self, samples: int, classes: int, device: torch.device | str = "cpu") -> State:
        """r_0 (n, C) float64: 0."""
        self._check_classes(classes)
        return (torch.zeros(samples, classes, dtype=torch.float64, device=device),)

    def step(self, outputs: StepOutputs, state: State) -> tuple[Tensor, State]:
        recent = next_recent(state[0], outputs.logits)
        return self._score(outputs.accumulated, recent, outputs.step), (recent,)

    def scores(self, traces: Traces, smoothing: Smoothing = PLAIN) -> NDArray[np.float64]:
        self._check_classes(traces.classes)
        scores = np.empty((traces.samples, traces.time_steps), dtype=np.float64)
        steps = torch.arange(1, traces.time_steps + 1)
        for rows, accumulated, recent in _outputs(traces, steps):
            scores[rows] = self._score(accumulated, recent, steps).numpy()
        return scores

    def shown(self, score: float) -> float:
        return sigmoid(score)

    @classmethod
    def from_json(cls, parameters: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`; an InputError names what is missing or wrong."""
        if set(parameters) != {"regression", "forecast", "scale"} or parameters["regression"] is None:
            raise InputError(
                f"measure 'learned' needs its fitted parameters, not {str(parameters)[:200]}: "
                "give regression, forecast and scale."
            )
        regression, forecast = Additive.from_json(parameters["regression"]), Forecast.from_json(parameters["forecast"])
        return cls(regression, forecast, parameters["scale"])

    def _score(self, accumulated: Tensor, recent: Tensor, step: Tensor) -> Tensor:
        if self.regression is None or self.forecast is None:
            raise InputError("measure 'learned' needs its fitted parameters: call fit on calibration traces first.")
        return self.regression.log_odds(_terms(self.forecast, self.scale, accumulated, recent, step))

    def _check_classes(self, classes: int) -> None:
        known = None if self.forecast is None else self.forecast.classes
        if known not in (None, classes):
            raise InputError(f"measure 'learned' was fitted to {known} classes, the outputs have {classes}; fit it anew.")


def fit_learned(traces: Traces) -> Learned:
    """Fit the probability that the prediction at a step t < T equals the one at T; labels are not used.

    Args:
        traces: N samples, T >= 2. Steps from a sample's end (T) on are left out, because all predictions are final there.

    Raises:
        InputError: for a single time step.
    """
    if traces.time_steps < 2:
        raise InputError(f"time_steps = {traces.time_steps}: the measure learned needs traces of at least 2 time steps.")
    predictions = traces.predictions()
    with one_thread():
        forecast = fit_forecast(traces, predictions[:, -1])
        last = int(traces.ends.max())
        steps = torch.tensor(fitted_steps(last))
        running = steps.numpy() < traces.ends[:, None]
        final = np.equal(predictions[:, steps.numpy() - 1], predictions[:, -1:])[running]
        distance = np.diff(np.append(steps.numpy(), last))
        importance = np.broadcast_to(distance / np.sqrt(steps.numpy()), running.shape)[running]
        scale = _scale(traces, steps, running)
        rows = [
            torch.stack(list(_terms(forecast, scale, accumulated, recent, steps).values())).numpy()[:, running[samples]]
            for samples, accumulated, recent in _outputs(traces, steps)
        ]
        terms = dict(zip(TERMS, np.concatenate(rows, axis=1), strict=True))
        return Learned(fit_additive(terms, final, importance), forecast, scale)


def _terms(forecast: Forecast, scale: float, accumulated: Tensor, recent: Tensor, step: Tensor) -> dict[str, Tensor]:
    """The terms (...) float64, by name, of z and r (..., C) at the steps t (...)."""
    found = features(accumulated, recent, step)
    for form, factor, exponent in TEMPERATURES:
        smoothed = Smoothing(form, factor * scale, exponent).smoothed(accumulated, step)
        found.append(SOFTMAX.of_smoothed(smoothed))
    odds = forecast.log_odds(accumulated, recent, step)
    found += [odds, odds * step.to(torch.float64).sqrt()]
    return {name: term.clamp(-LARGEST, LARGEST) for name, term in zip(TERMS, found, strict=True)}


def _outputs(traces: Traces, steps: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """(slice of samples, their z and r (n, S, C) at the steps (S,)), piece by piece."""
    for samples, accumulated in chunks(traces):
        recent = recent_average(logits_of(traces, samples))
        yield samples, accumulated[:, steps - 1], recent[:, steps - 1]


def _scale(traces: Traces, steps: Tensor, running: NDArray[np.bool_]) -> float:
    """The mean of gap / t over the samples and steps that are taken; 1 where there is none."""
    gaps = np.empty(running.shape)
    for samples, accumulated, _ in _outputs(traces, steps):
        gaps[samples] = (gap(accumulated) / steps).clamp(max=LARGEST).numpy()
    mean = float(gaps[running].mean()) if running.any() else 0.0
    return mean if mean > 0 else 1.0
