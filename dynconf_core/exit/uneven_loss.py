"""Whether the accuracy that an exit loses falls on few classes.

Each class is tested for whether it loses more than a random part of the samples of its size would, and so are the rare classes
together, each of which may be too small to show anything. If the loss is independent of the class, all tests together raise a
false alarm with a probability of at most ``LEVEL`` (exact tests, Bonferroni). Since among enough samples any difference becomes
significant, a class must also lose ``LEAST_EXCESS`` more than all samples do, and at least twice as much: in balanced data the
hardest class loses a few points more than the mean, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dynconf_core.exit.by_class import ClassFigures
from dynconf_core.exit.exact_tests import net_loss_probability

LEVEL = 0.01
LEAST_EXCESS = 0.03
RARE = 0.5
"""A rare class has fewer samples than this share of the mean class."""


@dataclass(frozen=True)
class UnevenLoss:
    """Classes that lose more than the rest.

    Attributes:
        labels: one class, or the rare classes together.
        samples: the number of their samples.
        loss: the accuracy they lose together, a fraction.
    """

    labels: tuple[int, ...]
    samples: int
    loss: float


def uneven_losses(classes: Sequence[ClassFigures]) -> tuple[UnevenLoss, ...]:
    """The classes that lose more than the rest, the worst first; if no single one does, perhaps the rare ones together."""
    if len(classes) < 2:
        return ()
    fewest = RARE * sum(one.samples for one in classes) / len(classes)
    rare = [one for one in classes if one.samples < fewest]
    tests = len(classes) + (len(rare) > 1)
    single = [found for one in classes if (found := _uneven([one], classes, tests)) is not None]
    if single or len(rare) < 2:
        return tuple(sorted(single, key=lambda one: -one.loss))
    together = _uneven(rare, classes, tests)
    return () if together is None else (together,)


def overall_loss(classes: Sequence[ClassFigures]) -> float:
    """The accuracy that all samples lose together, a fraction."""
    samples, lost, gained = _counts(classes)
    return (lost - gained) / samples


def _uneven(group: Sequence[ClassFigures], classes: Sequence[ClassFigures], tests: int) -> UnevenLoss | None:
    counts, overall = _counts(group), overall_loss(classes)
    samples, lost, gained = counts
    loss = (lost - gained) / samples
    if loss < overall + LEAST_EXCESS or loss < 2.0 * overall:
        return None
    if net_loss_probability(counts, _counts(classes)) * tests > LEVEL:
        return None
    return UnevenLoss(tuple(one.label for one in group), samples, loss)


def _counts(classes: Sequence[ClassFigures]) -> tuple[int, int, int]:
    return (sum(one.samples for one in classes), sum(one.lost for one in classes), sum(one.gained for one in classes))
