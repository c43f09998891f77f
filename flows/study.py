"""The Optuna study of a sweep, a function of the sweep's name and its points' figures.

Each trial is chosen by a sampler seeded with the trial's number, from the figures of the trials before it. A study that is run
again therefore asks for the same points in the same order, and takes those that are in the store from there: it needs no memory
of its own. The home's journal holds a copy for people and Optuna's dashboard, of finished trials only.
"""

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from dynconf_core.experiment.points import Range
from dynconf_core.schemes.field import Value

if TYPE_CHECKING:
    import optuna

DIRECTIONS: Sequence[Literal["minimize", "maximize"]] = ("maximize", "minimize")
Point = Callable[[Mapping[str, Value]], Sequence[float] | None]
"""Runs a point; returns its accuracy and mean steps, or None if it failed."""
_log = logging.getLogger(__name__)


def run_study(run_point: Point, ranges: Sequence[Range], trials: int, seed: int, name: str, journal: Path) -> None:
    """Run ``trials`` points of the study ``name``, and copy each into ``journal``.

    Args:
        run_point: runs a point with these values of the swept fields.
        ranges: the values from which Optuna chooses.
        trials: the number of points.
        seed: seed of the study.
        name: the name of its copy.
        journal: the file of the copy; a damaged one is set aside with a warning.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(directions=DIRECTIONS)
    copy = _copy(name, journal)
    for number in range(trials):
        study.sampler = optuna.samplers.TPESampler(seed=(seed * 1_000_003 + number) % 2**32)
        trial = study.ask()
        found = run_point({one.field: _suggested(trial, one) for one in ranges})
        ended = study.tell(trial, found, state=None if found is not None else optuna.trial.TrialState.FAIL)
        try:
            if copy is not None and number >= len(copy.get_trials(deepcopy=False)):
                copy.add_trial(ended)
        except Exception as error:  # a full disk, or a line that Optuna did not write
            _log.warning("%s cannot be written (%s): the study goes on without a copy in it.", journal, error)
            copy = None


def _suggested(trial: "optuna.Trial", one: Range) -> Value:
    if one.choices:
        return cast(Value, trial.suggest_categorical(one.field, list(one.choices)))
    if isinstance(one.low, int) and isinstance(one.high, int):
        return trial.suggest_int(one.field, one.low, one.high)
    return trial.suggest_float(one.field, one.low, one.high, log=one.field in ("alpha", "learning_rate"))


def _copy(name: str, journal: Path) -> "optuna.Study | None":
    """The study's copy in the journal; None if the journal cannot be used."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    for _ in range(2):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                storage = JournalStorage(JournalFileBackend(str(journal)))
                return optuna.create_study(study_name=name, storage=storage, directions=DIRECTIONS, load_if_exists=True)
        except OSError as error:
            _log.warning("%s cannot be used (%s): the study is not copied into it.", journal, error.strerror or error)
            return None
        except Exception as error:  # whatever Optuna makes of a line that it did not write
            aside = journal.with_name(f"{journal.name}.damaged")
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            _log.warning("%s is damaged (%s): set aside as %s, and begun anew.", journal, reason, aside)
            with suppress(FileNotFoundError):  # another process has just set it aside
                journal.replace(aside)
    return None
