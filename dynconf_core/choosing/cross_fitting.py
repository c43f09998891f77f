"""Choosing a score and its threshold on the same images, so that the loss carries over to unseen images.

The best of many scores on n images owes part of its lead to these particular images (the winner's curse). The procedure of
choosing is therefore itself tested on images that it did not see, by K-fold cross-fitting, which leaves a single number to be
chosen:

1. For given images, the *path* contains, for every budget of mean steps, the score and threshold that lose least within the
   budget. The loss of a threshold is the worst net loss at it or at any higher threshold. Ties go to the score that reaches
   this loss with the fewest steps.
2. For each fold, a path is computed on the other folds and evaluated on the fold. Summed over the folds, this gives the net
   losses of n samples, none of which influenced the choice made for it.
3. The budget: starting from T, stop before the first one at which these losses exceed what is allowed, counting one unseen
   sample as lost (`dynconf_core.choosing.selection`).
4. The rule: the point at this budget on the path of all n images, which is no worse than the K paths of fewer images.

The promised loss is the expected one; a single choice may lose more. `dynconf_core.choosing.guarantee` bounds the latter.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dynconf_core.choosing.selection import allowed_net_losses, promised_loss, worst_so_far
from dynconf_core.exit.front import PairedFront, paired_front, points_at
from dynconf_core.exit.intervals import Interval, net_loss_interval
from dynconf_core.exit.judgement import Loss

FOLDS = 5
BUDGETS_PER_STEP = 8
METHOD = "cross-fitted budget of mean steps, one unseen sample counted as lost"


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
    limit = allowed_net_losses(samples, max_drop, strict)
    budgets = np.linspace(1.0, time_steps, BUDGETS_PER_STEP * (time_steps - 1) + 1)
    fold_of = np.random.default_rng(seed).permutation(samples) % folds
    whole, seen, unseen = _operating_points(chain((first,), remaining), at_full, lengths, budgets, fold_of, folds)
    paths = [_path(points) for points in seen]
    lost, gained, steps = (
        np.sum(
            [_along(path, [getattr(points, name) for points in fold]) for path, fold in zip(paths, unseen, strict=True)], axis=0
        )
        for name in ("lost", "gained", "steps")
    )
    worst = np.maximum.accumulate((lost - gained)[::-1])[::-1]
    # The last budget, T, loses nothing; only a strict limit rules out even that, and then nothing exits either.
    budget = int(np.flatnonzero(worst <= max(limit, 0.0))[0]) if limit >= 0 else len(budgets) - 1
    index = int(_path(whole)[budget])
    at = whole[index]
    full = float(at_full.mean())
    loss = float(at.lost[budget] - at.gained[budget]) / samples
    return CrossFitted(
        index=index,
        threshold=float(at.thresholds[budget]),
        calibration=Loss(full - loss, float(at.steps[budget]) / samples, loss),
        cross_fitted=UnseenLoss(
            float(lost[budget] - gained[budget]) / samples,
            net_loss_interval(int(lost[budget]), int(gained[budget]), samples),
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
        """The point with the most mean steps within each budget; if there is none, its worst net loss is inf."""
        at = np.searchsorted(front.mean_steps, budgets * (1 + 1e-12), side="right") - 1
        points = cls.of(front, np.maximum(at, 0))
        points.worst[at < 0] = np.inf
        return points


_Folds = list[list[_Points]]  # for each fold, the points of each score


def _operating_points(
    scored: Iterable[Scored],
    at_full: NDArray[np.bool_],
    lengths: NDArray[np.int64] | None,
    budgets: NDArray[np.float64],
    fold_of: NDArray[np.int64],
    folds: int,
) -> tuple[list[_Points], _Folds, _Folds]:
    """The points of each score on all samples; for each fold, its points on the other folds, and the same thresholds on it.
    `at_full` (N,): whether the prediction at T is correct."""
    whole: list[_Points] = []
    seen: _Folds = [[] for _ in range(folds)]
    unseen: _Folds = [[] for _ in range(folds)]

    def front_of(candidate: Scored, part: NDArray[np.bool_]) -> PairedFront:
        scores, correct = candidate
        return paired_front(scores[part], correct[part], None if lengths is None else lengths[part])

    for candidate in scored:
        scores, correct = candidate
        if not scores.shape == correct.shape == (len(at_full), len(budgets) // BUDGETS_PER_STEP + 1):
            raise ValueError(f"scores {scores.shape} and correct {correct.shape} must both be (N, T)")
        if not np.array_equal(correct[:, -1], at_full):
            raise ValueError("the predictions at T must be the same for all candidates")
        whole.append(_Points.within(paired_front(scores, correct, lengths), budgets))
        for fold in range(folds):
            held_out = fold_of == fold
            seen[fold].append(_Points.within(front_of(candidate, ~held_out), budgets))
            front = front_of(candidate, held_out)
            unseen[fold].append(_Points.of(front, points_at(front, seen[fold][-1].thresholds)))
    return whole, seen, unseen


def _path(points: Sequence[_Points]) -> NDArray[np.int64]:
    """(G,) for each budget, the score with the smallest worst net loss; among equals, the one that reaches it at the
    smallest budget."""
    worst = np.stack([of_score.worst for of_score in points])
    least = worst.min(axis=0)
    already = np.empty_like(worst)
    for number, of_score in enumerate(worst):
        # The worst net loss falls as the budget grows: find the first budget that is no worse.
        already[number] = len(of_score) - np.searchsorted(of_score[::-1], least, side="right")
    already[worst > least] = np.inf
    path: NDArray[np.int64] = np.argmin(already, axis=0)
    return path


def _along(path: NDArray[np.int64], values: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """(G,) the values along the path: for each budget, the value of the score on the path; `values` holds one array (G,) per
    score."""
    taken: NDArray[Any] = np.stack(values)[path, np.arange(len(path))]
    return taken
