"""The trials of a study as points: which are free, running or done, who runs them, and which participants have died."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dynconf_core.store.claim import claim, held
from dynconf_core.store.owner import Owner
from dynconf_core.store.storage import storage_url
from dynconf_tasks import interruption
from dynconf_tasks.study.points import Values
from dynconf_tasks.study.storage import Died, file_name, studies

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

RETRIES = 3
"""How often a point is taken again after its participant has died."""
INDEX, BY, ROWS, RELEASED = "index", "by", "rows", "released"
"""Attributes of a trial: the number of its point, its participant, its entries in the results, whether it was given back."""
LAST_PATIENCE, SAID_AFTER = 2.0, 2.0
"""Seconds to wait for a study's claim after an interruption, and before it is said."""
Condition = Literal["free", "running", "done", "lost"]
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class By:
    """Who runs a point.

    Attributes:
        owner: the process.
        flow_run: its flow run in Prefect; None if it has none.
        mark: the name of a claim that it holds as long as it lives.
    """

    owner: Owner
    flow_run: str | None
    mark: str

    @classmethod
    def of(cls, trial: FrozenTrial) -> By | None:
        """The participant of a trial; None if it died before it could say."""
        told = trial.user_attrs.get(BY, {})
        owner = Owner.parse(str(told.get("owner", "")))
        return cls(owner, told.get("flow_run") or None, str(told.get("mark"))) if owner is not None else None

    def __str__(self) -> str:
        return f"process {self.owner.pid} on {self.owner.host}"


@dataclass(frozen=True)
class Point:
    """What is known of a point.

    Attributes:
        condition: "free", "running", "done", or "lost", if its participants died too often.
        attempts: how often a participant died with it.
        trial: its last trial; None if no participant has taken it yet.
    """

    condition: Condition
    attempts: int = 0
    trial: FrozenTrial | None = field(default=None, repr=False)

    @property
    def values(self) -> Values | None:
        """The values of its fields; None if no participant has taken it yet."""
        return None if self.trial is None else self.trial.params

    @property
    def rows(self) -> Sequence[Mapping[str, Any]]:
        """Its entries in the results, once it is done."""
        return () if self.trial is None else self.trial.user_attrs.get(ROWS, ())

    @property
    def by(self) -> By | None:
        """Who runs it, or ran it last."""
        return None if self.trial is None else By.of(self.trial)

    @property
    def settled(self) -> bool:
        """Whether nothing is left to do."""
        return self.condition in ("done", "lost")


def points_of(trials: Sequence[FrozenTrial], count: int) -> list[Point]:
    """The ``count`` points of a study, as its trials say."""
    import optuna

    found = [Point("free")] * count
    for trial in trials:
        index = trial.user_attrs.get(INDEX)
        if index is None or index >= count or trial.state == optuna.trial.TrialState.WAITING:
            continue
        attempts = found[index].attempts
        condition: Condition = "running"
        if trial.user_attrs.get(ROWS) and trial.state.is_finished():
            condition = "done"
        elif trial.state.is_finished():
            attempts += RELEASED not in trial.user_attrs
            condition = "lost" if attempts > RETRIES else "free"
        found[index] = Point(condition, attempts, trial)
    return found


def end_dead(study: optuna.Study, home: Path, died: Died) -> list[FrozenTrial]:
    """End the trials whose participants are dead, and call ``died`` for each; the caller holds the study's claim.

    Returns:
        all trials of the study, as they are then.

    On this host, a participant is dead if its process is. On another one, it is dead if it has been silent for too long, as the
    heartbeats in a database say; without a database, if it no longer holds its mark.
    """
    import optuna

    with_heartbeats = storage_url() is not None
    if with_heartbeats:
        optuna.storages.fail_stale_trials(study)
    trials, any_died = study.get_trials(deepcopy=False), False
    for trial in trials:
        if trial.state != optuna.trial.TrialState.RUNNING:
            continue
        by = By.of(trial)
        if by is not None and by.owner == Owner.this():
            continue
        alive = by.owner.alive() if by is not None else False
        if alive is None and by is not None:
            alive = with_heartbeats or held(home, by.mark)
        if not alive:
            any_died = True
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL, skip_if_finished=True)
            died(study, trial)
    return study.get_trials(deepcopy=False) if any_died else trials


def end_trials(home: Path, dead: Callable[[Owner], bool], dry_run: bool = False) -> Iterator[tuple[str, int, By]]:
    """End the running trials of dead participants in a home, unless ``dry_run``; yields the study, the trial and who it was."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for name, study in studies(home):
        with claim(home, f"study-{file_name(name)}", "ending trials of killed processes", Wait(name)):
            for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
                by = By.of(trial)
                if by is not None and dead(by.owner):
                    yield name, trial.number, by
                    if not dry_run:
                        study.tell(trial.number, state=optuna.trial.TrialState.FAIL, skip_if_finished=True)


class Wait:
    """What to do while another process holds the claim, which normally takes milliseconds."""

    def __init__(self, name: str) -> None:
        self.name, self.said = name, False
        self.start = time.monotonic()

    def __call__(self, holder: str) -> None:
        waited = time.monotonic() - self.start
        if interruption.interrupted() and waited > LAST_PATIENCE:
            raise interruption.Interrupted
        if waited > SAID_AFTER and not self.said:
            self.said = True
            _log.warning("%s waits for %s", self.name, holder)
