"""The exact front: every operating point that a threshold on a score can reach, all at once.

A sample exits at the first step whose score is greater than the threshold, else at T. As the threshold rises, its exit step
changes only when the threshold reaches a new running maximum of its scores (a record), and then moves to the next record. It is
therefore enough to find the records, sort them once, and accumulate the changes that each causes. No search over trial
thresholds can find a better point.

A sample that ends before T exits at its end at the latest. What is summed over the exits stays the same after it, so that such
an exit is treated as one at T that costs the sample's length.
"""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dynconf_core.files import written

# Rows of one piece: intermediate results stay in the cache.
PIECE_SAMPLES = 4096
# Accuracies are whole numbers divided by N: rounding of their difference must not exclude a point.
ROUNDING = 1e-9


@dataclass(frozen=True, eq=False)
class Front:
    """K operating points, one per threshold, from the earliest exits to none; mean steps increase strictly.

    Attributes:
        thresholds: (K,) float64, ascending: the largest score that does not exit. The first is -inf (exit at once), the last
            inf (never exit). If all thresholds have the same effect there is one point, inf.
        accuracy: (K,) fraction of samples whose prediction at the exit step is correct.
        mean_steps: (K,) mean exit step, from 1 to T.
        never_from: the highest score at which any sample exits. From this threshold on none does; the last point writes it as
            inf.
    """

    thresholds: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    mean_steps: NDArray[np.float64]
    never_from: float = np.inf

    def __len__(self) -> int:
        return len(self.thresholds)


@dataclass(frozen=True, eq=False)
class PairedFront:
    """The operating points of a `Front`, compared with the full T steps sample by sample.

    The net loss of a sample is 1[correct at T] - 1[correct at its exit], in {-1, 0, 1}. Its mean is the accuracy lost. As the
    comparison is paired, it varies far less than either accuracy, and only through the samples that change.

    Attributes:
        thresholds, mean_steps: (K,), as in `Front`.
        lost: (K,) int64, number of samples correct at T and wrong at their exit (net loss 1).
        gained: (K,) int64, number of samples wrong at T and correct at their exit (net loss -1).
        samples: N.
        never_from: as in `Front`.
    """

    thresholds: NDArray[np.float64]
    mean_steps: NDArray[np.float64]
    lost: NDArray[np.int64]
    gained: NDArray[np.int64]
    samples: int
    never_from: float = np.inf

    def __len__(self) -> int:
        return len(self.thresholds)

    @property
    def loss(self) -> NDArray[np.float64]:
        """(K,) the accuracy lost relative to the full T steps, a fraction; negative if exits gain accuracy."""
        loss: NDArray[np.float64] = (self.lost - self.gained) / self.samples
        return loss


class Crossings:
    """The scores at which a rising threshold changes an exit step; gives sums over the samples at every operating point.

    `exact_front` needs the sums of exit steps and of correct predictions; spikes or losses up to the exit are summed in the
    same way, using the same sort.

    Args:
        scores: (N, T), larger means more confident; -inf never exits before T, inf exits at every threshold except inf.
        lengths: (N,) the step at which each sample ends, from 1 to T; None: all end at T.

    Raises:
        ValueError: for another shape, no samples, no steps, or a score that is not a number.
    """

    def __init__(self, scores: NDArray[np.float64], lengths: NDArray[np.int64] | None = None) -> None:
        if scores.ndim != 2 or not scores.size:
            raise ValueError(f"scores {scores.shape} must be (N, T), N, T > 0")
        scores = np.ascontiguousarray(scores)
        if np.isnan(scores.max()):
            raise ValueError("a score is not a number")
        self.shape, self.lengths = scores.shape, lengths
        samples = len(scores)
        # Where a sample may exit: at its records, in the order of the steps, and finally at T, regardless of the
        # score there. A rising threshold moves the exit from each place of a sample to the next one.
        can_exit = np.empty(scores.shape, dtype=bool)
        for start in range(0, samples, PIECE_SAMPLES):
            rows = slice(start, start + PIECE_SAMPLES)
            _mark_records(scores[rows], can_exit[rows], None if lengths is None else lengths[rows])
        self._places = np.flatnonzero(can_exit)
        ends = np.cumsum(np.count_nonzero(can_exit, axis=1)) - 1
        self._first = np.concatenate(([0], ends[:-1] + 1))
        moves = np.ones(len(self._places), dtype=bool)
        moves[ends] = False
        self._moves = moves[:-1]
        values = scores.ravel()[self._places[:-1][self._moves]]
        self._order = np.argsort(values)
        self.thresholds: NDArray[np.float64] = np.empty(len(values) + 1)
        self.thresholds[0] = -np.inf
        values.take(self._order, out=self.thresholds[1:], mode="clip")  # clip: no buffer; all indices are valid
        # Equal scores are reached together: sums are read where a run of equal scores ends.
        ends_a_run = np.ones(len(values) + 1, dtype=bool)
        np.not_equal(self.thresholds[2:], self.thresholds[1:-1], out=ends_a_run[1:-1])
        self._kept = None if ends_a_run.all() else np.flatnonzero(ends_a_run)
        if self._kept is not None:
            self.thresholds = self.thresholds[self._kept]
        self.never_from = float(self.thresholds[-1])
        self.thresholds[-1] = np.inf  # above the highest record no sample exits

    @cached_property
    def steps(self) -> NDArray[np.int64]:
        """(K,) the sum of all exit steps, counted from 1."""
        samples, time_steps = self.shape
        steps = np.tile(np.arange(1, time_steps + 1, dtype=np.int32), samples)[self._places]
        if self.lengths is not None:
            steps = np.minimum(steps, self.lengths[self._places // time_steps]).astype(np.int32)
        return self._summed(steps)

    def totals(self, quantity: NDArray[Any]) -> NDArray[Any]:
        """(K,) the sum over the samples of `quantity` (N, T), taken at each sample's exit step; it must not change after a
        sample's end.

        Integers and booleans are summed exactly, as int64, floats as float64.

        Raises:
            ValueError: if the shape is not that of the scores.
        """
        if quantity.shape != self.shape:
            raise ValueError(f"the quantity {quantity.shape} must have the shape of the scores, {self.shape}")
        there = np.ascontiguousarray(quantity).ravel()[self._places]
        if there.dtype.kind == "b":
            return self._summed(there.view(np.int8))
        return self._summed(there.astype(np.float64 if there.dtype.kind == "f" else np.int64))

    def _summed(self, there: NDArray[Any]) -> NDArray[Any]:
        """(K,) running sums of a value given at every place; differences must not overflow its type."""
        wide = np.float64 if there.dtype.kind == "f" else np.int64
        moved = np.diff(there)[self._moves][self._order]
        sums = np.empty(len(moved) + 1, dtype=wide)
        sums[0] = there[self._first].sum(dtype=wide)
        np.cumsum(moved, dtype=wide, out=sums[1:])
        sums[1:] += sums[0]
        return sums if self._kept is None else sums[self._kept]


def exact_front(scores: NDArray[np.float64], correct: NDArray[np.bool_], lengths: NDArray[np.int64] | None = None) -> Front:
    """Every operating point that a threshold on `scores` can reach, each once.

    Args:
        scores: (N, T), larger means more confident; -inf never exits before T, inf exits at every threshold except inf.
        correct: (N, T), whether the prediction at each step is correct; after a sample's end, as there.
        lengths: (N,) the step at which each sample ends; None: all end at T.

    Raises:
        ValueError: for shapes that differ, no samples, no steps, or a score that is not a number.
    """
    _check_shapes(scores, correct)
    crossings = Crossings(scores, lengths)
    samples = len(scores)
    accuracy, mean_steps = crossings.totals(correct) / samples, crossings.steps / samples
    return Front(crossings.thresholds, accuracy, mean_steps, crossings.never_from)


def paired_front(
    scores: NDArray[np.float64], correct: NDArray[np.bool_], lengths: NDArray[np.int64] | None = None
) -> PairedFront:
    """The same operating points, with the number of samples that each loses and gains relative to the full T steps.

    Arguments and errors as for `exact_front`.
    """
    _check_shapes(scores, correct)
    crossings = Crossings(scores, lengths)
    full = correct[:, -1:]
    return PairedFront(
        crossings.thresholds,
        crossings.steps / len(scores),
        crossings.totals(full & ~correct),
        crossings.totals(correct & ~full),
        len(scores),
        crossings.never_from,
    )


def points_at(front: Front | PairedFront, thresholds: Any) -> NDArray[np.int64]:
    """The index of the operating point in effect at each of `thresholds` (...), on the samples of the front."""
    asked = np.asarray(thresholds, dtype=np.float64)
    found = np.maximum(np.searchsorted(front.thresholds, asked, side="right") - 1, 0)
    return np.where(asked >= front.never_from, len(front) - 1, found)


def thinned(front: Front, most: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(mean steps, accuracy) of a front, at most about `most` points, evenly spaced over the steps."""
    if len(front) <= most:
        return front.mean_steps, front.accuracy
    wanted = np.linspace(front.mean_steps[0], front.mean_steps[-1], most)
    kept = np.unique(np.minimum(np.searchsorted(front.mean_steps, wanted), len(front) - 1))
    return front.mean_steps[kept], front.accuracy[kept]


def write_front(front: Front, path: Path) -> None:
    """Write `front.csv`: threshold, accuracy and mean steps of every operating point; `inf` means never, `-inf` at once."""
    with written(path) as stream:
        file = io.TextIOWrapper(stream, encoding="ascii", newline="")
        rows = csv.writer(file)
        rows.writerow(("threshold", "accuracy", "mean_steps"))
        for values in zip(front.thresholds, front.accuracy, front.mean_steps, strict=True):
            rows.writerow([_text(float(value)) for value in values])
        file.detach()  # flushes, and leaves the stream open


def _text(value: float) -> str:
    return repr(value) if math.isfinite(value) else ("inf" if value > 0 else "-inf")


def _mark_records(scores: NDArray[np.float64], can_exit: NDArray[np.bool_], lengths: NDArray[np.int64] | None) -> None:
    """Mark in `can_exit` (n, T) where a sample's score exceeds all its earlier ones; T, which stands for its end, is always
    marked."""
    np.greater(scores[:, 0], -np.inf, out=can_exit[:, 0])
    np.greater(scores[:, 1:], np.maximum.accumulate(scores[:, :-1], axis=1), out=can_exit[:, 1:])
    if lengths is not None:
        can_exit &= np.arange(1, scores.shape[1] + 1) < lengths[:, None]
    can_exit[:, -1] = True


def _check_shapes(scores: NDArray[np.float64], correct: NDArray[np.bool_]) -> None:
    if scores.ndim != 2 or scores.shape != correct.shape or not scores.size:
        raise ValueError(f"scores {scores.shape} and correct {correct.shape} must both be (N, T), N, T > 0")
