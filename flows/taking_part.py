"""Taking part in a study: points are taken and computed until all are done, by whomever.

A sweep and a reproduction are studies alike (see ``dynconf_tasks.study.shared``). Every participant is a flow run, and each
setting that it computes is a subflow. Once all points are done, each participant gathers the same results from the store.
"""

from __future__ import annotations

import hashlib
import logging
import signal
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version

from prefect.exceptions import TerminationSignal
from prefect.runtime import flow_run

from dynconf_core.experiment.job import RunContext
from dynconf_core.experiment.plan import Plan
from dynconf_core.experiment.request import CheckedRequest
from dynconf_core.experiment.stages import code_fingerprint, stages_of
from dynconf_core.results.brief import in_brief, in_full
from dynconf_core.results.rows import failed
from dynconf_core.results.types import AnySetting, SettingResult
from dynconf_core.store.owner import Owner
from dynconf_flows.prefect_runs import crash_flow_run
from dynconf_flows.setting import SettingRun
from dynconf_flows.workers.messages import Assignment
from dynconf_flows.workers.pool import LocalWorkers, Workers, visible_gpus
from dynconf_tasks import interruption, listening
from dynconf_tasks.study.points import Values
from dynconf_tasks.study.searches import ABOVE_PROMISE
from dynconf_tasks.study.shared import Code, SharedStudy, Taken
from dynconf_tasks.study.trials import RETRIES, Point

LOOK = 2.0
"""Seconds between two looks at what other participants do."""
LOOK_AT_WORK = 10.0
"""The same while this one has work, to show how far all of them are."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entries:
    """The entries of a point in the results, one for each of its settings.

    Attributes:
        values: the values of the point's fields; None if nobody has taken it.
        rows: the entries; those of an unfinished point are failed.
        tracking_error: why one was not logged to MLflow; None if all were.
        begun: whether a participant has taken the point.
    """

    values: Values | None
    rows: tuple[AnySetting, ...]
    tracking_error: str | None = None
    begun: bool = True


@dataclass
class _Running:
    """A point that this participant computes: by number, the assignments under way and the entries."""

    taken: Taken
    under_way: dict[int, int] = field(default_factory=dict)
    runs: dict[int, SettingRun] = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """How this process takes part in a study.

    Attributes:
        join: whether it joins what others began, in which what failed is not tried again.
        allow_other_code: whether the others may run other code.
        participants: the number of participants that are started with it.
        dask: the address of a Dask scheduler whose workers compute the settings; None for processes of this machine.
        resources: what each setting takes of a Dask worker, by name.
    """

    join: bool = False
    allow_other_code: bool = False
    participants: int = 1
    dask: str | None = None
    resources: Mapping[str, float] = field(default_factory=dict)

    def workers(self, asked: CheckedRequest, most: int) -> Workers:
        """The processes that compute settings, as many at a time as the request says, but at most ``most``."""
        request = asked.request
        if self.dask is not None:
            from dynconf_flows.workers.on_dask import DaskWorkers

            return DaskWorkers(self.dask, self.resources, request.workers or most)
        count = 0 if request.workers == 0 else min(request.jobs(), most)
        return LocalWorkers(asked.context.home, count, request.stage_seconds(), visible_gpus(request.device, count))


ALONE = Part()


class Participant:
    """This process's part in a study.

    Args:
        study: the study, entered.
        workers: the processes that compute settings.
        assignments: what a point consists of, by its values.
        end_dead: ends what a participant that has died left in MLflow.
        one_by_one: whether a point is taken only once the one before it is done.
    """

    def __init__(
        self,
        study: SharedStudy,
        workers: Workers,
        assignments: Callable[[Values], Sequence[Assignment]],
        end_dead: Callable[[Owner], None],
        one_by_one: bool = False,
    ) -> None:
        self.study, self.workers, self.assignments = study, workers, assignments
        self.end_dead, self.one_by_one = end_dead, one_by_one
        self._running: list[_Running] = []
        self._waiting: deque[tuple[_Running, int, Assignment]] = deque()
        self._mine: dict[int, list[SettingRun]] = {}
        """By point, the entries that this process computed, those of interrupted points too."""
        self._nothing_left, self._said = float("-inf"), ""
        self._looked = float("-inf")

    def run(self) -> BaseException | None:
        """Take and compute points until all are done or this run is interrupted.

        A command handles signals itself; where a Prefect worker runs the flow, Prefect raises them in the middle of it.

        Returns:
            the exception by which a signal ended the run, to be raised once the results are written; None if there was none.
        """
        self.study.shown_as(str(flow_run.get_id() or ""))
        try:
            self._run()
        except (KeyboardInterrupt, TerminationSignal) as signalled:
            interruption.interrupt(getattr(signalled, "signal", signal.SIGINT))
            self._run()
            return signalled
        return None

    def entries(self, points: Sequence[Point], plans: Callable[[Values], Sequence[Plan]], context: RunContext) -> list[Entries]:
        """The entries of all points, in their order: those computed here, and those that others computed, from the store."""
        return [self._entries(number, point, plans, context) for number, point in enumerate(points)]

    def _run(self) -> None:
        while True:
            while self.workers.free and self._start_next():
                pass
            if not self._running and (interruption.interrupted() or self._settled()):
                return
            for number, run in self.workers.ended():
                self._note(number, run)
            if interruption.interrupted() and not self.workers.busy:
                self._give_up()
            if time.monotonic() - self._looked >= LOOK_AT_WORK and not interruption.interrupted():
                self._points()
            self._bury()

    def _start_next(self) -> bool:
        """Start a setting of the point that was taken last, or of the next one; False if there is none to be had."""
        if not self._waiting and not self._take():
            return False
        running, place, assignment = self._waiting.popleft()
        running.under_way[self.workers.start(assignment)] = place
        return True

    def _take(self) -> bool:
        if time.monotonic() - self._nothing_left < LOOK or (self.one_by_one and self._running):
            return False
        taken = self.study.take()
        if taken is None:
            self._nothing_left = time.monotonic()
            return False
        running = _Running(taken)
        self._running.append(running)
        self._waiting += ((running, place, one) for place, one in enumerate(self.assignments(taken.values)))
        return True

    def _give_up(self) -> None:
        """Give back what was interrupted before all of its settings were started."""
        for running, place, assignment in self._waiting:
            running.runs[place] = SettingRun(failed(assignment.plan, {}, interruption.Interrupted()), interrupted=True)
        self._waiting.clear()
        for running in self._running:
            self._mine[running.taken.index] = [running.runs[place] for place in sorted(running.runs)]
            self.study.release(running.taken)
        self._running.clear()

    def _note(self, number: int, run: SettingRun) -> None:
        running = next((one for one in self._running if number in one.under_way), None)
        if running is None:  # a signal came between its start and this being noted
            return
        running.runs[running.under_way.pop(number)] = run
        if running.under_way or any(one is running for one, _, _ in self._waiting):
            return
        self._running.remove(running)
        runs = [running.runs[place] for place in sorted(running.runs)]
        self._mine[running.taken.index] = runs
        if any(one.interrupted for one in runs):
            self.study.release(running.taken)
        else:
            self._done(running.taken, runs)
            self._looked = min(self._looked, time.monotonic() - LOOK_AT_WORK + 1)  # one look for all that end in this second

    def _done(self, taken: Taken, runs: Sequence[SettingRun]) -> None:
        """Report a point as done, with its figures for Optuna unless a setting of it failed."""
        found, rows = figures(runs), [in_brief(one.row, one.tracking_error) for one in runs]
        if found is None:
            self.study.done(taken, rows, None)
            return
        values = [getattr(found, one.figure) for one in self.study.points.objectives]
        self.study.done(taken, rows, values, {ABOVE_PROMISE: found.above_promise})

    def _points(self) -> list[Point]:
        """The study's points, of which whoever watches is told how many are done."""
        points, self._looked = self.study.state(), time.monotonic()
        mine = {index for index, runs in self._mine.items() if not any(run.interrupted for run in runs)}
        here = {running.taken.index for running in self._running}
        listening.tell(
            listening.Counted(
                points=len(points),
                done=sum(point.settled for point in points),
                by_others=sum(point.settled for number, point in enumerate(points) if number not in mine),
                with_others=sum(point.condition == "running" for number, point in enumerate(points) if number not in here),
            )
        )
        return points

    def _settled(self) -> bool:
        """Whether all points are done; otherwise waits a while for those who compute the rest."""
        points = self._points()
        if all(point.settled for point in points):
            return True
        others = sorted({str(point.by) for point in points if point.condition == "running"})
        said = f"All points are taken: waiting for {', '.join(others)}."
        if others and said != self._said:
            self._said = said
            _log.warning("%s", said)
        if not any(point.condition == "free" for point in points):
            interruption.wait(LOOK)
        return False

    def _bury(self) -> None:
        """End the records of participants that have died."""
        while self.study.dead:
            by = self.study.dead.pop()
            _log.warning("%s has died; its points are taken again.", by)
            self.end_dead(by.owner)
            if by.flow_run:
                try:
                    crash_flow_run(by.flow_run, f"{by} ended without reporting that it finished.")
                except Exception as error:  # of whatever kind Prefect's client raises
                    _log.info("the flow run of %s could not be ended in Prefect: %s", by, error)

    def _entries(self, number: int, point: Point, plans: Callable[[Values], Sequence[Plan]], context: RunContext) -> Entries:
        mine = self._mine.get(number, [])
        if mine and (point.condition != "done" or not any(run.interrupted for run in mine)):
            error = next((run.tracking_error for run in mine if run.tracking_error), None)
            return Entries(point.values, tuple(run.row for run in mine), error)
        values = point.values or self.study.points.known(number)
        if values is None:
            return Entries(None, (), begun=False)
        found = plans(values)
        if point.condition == "done":
            rows = tuple(in_full(row, plan, context, str(point.by)) for plan, row in zip(found, point.rows, strict=True))
            return Entries(
                values, rows, next((str(row["tracking_error"]) for row in point.rows if row.get("tracking_error")), None)
            )
        reason: Exception = interruption.Interrupted()
        if point.condition == "running":
            reason = RuntimeError(f"not done when this process was interrupted: {point.by} is at it")
        if point.condition == "lost":
            reason = RuntimeError(f"its process died {RETRIES + 1} times, the last time {point.by}")
        return Entries(values, tuple(failed(plan, {}, reason) for plan in found), begun=point.values is not None)


@dataclass(frozen=True)
class Figures:
    """Figures of a point on the calibration split, means over its settings.

    Attributes:
        accuracy, mean_steps: with exit.
        above_promise: by how much the settings' rules lose more than was allowed, at most; below 0 where none does.
    """

    accuracy: float
    mean_steps: float
    above_promise: float


def figures(runs: Sequence[SettingRun]) -> Figures | None:
    """The figures of a point; None if one of its settings failed."""
    rules = [run.row.exit.rule for run in runs if isinstance(run.row, SettingResult)]
    if len(rules) < len(runs):
        return None
    exits = [rule.calibration for rule in rules]
    return Figures(
        sum(one.accuracy for one in exits) / len(exits),
        sum(one.mean_steps for one in exits) / len(exits),
        max(rule.calibration.loss - (rule.calibrated.expected_loss_at_most if rule.calibrated else 0.0) for rule in rules),
    )


def code_of(plans: Sequence[Plan]) -> Code:
    """The version of this package, and the fingerprint of all code that computes these plans."""
    found = sorted({code_fingerprint(stage.modules(plan)) for plan in plans for stage in stages_of(plan)})
    return Code(version("dynconf"), hashlib.sha256("".join(found).encode()).hexdigest())
