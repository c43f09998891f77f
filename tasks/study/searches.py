"""Finished searches for people to look at: a study each, beside those that participants share.

A search itself keeps its study in memory and is a function of its stage's key. What it has tried is written once it has ended,
under a name that tells setting, measure, profile and key; nothing reads it but people, so that it may be removed at any time.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dynconf_core.store.claim import claim
from dynconf_tasks.study.points import MEAN_STEPS
from dynconf_tasks.study.storage import FOLDER, created, file_name, open_file

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

SEARCHES = "searches"
ABOVE_PROMISE = "loss above the promised one"
"""The constraint: a point at which it is above 0 is not feasible."""
_log = logging.getLogger(__name__)


def keep_search(home: Path, name: str, trials: Sequence[FrozenTrial], losses: Sequence[float], promised: float) -> None:
    """Write a finished search as the study ``name``, if there is none; a failure is logged, and harms nothing.

    Args:
        home: the home; the study lies in a journal of its own in ``studies/searches``, whatever the storage of shared studies.
        name: the study's name.
        trials: the trials of a study whose last value is the mean steps.
        losses: the accuracy that each trial loses on the calibration samples at these steps, a fraction.
        promised: the loss that was promised.
    """
    import optuna

    try:
        with claim(home, f"search-{file_name(name)}", f"writing the search {name}"):
            file = home / FOLDER / SEARCHES / f"{file_name(name)}.journal"
            file.parent.mkdir(parents=True, exist_ok=True)
            storage = open_file(file)
            if name in optuna.get_all_study_names(storage):
                return
            created(name, storage, [MEAN_STEPS]).add_trials(
                [
                    optuna.trial.create_trial(
                        value=trial.values[-1],
                        params=trial.params,
                        distributions=trial.distributions,
                        user_attrs={"points lost (calibration)": round(100 * loss, 4)},
                        constraints={ABOVE_PROMISE: loss - promised},
                    )
                    for trial, loss in zip(trials, losses, strict=True)
                ]
            )
    except Exception as error:
        _log.warning("the search %s cannot be shown in Optuna's dashboard: %s", name, error)
