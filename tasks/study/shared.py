"""A study that participants share: a list of points, of which each participant takes one after the other until all are done.

A point is a trial of an Optuna study. Its participant writes itself into the trial and ends it with the point's entry in the
results; any participant can then gather the entries of all. A trial whose participant has died is ended by the others, and its
point is taken again, a few times at most.

Every change is made under the study's claim, so that each point is taken by one participant and no more points are taken than
there are.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from dynconf_core.errors import InputError
from dynconf_core.failing import failure_point
from dynconf_core.store.claim import claim, held_among
from dynconf_core.store.owner import Owner
from dynconf_core.store.storage import STORAGE, NotAnswering, storage_url
from dynconf_tasks import interruption
from dynconf_tasks.study.points import Points, Values
from dynconf_tasks.study.storage import created, file_name, heartbeat, journal, open_storage, study_name
from dynconf_tasks.study.trials import BY, INDEX, RELEASED, ROWS, By, Point, Wait, end_dead, points_of

if TYPE_CHECKING:
    import optuna
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

PATIENCE = 300.0
"""Seconds for which a participant bears that the database does not answer."""
ABOUT, KEPT, WRITTEN, PRESENT = "dynconf", "kept", "written", "participants"
"""Attributes of a study: what it is about, an earlier attempt's points, whether its results are written, who takes part."""
T = TypeVar("T")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Code:
    """The version of the package and the fingerprint of the code that computes the points."""

    version: str
    fingerprint: str

    def __str__(self) -> str:
        return f"{self.version} ({self.fingerprint[:12]})"


@dataclass(frozen=True)
class Taken:
    """A point that this participant has taken; ``attempt`` counts from 1."""

    index: int
    values: Values
    attempt: int
    trial: optuna.Trial = field(repr=False)


def participation(study: str) -> str:
    """What a participant's claim is held for, as others see it in the home."""
    return f"taking part in {study}"


class SharedStudy:
    """A study as one of its participants sees it; to be used in a ``with`` block, which creates or enters it.

    Args:
        home: the home that the participants share.
        name: the study's name, for people.
        points: its points.
        code: what computes them; participants of other code are refused.
        run: makes the name of the results, if the study is created.
        join: whether to take part in what others began, even if none of them works at the moment. Otherwise a study without
            living participants begins anew: what is in the store is not computed again, and what failed is.
        other_code: whether to take part although others run other code.
    """

    def __init__(
        self,
        home: Path,
        name: str,
        points: Points,
        code: Code,
        run: Callable[[], str],
        *,
        join: bool = False,
        other_code: bool = False,
    ) -> None:
        self.home, self.name, self.points, self.code = home, name, points, code
        self.settled = False
        """Whether all points were done when the results were gathered."""
        self.dead: list[By] = []
        """The participants that were found dead, for those who end their other records."""
        self._new_run, self._join, self._other_code = run, join, other_code
        self._flow_run: str | None = None
        self._mark = f"participant-{secrets.token_hex(8)}"
        self._study: optuna.Study
        self._storage: BaseStorage
        self._mine: dict[int, Taken] = {}
        self._left = threading.Event()
        self._stack = ExitStack()

    def __enter__(self) -> SharedStudy:
        self._stack.enter_context(claim(self.home, self._mark, participation(self.name)))
        try:
            self._insist(self._enter)
        except BaseException:
            self._stack.close()
            raise
        if storage_url() is not None:
            threading.Thread(target=self._beat, args=(heartbeat()[0],), name="heartbeats", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            for taken in list(self._mine.values()):
                self.release(taken)
        finally:
            self._left.set()
            self._stack.close()

    @property
    def run(self) -> str:
        """The name of the results."""
        return str(self._study.user_attrs[ABOUT]["run"])

    def shown_as(self, flow_run: str) -> None:
        """Name this participant's flow run in the points that it takes from now on."""
        self._flow_run = flow_run

    def take(self) -> Taken | None:
        """Take the next point that nobody has; None if there is none at the moment."""
        return self._insist(self._take)

    def done(
        self,
        taken: Taken,
        rows: Sequence[Mapping[str, Any]],
        figures: Sequence[float] | None,
        constraints: Mapping[str, float] | None = None,
    ) -> None:
        """End a point.

        Args:
            taken: the point.
            rows: its entries in the results.
            figures: its objectives; None for a point that failed.
            constraints: what must not be above 0, by name; a point that exceeds one is shown as infeasible.
        """
        import optuna

        def end() -> None:
            state = optuna.trial.TrialState.FAIL if figures is None else None
            if self._ours(taken):
                taken.trial.set_user_attr(ROWS, list(rows))
                for name, value in (constraints or {}).items():
                    taken.trial.set_constraint(name, value)
                self._study.tell(taken.trial, figures, state=state, skip_if_finished=True)

        failure_point("study.point")
        self._insist(end)
        self._mine.pop(taken.index, None)

    def release(self, taken: Taken) -> None:
        """Give a point back that was interrupted."""
        import optuna

        def end() -> None:
            if self._ours(taken):
                taken.trial.set_user_attr(RELEASED, True)
                self._study.tell(taken.trial, state=optuna.trial.TrialState.FAIL, skip_if_finished=True)

        self._insist(end)
        self._mine.pop(taken.index, None)

    def state(self) -> list[Point]:
        """The points, in their order, after those of dead participants have been ended."""
        return self._insist(self._look)

    def gathered(self, make: Callable[[Sequence[Point], bool], T], read: Callable[[], T]) -> T:
        """The results of the study, which the first participant that finds all points done makes, and the others read.

        Args:
            make: makes and writes the results, given the points and whether all are done.
            read: reads them.
        """

        def gather() -> T:
            points = self._look()
            self.settled = all(point.settled for point in points)
            if self.settled and self._study.user_attrs.get(WRITTEN):
                with suppress(InputError, OSError):  # somebody has removed or changed them
                    return read()
            made = make(points, self.settled)
            if self.settled:
                self._study.set_user_attr(WRITTEN, True)
            return made

        return self._insist(gather)

    def _claimed(self) -> AbstractContextManager[None]:
        return claim(self.home, f"study-{file_name(self.name)}", f"taking a point of {self.name}", Wait(self.name))

    # --- under the claim --------------------------------------------------------------------------------------

    def _enter(self) -> None:

        self._storage = open_storage(self.home, self.name, self._noted_dead)
        self._study_name = study_name(self.home, self.name)
        kept: dict[str, Values] = {}
        if self._load():
            found = self._look()
            if self._join or self._others() or any(point.condition == "running" for point in found):
                self._check(self._study.user_attrs.get(ABOUT, {}))
                self._register()
                return
            chosen = [(number, point) for number, point in enumerate(found) if self.points.known(number) is None]
            kept = {str(number): point.values for number, point in chosen if point.settled and point.values}
            self._delete()
        self._study = created(self._study_name, self._storage, self.points.objectives, self._sampler())
        about = {"version": self.code.version, "fingerprint": self.code.fingerprint, "points": len(self.points)}
        self._study.set_user_attr(KEPT, kept)
        self._study.set_user_attr(ABOUT, {**about, "run": self._new_run()})
        self._register()

    def _register(self) -> None:
        """Note that this participant is there, even while it has no point."""
        self._study.set_user_attr(PRESENT, {**self._others(), self._mark: str(Owner.this())})

    def _others(self) -> dict[str, str]:
        """The other living participants, by their marks."""
        noted = self._study.user_attrs.get(PRESENT, {})
        there = held_among(self.home, noted)
        owners = {mark: Owner.parse(noted[mark]) for mark in there}
        return {mark: noted[mark] for mark, owner in owners.items() if owner is not None and owner.alive() is not False}

    def _load(self) -> bool:
        """Load the study; False if there is none."""
        import optuna

        try:
            self._study = optuna.load_study(study_name=self._study_name, storage=self._storage, sampler=self._sampler())
        except KeyError:
            return False
        return True

    def _delete(self) -> None:
        import optuna

        if storage_url() is not None:
            optuna.delete_study(study_name=self._study_name, storage=self._storage)
            return
        journal(self.home, self.name).unlink()
        self._storage = open_storage(self.home, self.name, self._noted_dead)

    def _check(self, about: Mapping[str, Any]) -> None:
        theirs = Code(str(about.get("version", "unknown")), str(about.get("fingerprint", "unknown")))
        if theirs != self.code and not self._other_code:
            raise InputError(
                f"{self.name} is computed by dynconf {theirs}, and this is dynconf {self.code}: install the same, or take part "
                "all the same with --allow-other-code."
            )
        if about.get("points") != len(self.points):
            raise InputError(
                f"{self.name} has {about.get('points')} points, and this command asks for {len(self.points)}: give the same "
                "--trials, or run again once nobody works on it."
            )

    def _take(self) -> Taken | None:
        import optuna

        trials = end_dead(self._study, self.home, self._noted_dead)
        found = points_of(trials, len(self.points))
        waiting = any(trial.state == optuna.trial.TrialState.WAITING for trial in trials)
        if not waiting:  # otherwise a participant died between the next two calls
            index = next((number for number, point in enumerate(found) if point.condition == "free"), None)
            if index is None:
                return None
            self._study.enqueue_trial(dict(self._values(index, found)), user_attrs={INDEX: index})
            failure_point("study.enqueued")
        trial = self._study.ask(dict(self.points.distributions))
        by = {"owner": str(Owner.this()), "flow_run": self._flow_run, "mark": self._mark}
        trial.set_user_attr(BY, by)
        self._record_heartbeat(trial)
        index = int(trial.user_attrs[INDEX])
        taken = Taken(index, trial.params, found[index].attempts + 1, trial)
        self._mine[index] = taken
        failure_point("study.taken")
        return taken

    def _beat(self, every: float) -> None:
        """Tell the other participants that this one lives, whatever it is at."""
        while not self._left.wait(every):
            for taken in list(self._mine.values()):
                with suppress(Exception):  # a database that does not answer; the next heartbeat may get through
                    self._record_heartbeat(taken.trial)

    def _record_heartbeat(self, trial: optuna.Trial) -> None:
        from optuna.storages import RDBStorage

        if isinstance(self._storage, RDBStorage):
            self._storage.record_heartbeat(trial._trial_id)

    def _values(self, index: int, found: Sequence[Point]) -> Values:
        values = self.points.known(index) or found[index].values or self._study.user_attrs.get(KEPT, {}).get(str(index))
        if values is not None:
            return dict(values)
        return self.points.values(index, [point.trial for point in found[:index] if point.trial is not None])

    def _look(self) -> list[Point]:
        """The points, after the trials of dead participants have been ended."""
        return points_of(end_dead(self._study, self.home, self._noted_dead), len(self.points))

    def _noted_dead(self, study: optuna.Study, trial: FrozenTrial) -> None:
        by = By.of(trial)
        if by is not None and by not in self.dead:
            self.dead.append(by)
        _log.info("point %s of %s: %s has died", trial.user_attrs.get(INDEX), self.name, by or "its participant")

    def _ours(self, taken: Taken) -> bool:
        """Whether a trial still runs; others end it if this process was silent for too long."""
        trial = self._study._storage.get_trial(taken.trial._trial_id)
        return not trial.state.is_finished()

    def _insist(self, call: Callable[[], T]) -> T:
        """Call under the study's claim, and again for a while if the database does not answer."""
        from sqlalchemy.exc import OperationalError

        start, said = time.monotonic(), False
        while True:
            try:
                with self._claimed():
                    return call()
            except (NotAnswering, OperationalError):
                if interruption.interrupted() or time.monotonic() - start > PATIENCE:
                    raise
                if not said:
                    said = True
                    _log.warning("The storage %s does not answer; trying again for %.0f s.", STORAGE, PATIENCE)
                interruption.wait(1)

    @staticmethod
    def _sampler() -> optuna.samplers.BaseSampler:
        import optuna

        return optuna.samplers.RandomSampler()  # it is never asked: all values are given
