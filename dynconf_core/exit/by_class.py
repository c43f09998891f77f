"""The figures of an exit for each class: a mean over all samples hides what a rare class loses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IN_BRIEF = 20
"""The number of classes that a result in brief lists at most."""


@dataclass(frozen=True)
class GroupFigures:
    """The figures of an exit on the samples of a group.

    Attributes:
        samples: the number of its samples.
        accuracy_at_full: the share of them that is classified correctly at T.
        accuracy: the same at their exits.
        loss: the accuracy lost relative to T; negative if the exit gains accuracy.
        lost, gained: number of samples correct only at T, and only at their exit.
        mean_steps: their mean exit step.
    """

    samples: int
    accuracy_at_full: float
    accuracy: float
    loss: float
    lost: int
    gained: int
    mean_steps: float


@dataclass(frozen=True)
class _Label:
    label: int


@dataclass(frozen=True)
class ClassFigures(GroupFigures, _Label):
    """The same of a class: its ``label``, counted from 0, stands first."""


def figures_by_class(
    correct: NDArray[np.bool_], steps: NDArray[np.int64], labels: NDArray[np.int64]
) -> tuple[ClassFigures, ...]:
    """The figures of each class that has samples, by label.

    Args:
        correct: (N, T), whether the prediction at each step is correct.
        steps: (N,) the exit steps, counted from 1.
        labels: (N,) the true classes.
    """
    return tuple(ClassFigures(label, **vars(found)) for label, found in _figures(correct, steps, labels).items())


def figures_of_group(correct: NDArray[np.bool_], steps: NDArray[np.int64], mine: NDArray[np.bool_]) -> GroupFigures | None:
    """The figures on the samples that `mine` (N,) marks; None if it marks none. Other arguments as in `figures_by_class`."""
    return next(iter(_figures(correct[mine], steps[mine], np.zeros(int(mine.sum()), np.int64)).values()), None)


def in_brief(classes: Sequence[ClassFigures], most: int = IN_BRIEF) -> tuple[ClassFigures, ...]:
    """All classes if there are at most ``most``; otherwise the ``most`` that lose the most accuracy, the worst first."""
    if len(classes) <= most:
        return tuple(classes)
    return tuple(sorted(classes, key=lambda one: (-one.loss, one.label))[:most])


def _figures(correct: NDArray[np.bool_], steps: NDArray[np.int64], labels: NDArray[np.int64]) -> dict[int, GroupFigures]:
    """The figures of the samples of each label."""
    present, which, samples = np.unique(labels, return_inverse=True, return_counts=True)
    right, full = correct[np.arange(len(steps)), steps - 1], correct[:, -1]

    def count(chosen: NDArray[np.bool_]) -> list[int]:
        found: list[int] = np.bincount(which[chosen], minlength=len(present)).tolist()
        return found

    mean_steps = np.bincount(which, steps) / samples
    columns = (present.tolist(), samples.tolist(), count(full), count(right), count(full & ~right), count(right & ~full))
    return {
        label: GroupFigures(n, at_full / n, at_exit / n, (lost - gained) / n, lost, gained, float(mean))
        for label, n, at_full, at_exit, lost, gained, mean in zip(*columns, mean_steps, strict=True)
    }
