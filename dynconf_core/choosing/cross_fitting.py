"""Choosing a score and its threshold on the same images, so that the loss carries over to unseen images.

The best of many scores on n images owes part of its lead to these particular images (the winner's curse). The procedure of
choosing is therefore itself tested on images that it did not see, by K-fold cross-fitting, which leaves a single number to be
chosen:

1. `dynconf_core.choosing.paths` gives the best score and threshold for every budget of mean steps, and how each of the n images
   fares there without having influenced the choice.
2. The budget: starting from T, stop before the first one at which the expected loss is more than allowed. It is smoothed and
   counts one unseen sample as lost (`dynconf_core.choosing.selection`). Where it stops still hangs on few samples; so it is
   done for `RESAMPLES` resamples of the n samples, and the mean of their budgets is taken.
3. The rule: the point at this budget on the path of all n images, which is no worse than the K paths of fewer images.

The mean of budgets loses no more than the mean of what they lose, as far as the loss is convex in the budget: each further step
gains less. The promised loss is the expected one; a single choice may lose more. `dynconf_core.choosing.guarantee` bounds the
latter.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dynconf_core.choosing.paths import CrossFit, Scored, cross_fit
from dynconf_core.choosing.selection import allowed_losses, expected_losses, promised_loss
from dynconf_core.exit.intervals import Interval, net_loss_interval
from dynconf_core.exit.judgement import Loss

FOLDS = 5
RESAMPLES = 100
METHOD = (
    f"cross-fitted budget of mean steps, mean of {RESAMPLES} resamples; expected loss: samples that differ from T, times the "
    "share of net losses among them and sqrt(n) more, one unseen sample counted as lost"
)


@dataclass(frozen=True)
class UnseenLoss:
    """What the K rules lost, each on the fold that it did not see.

    Attributes:
        loss: the accuracy lost relative to T, a fraction.
        loss_interval: 95 % interval, for n samples at one budget.
        mean_steps: the mean exit step.
    """

    loss: float
    loss_interval: Interval
    mean_steps: float


@dataclass(frozen=True)
class HowChosen:
    """How a rule was chosen: the procedure, the number of scores and samples, and the allowed drop."""

    method: str
    samples: int
    scores: int
    folds: int
    seed: int
    accuracy_at_full: float
    max_drop: float
    expected_loss_at_most: float


@dataclass(frozen=True, kw_only=True)
class Choice:
    """How a rule was chosen, and what it loses; stored beside the rule in its file.

    Attributes:
        calibration: figures of the rule on all n samples, on which it was chosen, so that they understate the loss.
        cross_fitted: what the procedure lost on samples that did not influence its choice.
        calibrated: how the rule was chosen.
    """

    calibration: Loss
    cross_fitted: UnseenLoss
    calibrated: HowChosen

    def to_json(self) -> dict[str, Any]:
        """The three parts by name."""
        return {name: asdict(getattr(self, name)) for name in ("calibration", "cross_fitted", "calibrated")}


@dataclass(frozen=True, kw_only=True)
class CrossFitted(Choice):
    """A score and a threshold, and how they were chosen.

    Attributes:
        index: of the chosen score among those given.
        threshold: in units of the score; inf never exits.
    """

    index: int
    threshold: float


@dataclass(frozen=True, eq=False)
class Paths:
    """What is chosen at every budget and what is to be expected there, whatever may be lost.

    Attributes:
        fitted: the path of all n samples and those of the folds.
        expected: (RESAMPLES, G) the expected losses of each resample at each budget.
        folds, seed: K, and the seed of folds and resamples.
    """

    fitted: CrossFit
    expected: NDArray[np.float64]
    folds: int
    seed: int

    @classmethod
    def of(cls, scored: Iterable[Scored], folds: int = FOLDS, seed: int = 0, lengths: NDArray[np.int64] | None = None) -> Paths:
        """The paths of these scores; arguments and errors as for `cross_fitted_choice`."""
        random = np.random.default_rng(seed)
        fitted = cross_fit(scored, random, folds, lengths)
        return cls(fitted, resampled_losses(fitted.net, random), folds, seed)

    def choice(self, max_drop: float = 0.0, strict: bool = False) -> CrossFitted:
        """The score and threshold for an allowed drop, see `cross_fitted_choice`."""
        fitted, (samples, budgets) = self.fitted, self.fitted.net.shape
        limit = allowed_losses(samples, max_drop, strict)
        # Where nothing may be lost, T alone is left.
        budget = budgets - 1 if limit < 0 else _mean_stop(self.expected, fitted.budgets, limit)
        full, loss = fitted.accuracy_at_full, float(fitted.loss[budget])
        lost, gained = (int(np.count_nonzero(fitted.net[:, budget] == sign)) for sign in (1, -1))
        return CrossFitted(
            index=int(fitted.index[budget]),
            threshold=float(fitted.thresholds[budget]),
            calibration=Loss(full - loss, float(fitted.mean_steps[budget]), loss),
            cross_fitted=UnseenLoss(
                float(lost - gained) / samples,
                net_loss_interval(lost, gained, samples),
                float(fitted.unseen_steps[budget]),
            ),
            calibrated=HowChosen(
                method=METHOD,
                samples=samples,
                scores=fitted.scores,
                folds=self.folds,
                seed=self.seed,
                accuracy_at_full=full,
                max_drop=max_drop,
                expected_loss_at_most=0.0 if limit < 0 else promised_loss(samples, max_drop),
            ),
        )


def cross_fitted_choice(
    scored: Iterable[Scored],
    max_drop: float = 0.0,
    folds: int = FOLDS,
    seed: int = 0,
    strict: bool = False,
    lengths: NDArray[np.int64] | None = None,
) -> CrossFitted:
    """The score and threshold with the fewest mean steps at an expected loss on unseen samples of at most `max_drop`.

    Args:
        scored: for each candidate (a measure with its smoothing and readout) the scores (N, T) and whether the prediction at
            each step is correct (N, T); consumed one at a time, so a generator saves memory. Scores and predictions with fitted
            parameters must themselves be cross-fitted. At T, all candidates have the same predictions.
        max_drop: the expected accuracy loss allowed relative to T, a fraction. N samples cannot distinguish less than 1 / (N +
            1) from zero; `expected_loss_at_most` in the record then gives that value.
        folds: K, from 2 to N.
        seed: of the folds.
        strict: never exit if less than 1 / (N + 1) is allowed.
        lengths: (N,) the step at which each sample ends; None: all end at T.

    Raises:
        ValueError: for no scores, shapes or predictions at T that differ, a number of folds out of range, or a `max_drop` that
            is negative or not finite.
    """
    return Paths.of(scored, folds, seed, lengths).choice(max_drop, strict)


def mean_budget(net: NDArray[np.int8], budgets: NDArray[np.float64], limit: float, random: np.random.Generator) -> int:
    """The index of the first budget that is at least the mean of those at which resamples stop. `net` (N, G) are the net losses
    of each sample at each budget."""
    return _mean_stop(resampled_losses(net, random), budgets, limit)


def resampled_losses(net: NDArray[np.int8], random: np.random.Generator) -> NDArray[np.float64]:
    """(RESAMPLES, G) the expected losses of resamples of `net` (N, G) by the Poisson bootstrap: each sample is drawn a Poisson
    number of times."""
    samples = len(net)
    differ = net.any(axis=1)
    times = random.poisson(1.0, (RESAMPLES, samples))[:, differ].astype(np.float32)
    # Whole numbers below 2^24: float32 sums them exactly, in any order.
    nets, differing = times @ net[differ].astype(np.float32), times @ np.abs(net[differ]).astype(np.float32)
    return np.stack([expected_losses(*pair, samples) for pair in zip(nets, differing, strict=True)])


def _mean_stop(expected: NDArray[np.float64], budgets: NDArray[np.float64], limit: float) -> int:
    """The index of the first budget that is at least the mean of those at which the expected losses (R, G) first keep the
    limit."""
    stops = budgets[np.argmax(expected <= limit, axis=1)]
    return int(np.searchsorted(budgets, np.mean(stops) - 1e-9))
