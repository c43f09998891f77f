"""Choosing a score and its threshold on the same images, so that the loss carries over to unseen images.

The best of many scores on n images owes part of its lead to these particular images (the winner's curse). The procedure of
choosing is therefore itself tested on images that it did not see, by K-fold cross-fitting, which leaves a single number to be
chosen:

1. For given images, the *path* contains, for every budget of mean steps, the score and threshold that lose least within the
   budget. The loss of a threshold is the worst net loss at it or at any higher threshold. Ties go to the score that reaches
   this loss with the fewest steps. Where a larger budget holds a point with fewer mean steps, that one is taken.
2. For each fold, a path is computed on the other folds and evaluated on the fold. Together, the folds give for every budget how
   each of n samples fared, none of which influenced the choice made for it.
3. The budget: starting from T, stop before the first one at which the expected loss is more than allowed. It is smoothed and
   counts one unseen sample as lost (`dynconf_core.choosing.selection`). Where it stops still hangs on few samples; so it is
   done for `RESAMPLES` resamples of the n samples, and the mean of their budgets is taken.
4. The rule: the point at this budget on the path of all n images, which is no worse than the K paths of fewer images.

The mean of budgets loses no more than the mean of what they lose, as far as the loss is convex in the budget: each further step
gains less. The promised loss is the expected one; a single choice may lose more. `dynconf_core.choosing.guarantee` bounds the
latter.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dynconf_core.choosing.selection import allowed_losses, expected_losses, promised_loss, worst_so_far
from dynconf_core.exit.front import PairedFront, paired_front, points_at
from dynconf_core.exit.intervals import Interval, net_loss_interval
from dynconf_core.exit.judgement import Loss

FOLDS = 5
BUDGETS_PER_STEP = 8
LEAST_BUDGETS = 96
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


Scored = tuple[NDArray[np.float64], NDArray[np.bool_]]
"""What is known of one candidate: its scores (N, T), and whether its prediction at each step is correct (N, T)."""


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
    remaining = iter(scored)
    first = next(remaining, None)
    if first is None:
        raise ValueError("no score was given")
    at_full = first[1][:, -1]
    samples, time_steps = first[1].shape
    if not 2 <= folds <= samples:
        raise ValueError(f"folds = {folds} must lie between 2 and the number of samples, {samples}")
    limit = allowed_losses(samples, max_drop, strict)
    budgets = budgets_of(time_steps)
    random = np.random.default_rng(seed)
    fold_of = random.permutation(samples) % folds
    whole, seen, unseen = _operating_points(chain((first,), remaining), at_full, lengths, budgets, fold_of, folds)
    net, steps = _followed([_Path.of(points) for points in seen], unseen, fold_of)
    # Where nothing is to be lost, T alone is left; all resamples agree on it.
    budget = len(budgets) - 1 if limit < 0 else _mean_budget(net, budgets, limit, random)
    path = _Path.of(whole)
    index, column = int(path.score[budget]), int(path.column[budget])
    at = whole[index]
    full = float(at_full.mean())
    loss = float(at.lost[column] - at.gained[column]) / samples
    lost, gained = (int(np.count_nonzero(net[:, budget] == sign)) for sign in (1, -1))
    return CrossFitted(
        index=index,
        threshold=float(at.thresholds[column]),
        calibration=Loss(full - loss, float(at.steps[column]) / samples, loss),
        cross_fitted=UnseenLoss(
            float(lost - gained) / samples,
            net_loss_interval(lost, gained, samples),
            float(steps[budget]) / samples,
        ),
        calibrated=HowChosen(
            method=METHOD,
            samples=samples,
            scores=len(whole),
            folds=folds,
            seed=seed,
            accuracy_at_full=full,
            max_drop=max_drop,
            expected_loss_at_most=0.0 if limit < 0 else promised_loss(samples, max_drop),
        ),
    )


def budgets_of(time_steps: int) -> NDArray[np.float64]:
    """(G,) the budgets of mean steps from 1 to T: `BUDGETS_PER_STEP` a step, but at least `LEAST_BUDGETS`."""
    intervals = max(BUDGETS_PER_STEP * (time_steps - 1), LEAST_BUDGETS) if time_steps > 1 else 0
    return np.linspace(1.0, time_steps, intervals + 1)


def _mean_budget(net: NDArray[np.int8], budgets: NDArray[np.float64], limit: float, random: np.random.Generator) -> int:
    """The index of the first budget that is at least the mean of those at which resamples stop (Poisson bootstrap: each sample
    is drawn a Poisson number of times). `net` (N, G) are the net losses of each sample at each budget."""
    samples = len(net)
    differ = net.any(axis=1)
    times = random.poisson(1.0, (RESAMPLES, samples))[:, differ].astype(np.float32)
    # Whole numbers below 2^24: float32 sums them exactly, in any order.
    nets, differing = times @ net[differ].astype(np.float32), times @ np.abs(net[differ]).astype(np.float32)
    stops = [budgets[np.argmax(expected_losses(*pair, samples) <= limit)] for pair in zip(nets, differing, strict=True)]
    return int(np.searchsorted(budgets, np.mean(stops) - 1e-9))


@dataclass(frozen=True, eq=False)
class _Points:
    """Operating points of one score, one per budget (G,); counts and steps are sums over the samples."""

    thresholds: NDArray[np.float64]
    lost: NDArray[np.int64]
    gained: NDArray[np.int64]
    steps: NDArray[np.float64]
    worst: NDArray[np.float64]

    @classmethod
    def of(cls, front: PairedFront, at: NDArray[np.int64]) -> _Points:
        steps = front.mean_steps[at] * front.samples
        worst = worst_so_far(front)[at].astype(np.float64)
        return cls(front.thresholds[at], front.lost[at], front.gained[at], steps, worst)

    @classmethod
    def within(cls, front: PairedFront, budgets: NDArray[np.float64]) -> _Points:
        """The point with the most mean steps within each budget; if there is none, its worst net loss and steps are inf."""
        at = np.searchsorted(front.mean_steps, budgets * (1 + 1e-12), side="right") - 1
        points = cls.of(front, np.maximum(at, 0))
        points.worst[at < 0] = points.steps[at < 0] = np.inf
        return points


@dataclass(frozen=True, eq=False)
class _Unseen:
    """How the samples of one fold fare with one score, whose thresholds, one per budget (G,), were chosen without them.

    Attributes:
        steps: (G,) sums of their exit steps.
        rows: (R,) those whose prediction is ever right without being so at T, or the reverse, as places in the fold.
        net: (R, G) their net losses; all others lose and gain nothing.
    """

    steps: NDArray[np.float64]
    rows: NDArray[np.int64]
    net: NDArray[np.int8]

    @classmethod
    def of(
        cls,
        scores: NDArray[np.float64],
        correct: NDArray[np.bool_],
        lengths: NDArray[np.int64] | None,
        thresholds: NDArray[np.float64],
    ) -> _Unseen:
        front = paired_front(scores, correct, lengths)
        steps = front.mean_steps[points_at(front, thresholds)] * front.samples
        rows = np.flatnonzero((correct != correct[:, -1:]).any(axis=1))
        highest = np.maximum.accumulate(scores[rows, :-1], axis=1)
        exits = np.zeros((len(rows), len(thresholds)), dtype=np.intp)
        for so_far in highest.T:
            exits += so_far[:, None] <= thresholds
        right = correct[rows].astype(np.int8)
        return cls(steps, rows, right[:, -1:] - np.take_along_axis(right, exits, axis=1))


@dataclass(frozen=True, eq=False)
class _Path:
    """For each budget (G,), the score that is taken, and the budget whose point of this score is taken."""

    score: NDArray[np.int64]
    column: NDArray[np.int64]

    @classmethod
    def of(cls, points: Sequence[_Points]) -> _Path:
        """For each budget the score with the smallest worst net loss, among equals the one that reaches it at the smallest
        budget; or the point of a larger budget, if that has fewer mean steps."""
        worst = np.stack([of_score.worst for of_score in points])
        least = worst.min(axis=0)
        already = np.empty_like(worst)
        for number, of_score in enumerate(worst):
            # The worst net loss falls as the budget grows: find the first budget that is no worse.
            already[number] = len(of_score) - np.searchsorted(of_score[::-1], least, side="right")
        already[worst > least] = np.inf
        score = np.argmin(already, axis=0)
        budgets = np.arange(worst.shape[1])
        steps = np.stack([of_score.steps for of_score in points])[score, budgets]
        fewest_above = np.append(np.minimum.accumulate(steps[::-1])[::-1][1:], np.inf)
        fewer = np.where(steps < fewest_above, budgets, len(budgets) - 1)
        column = np.minimum.accumulate(fewer[::-1])[::-1]
        return cls(score[column], column)


def _followed(
    paths: Sequence[_Path], unseen: Sequence[Sequence[_Unseen]], fold_of: NDArray[np.int64]
) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
    """(N, G) the net loss of each sample and (G,) the sum of exit steps, each fold following the path of the others."""
    budgets = len(paths[0].score)
    net, steps = np.zeros((len(fold_of), budgets), dtype=np.int8), np.zeros(budgets)
    for fold, (path, of_scores) in enumerate(zip(paths, unseen, strict=True)):
        places = np.flatnonzero(fold_of == fold)
        for score in np.unique(path.score):
            taken, of_score = np.flatnonzero(path.score == score), of_scores[score]
            columns = path.column[taken]
            net[np.ix_(places[of_score.rows], taken)] = of_score.net[:, columns]
            steps[taken] += of_score.steps[columns]
    return net, steps


def _operating_points(
    scored: Iterable[Scored],
    at_full: NDArray[np.bool_],
    lengths: NDArray[np.int64] | None,
    budgets: NDArray[np.float64],
    fold_of: NDArray[np.int64],
    folds: int,
) -> tuple[list[_Points], list[list[_Points]], list[list[_Unseen]]]:
    """The points of each score on all samples; for each fold, its points on the other folds, and the same thresholds on it.
    `at_full` (N,): whether the prediction at T is correct."""
    whole: list[_Points] = []
    seen: list[list[_Points]] = [[] for _ in range(folds)]
    unseen: list[list[_Unseen]] = [[] for _ in range(folds)]
    time_steps = None
    for scores, correct in scored:
        time_steps = time_steps or correct.shape[-1]
        if not scores.shape == correct.shape == (len(at_full), time_steps):
            raise ValueError(f"scores {scores.shape} and correct {correct.shape} must both be (N, T)")
        if not np.array_equal(correct[:, -1], at_full):
            raise ValueError("the predictions at T must be the same for all candidates")
        whole.append(_Points.within(paired_front(scores, correct, lengths), budgets))
        for fold in range(folds):
            there = fold_of == fold
            others, ends = (None, None) if lengths is None else (lengths[~there], lengths[there])
            seen[fold].append(_Points.within(paired_front(scores[~there], correct[~there], others), budgets))
            unseen[fold].append(_Unseen.of(scores[there], correct[there], ends, seen[fold][-1].thresholds))
    return whole, seen, unseen
