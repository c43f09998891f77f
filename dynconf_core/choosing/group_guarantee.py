"""A guarantee for every group of samples: with confidence 1 - delta, no group loses more than epsilon of its accuracy at T.

One threshold for all. A candidate threshold is certified if the exact test of every group rejects "the mean net loss of this
group is epsilon or more", each at the level delta. If the hypothesis holds for any group, all tests reject with a probability
of at most delta, whatever the number of groups (an intersection-union test: Berger, Technometrics, 1982). The candidates are
tested one after another from the highest threshold down, as for all samples together (`dynconf_core.choosing.guarantee`). The
group with the fewest samples or the largest loss decides. This threshold needs no knowledge of a sample's group, so that it
also serves groups that are unknown at the exit, such as true classes.

A threshold for each group (Mondrian). Where a sample's group is known when it exits, each group may have its own threshold. G
groups are then certified each at the level delta / G, so that with confidence 1 - delta all promises hold at once (Bonferroni).

The assumption is that of the guarantee for all samples, within each group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dynconf_core.choosing.guarantee import Guarantee, certify
from dynconf_core.exit.front import paired_front, points_at


@dataclass(frozen=True, eq=False)
class GroupGuarantee:
    """What is certified about one group.

    Attributes:
        group: its name.
        samples: the number of its guarantee samples.
        lost, gained, mean_steps: of these, at the threshold for all groups.
        own: the guarantee of the group's own threshold, at the level delta / G; None: the group is not known at the exit.
    """

    group: str
    samples: int
    lost: int
    gained: int
    mean_steps: float
    own: Guarantee | None


def certify_groups(
    scores: NDArray[np.float64],
    correct: NDArray[np.bool_],
    groups: NDArray[np.str_],
    thresholds: Sequence[float] | NDArray[np.float64],
    epsilon: float,
    delta: float,
    seen_in_training: bool | None = None,
    lengths: NDArray[np.int64] | None = None,
    known_at_exit: bool = False,
) -> tuple[Guarantee, tuple[GroupGuarantee, ...]]:
    """The lowest of `thresholds` at which, with confidence 1 - delta, no group loses more than epsilon.

    Args:
        groups: (N,) the group of each sample.
        known_at_exit: whether a sample's group is known when it exits, so that each group may have a threshold of its own.
        scores, correct, thresholds, epsilon, delta, seen_in_training, lengths: as in `certify`.

    Returns:
        The guarantee for all groups, and what is certified about each, by name.

    Raises:
        InputError, ValueError: as `certify`.
    """
    together = certify(scores, correct, thresholds, epsilon, delta, seen_in_training, lengths)
    names = np.unique(groups).tolist()
    rows = {name: groups == name for name in names}

    def of_group(name: str, level: float) -> Guarantee:
        mine = rows[name]
        ends = None if lengths is None else lengths[mine]
        return certify(scores[mine], correct[mine], thresholds, epsilon, level, seen_in_training, ends)

    singly = {name: of_group(name, delta) for name in names}
    tests = together.tests
    # A candidate that fails in any group fails for all: no number of losses among all samples certifies it.
    holds = np.all([one.tests.lost <= one.tests.most_lost for one in singly.values()], axis=0)
    tests = replace(tests, most_lost=np.where(holds, np.maximum(tests.most_lost, tests.lost), -1))
    last = tests.passed - 1
    threshold = float(tests.thresholds[last]) if last >= 0 else float("inf")
    front = paired_front(scores, correct, lengths)
    point = int(points_at(front, threshold))
    guarantee = replace(
        together,
        threshold=threshold,
        certified=last >= 0,
        lost=int(front.lost[point]),
        gained=int(front.gained[point]),
        mean_steps=float(front.mean_steps[point]),
        tests=tests,
        groups=len(names),
        fewest=min(int(mine.sum()) for mine in rows.values()),
    )
    found = []
    for name in names:
        mine = rows[name]
        of_mine = paired_front(scores[mine], correct[mine], None if lengths is None else lengths[mine])
        at = int(points_at(of_mine, threshold))
        found.append(
            GroupGuarantee(
                group=name,
                samples=int(mine.sum()),
                lost=int(of_mine.lost[at]),
                gained=int(of_mine.gained[at]),
                mean_steps=float(of_mine.mean_steps[at]),
                own=of_group(name, delta / len(names)) if known_at_exit else None,
            )
        )
    return guarantee, tuple(found)
