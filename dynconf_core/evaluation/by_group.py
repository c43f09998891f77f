"""The groups of an analysis: what is certified about each, and its figures on the test samples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dynconf_core.choosing.contest import Chosen, Contest
from dynconf_core.choosing.group_guarantee import GroupGuarantee
from dynconf_core.errors import InputError
from dynconf_core.evaluation.record import GroupEntry, OwnThreshold
from dynconf_core.exit.by_class import figures_of_group
from dynconf_core.traces.groups import CLASS, Groups, Labels
from dynconf_core.traces.schema import Traces


def checked_groups(given: Groups | str | None, calibration: Traces, test: Traces, epsilon: float | None) -> Groups | None:
    """The groups that `given` names or is.

    Raises:
        InputError: for a name other than "class", groups that do not fit the traces, or if no guarantee is asked for.
    """
    if given is None:
        return None
    if epsilon is None:
        raise InputError("groups are for a guarantee: give epsilon and delta too, such as 0.02 and 0.05.")
    if isinstance(given, Groups):
        return given.checked(calibration, test)
    if given != CLASS:
        raise InputError(f"groups = {given!r}: give {CLASS!r}, or Groups with the group of each sample.")
    return Groups.of_classes(calibration, test)


def group_entries(
    found: Sequence[GroupGuarantee], contest: Contest, chosen: Chosen, exiting: NDArray[np.int64], groups: Labels | None
) -> tuple[GroupEntry, ...]:
    """The entries of all groups.

    Args:
        found: what is certified about each.
        contest, chosen: the rule, and the test samples.
        exiting: (M,) the exit steps of the test samples at the threshold for all groups.
        groups: (M,) their groups; None: not known.
    """
    right = contest.test_scored(chosen.index)[1]
    entries = []
    for one in found:
        mine = np.zeros(len(exiting), np.bool_) if groups is None else groups == one.group
        own = None
        if one.own is not None:
            own = OwnThreshold(
                threshold=one.own.threshold,
                threshold_shown=float(chosen.rule.measure.shown(one.own.threshold)),
                certified=one.own.certified,
                delta=one.own.delta,
                mean_steps=one.own.mean_steps,
                lost=one.own.lost,
                gained=one.own.gained,
                test=figures_of_group(right, contest.exiting(chosen.index, one.own.threshold), mine),
            )
        entries.append(
            GroupEntry(
                group=one.group,
                samples=one.samples,
                lost=one.lost,
                gained=one.gained,
                mean_steps=one.mean_steps,
                test=figures_of_group(right, exiting, mine),
                own=own,
            )
        )
    return tuple(entries)
