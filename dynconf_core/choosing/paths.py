"""The path: for every budget of mean steps the best score and threshold, and their loss on samples that did not choose them.

1. For given samples, the *path* contains, for every budget of mean steps, the score and threshold that lose least within the
   budget. The loss of a threshold is the worst net loss at it or at any higher threshold. Ties go to the score that reaches
   this loss with the fewest steps, so that mean steps never fall as the budget grows. A budget that no score keeps gets the
   point of the smallest one that is kept.
2. For each of K folds, a path is computed on the other folds and followed on the fold. Together, the folds give for every
   budget how each of n samples fares with a rule on which it had no influence.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from dynconf_core.choosing.selection import worst_so_far
from dynconf_core.exit.front import PairedFront, paired_front, points_at

BUDGETS_PER_STEP = 8
LEAST_BUDGETS = 96

Scored = tuple[NDArray[np.float64], NDArray[np.bool_]]
"""What is known of one candidate: its scores (N, T), and whether its prediction at each step is correct (N, T)."""


@dataclass(frozen=True, eq=False)
class CrossFit:
    """The path of all n samples, and the folds' paths on the samples that they did not see, at G budgets of mean steps.

    Attributes:
        budgets: (G,) ascending, from 1 to T.
        index, thresholds: (G,) the score that is taken at each budget, by its place among those given, and its threshold.
        loss, mean_steps: (G,) of the path on the same n samples, on which it is too good.
        net: (N, G) int8, the net loss of each sample, by the path of the folds without it.
        unseen_steps: (G,) the mean exit step of the samples by these paths.
        scores: how many scores there were.
        accuracy_at_full: the accuracy at T.
    """

    budgets: NDArray[np.float64]
    index: NDArray[np.int64]
    thresholds: NDArray[np.float64]
    loss: NDArray[np.float64]
    mean_steps: NDArray[np.float64]
    net: NDArray[np.int8]
    unseen_steps: NDArray[np.float64]
    scores: int
    accuracy_at_full: float


def cross_fit(
    scored: Iterable[Scored],
    random: np.random.Generator,
    folds: int,
    lengths: NDArray[np.int64] | None = None,
) -> CrossFit:
    """The paths of `scored` (see `cross_fitted_choice`), `random` giving the folds.

    Raises:
        ValueError: for no scores, shapes or predictions at T that differ, or a number of folds out of range.
    """
    remaining = iter(scored)
    first = next(remaining, None)
    if first is None:
        raise ValueError("no score was given")
    at_full = first[1][:, -1]
    samples, time_steps = first[1].shape
    if not 2 <= folds <= samples:
        raise ValueError(f"folds = {folds} must lie between 2 and the number of samples, {samples}")
    budgets = budgets_of(time_steps)
    fold_of = random.permutation(samples) % folds
    whole: list[_Points] = []
    seen: list[list[_Points]] = [[] for _ in range(folds)]
    unseen: list[list[_Unseen]] = [[] for _ in range(folds)]
    for scores, correct in chain((first,), remaining):
        if not scores.shape == correct.shape == (samples, time_steps):
            raise ValueError(f"scores {scores.shape} and correct {correct.shape} must both be (N, T)")
        if not np.array_equal(correct[:, -1], at_full):
            raise ValueError("the predictions at T must be the same for all candidates")
        whole.append(_Points.within(paired_front(scores, correct, lengths), budgets))
        for fold in range(folds):
            there = fold_of == fold
            others, ends = (None, None) if lengths is None else (lengths[~there], lengths[there])
            seen[fold].append(_Points.within(paired_front(scores[~there], correct[~there], others), budgets))
            unseen[fold].append(_Unseen.of(scores[there], correct[there], ends, seen[fold][-1].thresholds))
    path = _Path.of(whole)
    net, unseen_steps = _followed([_Path.of(points) for points in seen], unseen, fold_of)
    taken = (path.score, path.column)
    return CrossFit(
        budgets=budgets,
        index=path.score,
        thresholds=np.stack([points.thresholds for points in whole])[taken],
        loss=np.stack([points.net for points in whole])[taken] / samples,
        mean_steps=np.stack([points.steps for points in whole])[taken] / samples,
        net=net,
        unseen_steps=unseen_steps / samples,
        scores=len(whole),
        accuracy_at_full=float(at_full.mean()),
    )


def budgets_of(time_steps: int) -> NDArray[np.float64]:
    """(G,) the budgets of mean steps from 1 to T: `BUDGETS_PER_STEP` a step, but at least `LEAST_BUDGETS`."""
    intervals = max(BUDGETS_PER_STEP * (time_steps - 1), LEAST_BUDGETS) if time_steps > 1 else 0
    return np.linspace(1.0, time_steps, intervals + 1)


@dataclass(frozen=True, eq=False)
class _Points:
    """Operating points of one score, one per budget (G,); counts and steps are sums over the samples."""

    thresholds: NDArray[np.float64]
    net: NDArray[np.int64]
    steps: NDArray[np.float64]
    worst: NDArray[np.float64]

    @classmethod
    def within(cls, front: PairedFront, budgets: NDArray[np.float64]) -> _Points:
        """The point with the most mean steps within each budget; if there is none, its worst net loss and steps are inf."""
        at = np.searchsorted(front.mean_steps, budgets * (1 + 1e-12), side="right") - 1
        there, none = np.maximum(at, 0), at < 0
        steps, worst = front.mean_steps[there] * front.samples, worst_so_far(front)[there].astype(np.float64)
        steps[none] = worst[none] = np.inf
        return cls(front.thresholds[there], (front.lost - front.gained)[there], steps, worst)


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
        budget; where no score keeps the budget, the point of the smallest budget that one keeps."""
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
