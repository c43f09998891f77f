"""Running settings in child processes, a few at a time, so that one that fails, hangs or is killed takes nothing else along.

A setting whose stages are all in the store runs in this process, as does one that uses what only this process knows. Once the
run is interrupted, the children stop at their next batch; what has not stopped after ``PATIENCE`` seconds is killed.
"""

import contextvars
import logging
import os
import selectors
import signal
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from prefect.exceptions import TerminationSignal

from dynconf_core.experiment.following import follow
from dynconf_core.experiment.job import Job
from dynconf_core.experiment.stages import job, known_everywhere
from dynconf_core.home import claims
from dynconf_core.home.running import ended
from dynconf_core.results.rows import failed
from dynconf_flows.child import Child, Work
from dynconf_flows.messages import Assignment, Order
from dynconf_flows.prefect_runs import context_for_child, end_runs
from dynconf_flows.setting import SettingRun, planned_setting, run_of
from dynconf_tasks import interruption
from dynconf_tasks.track import TrackingUnavailable, track

PATIENCE = 2.0
"""Seconds that an interrupted child has to stop."""
POLL = 0.1
WATCH = 0.5
"""Seconds between two looks at the memory and the time of the children."""
DEBUG = "DYNCONF_DEBUG"
"""If set in the environment, children print to standard error."""
_log = logging.getLogger(__name__)


class Participants:
    """Up to ``count`` child processes for the settings of one flow run; to be used in a ``with`` block.

    Args:
        home: their output goes to ``logs`` in it, and is removed with those that end in order.
        count: the number of settings that run at the same time.
        stage_timeout: seconds that a stage may run, waiting for other processes not included; None sets no limit.
    """

    def __init__(self, home: Path, count: int, stage_timeout: float | None = None) -> None:
        self.home, self.count, self.stage_timeout = home, count, stage_timeout
        self._children: list[Child] = []
        self._started, self._killed = 0, False
        self._todo: deque[Work] = deque()
        self._runs: dict[int, SettingRun] = {}
        self._here: dict[int, Future[SettingRun]] = {}
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="settings")
        self._assignments: Sequence[Assignment] = ()
        self._context: Mapping[str, Any] = {}
        self._watched = 0.0

    def run(self, assignments: Sequence[Assignment]) -> list[SettingRun]:
        """Run settings as subflows of the current flow run; every one has an entry, whatever happened to it.

        An exception that a signal raises in here leaves everything to ``rest``.
        """
        self._assignments, self._context = assignments, context_for_child()
        self._runs, self._here = {}, {}
        self._todo = deque()
        digests: dict[str, str] = {}
        for number, assignment in enumerate(assignments):
            if _belongs_here(assignment, digests):
                call = contextvars.copy_context().run
                self._here[number] = self._pool.submit(call, _run_here, assignment)
            else:
                self._todo.append(Work(number, assignment))
        return self.rest()

    def rest(self) -> list[SettingRun]:
        """Go on with what ``run`` was interrupted in, and return its result."""
        while self._todo or any(child.work is not None for child in self._children):
            if interruption.interrupted():
                self._stop()
            else:
                self._assign()
            self._listen()
        here = {number: future.result() for number, future in self._here.items()}
        return [({**self._runs, **here})[number] for number in range(len(self._assignments))]

    def __enter__(self) -> "Participants":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        for child in self._children:
            child.stop() if interruption.interrupted() or error is not None else child.dismiss()
        end = time.monotonic() + PATIENCE * (1 if interruption.interrupted() else 3)
        for child in self._children:
            if not child.ended(max(0.0, end - time.monotonic())):
                child.kill()
                child.ended(PATIENCE)
                self._killed = True
        self._children.clear()
        if self._killed:
            for path in claims.abandoned(self.home, ended):
                claims.remove(path)

    def _assign(self) -> None:
        for child in self._children:
            if child.work is None and child.stopped_at is None and self._todo:
                self._give(child)
        while self._todo and len(self._children) < self.count:
            self._started += 1
            log = self.home / "logs" / f"participant-{os.getpid()}-{id(self):x}-{self._started}.log"
            self._children.append(Child(log, DEBUG in os.environ))
            self._give(self._children[-1])

    def _give(self, child: Child) -> None:
        work = self._todo.popleft()
        work.begun = time.monotonic()
        child.give(work, Order(work.assignment, self._context))

    def _stop(self) -> None:
        while self._todo:
            work = self._todo.popleft()
            self._runs[work.number] = _interrupted(work)
        for child in self._children:
            child.stop()
            if child.stopped_at is not None and time.monotonic() - child.stopped_at > PATIENCE:
                child.kill()

    def _listen(self) -> None:
        """Take in what the children have sent, for a fraction of a second, and see how they are."""
        with selectors.DefaultSelector() as selector:
            for child in self._children:
                selector.register(child.channel.incoming, selectors.EVENT_READ, child)
            ready = [key.data for key, _ in selector.select(POLL)]
        for child in ready:
            alive = child.take()
            if child.work is not None and child.work.run is not None:
                self._runs[child.work.number] = child.work.run
                child.work = None
            if not alive:
                self._bury(child)
        if time.monotonic() - self._watched >= WATCH:
            self._watched = time.monotonic()
            for child in self._children:
                child.watch(self.stage_timeout)

    def _bury(self, child: Child) -> None:
        self._children.remove(child)
        if not child.ended(PATIENCE):
            child.kill()
            child.ended(PATIENCE)
        self._killed = True
        if child.work is not None:
            self._runs[child.work.number] = _died(child, child.work)


def finished_or_interrupted(
    participants: Participants, assignments: Sequence[Assignment]
) -> tuple[list[SettingRun], BaseException | None]:
    """The entries of settings, and the exception by which a signal ended the run, to be raised once it is recorded.

    A command handles signals itself; where a Prefect worker runs the flow, Prefect raises them in the middle of it.
    """
    try:
        return participants.run(assignments), None
    except (KeyboardInterrupt, TerminationSignal) as signalled:
        interruption.interrupt(getattr(signalled, "signal", signal.SIGINT))
        return participants.rest(), signalled


def _belongs_here(assignment: Assignment, digests: dict[str, str]) -> bool:
    """Whether nothing is left to do for a setting, or no other process could run it.

    What goes wrong in finding out goes wrong again, and is reported, where it runs. ``digests`` collects those of data sets.
    """
    plan, context, checkpoint = assignment.plan, assignment.context, assignment.checkpoint
    try:
        if not known_everywhere(plan):
            return True
        if plan.data.name not in digests:
            digests[plan.data.name] = job(plan, context, checkpoint).data_digest
        return follow(Job(plan, context, digests[plan.data.name], checkpoint), verified=False).complete
    except Exception:
        return False


def _run_here(assignment: Assignment) -> SettingRun:
    asked = assignment
    try:
        state = planned_setting(
            asked.plan, asked.context, asked.checkpoint, asked.identity, asked.parent, asked.point, return_state=True
        )
        return run_of(state, asked.plan)
    except Exception as error:
        return SettingRun(failed(asked.plan, {}, error))


def _interrupted(work: Work) -> SettingRun:
    return SettingRun(failed(work.assignment.plan, work.done, interruption.Interrupted()), interrupted=True)


def _died(child: Child, work: Work) -> SettingRun:
    """The entry of a setting whose process has died; its records in Prefect and MLflow are ended."""
    asked, stopped = work.assignment, interruption.interrupted()
    if stopped:
        run = _interrupted(work)
    else:
        run = SettingRun(failed(asked.plan, work.done, RuntimeError(child.fault())))
        if work.stage is not None:
            work.listeners[work.stage].finished("failed", time.monotonic() - work.since)
    if work.flow_run is not None:
        try:
            names = {stage: f"{asked.plan.setting} · {stage.replace('_', ' ')}" for stage in (*work.done, work.stage) if stage}
            finished = {names[stage] for stage in work.done}
            end_runs(work.flow_run, run.row.error or "", stopped, finished, names.get(work.stage or ""))
        except Exception as error:  # of whatever kind Prefect's client raises
            _log.warning("The flow run of %s could not be ended in Prefect: %s", asked.plan.setting, error)
    if asked.parent is not None and not stopped:
        try:
            track(asked.plan, run.row, None, asked.context.home, asked.identity, asked.parent, asked.point)
        except TrackingUnavailable as error:
            run = replace(run, tracking_error=str(error))
    return replace(run, row=replace(run.row, resources=work.resources()))
