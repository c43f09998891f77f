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
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from prefect.exceptions import TerminationSignal

from dynconf_core.experiment.following import follow
from dynconf_core.experiment.job import Job
from dynconf_core.experiment.stages import job, known_everywhere
from dynconf_core.files import host
from dynconf_core.home import claims
from dynconf_core.home.running import ended
from dynconf_core.results.rows import failed
from dynconf_flows.prefect_runs import context_for_child, end_runs
from dynconf_flows.setting import SettingRun, planned_setting, run_of
from dynconf_flows.workers.child import Child, Work
from dynconf_flows.workers.messages import Assignment, Order
from dynconf_tasks import interruption
from dynconf_tasks.track import track
from dynconf_tasks.tracking.tracker import TrackingUnavailable

PATIENCE = 2.0
"""Seconds that an interrupted child has to stop."""
POLL = 0.1
WATCH = 0.5
"""Seconds between two looks at the memory and the time of the children."""
DEBUG = "DYNCONF_DEBUG"
"""If set in the environment, children print to standard error."""
_log = logging.getLogger(__name__)


class Workers(Protocol):
    """Runs settings, several at a time; to be used in a ``with`` block."""

    @property
    def free(self) -> int:
        """How many more settings can be started now."""

    @property
    def busy(self) -> bool:
        """Whether settings are running."""

    def start(self, assignment: Assignment) -> int:
        """Start a setting as a subflow of the current flow run; returns its number."""

    def ended(self) -> list[tuple[int, SettingRun]]:
        """Wait a fraction of a second; returns the settings that have ended since the last call, by their numbers.

        Every setting that was started ends here, whatever happened to it; once the run is interrupted, within seconds.
        """

    def __enter__(self) -> "Workers": ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...


class LocalWorkers:
    """Up to ``count`` child processes on this machine.

    Args:
        home: their output goes to ``logs`` in it, and is removed with those that end in order.
        count: the number of settings that run at the same time; 0 runs all in this process, one after the other.
        stage_timeout: seconds that a stage may run, waiting for other processes not included; None sets no limit.
        gpus: what CUDA_VISIBLE_DEVICES says in each of them, in turn; empty leaves it as it is.
    """

    def __init__(self, home: Path, count: int, stage_timeout: float | None = None, gpus: Sequence[str] = ()) -> None:
        self.home, self.count, self.stage_timeout, self.gpus = home, max(1, count), stage_timeout, gpus
        self._in_processes = count > 0
        self._children: list[Child] = []
        self._started, self._numbers, self._killed = 0, 0, False
        self._runs: dict[int, SettingRun] = {}
        self._here: dict[int, Future[SettingRun]] = {}
        self._pool = ThreadPoolExecutor(self.count, thread_name_prefix="settings")
        self._digests: dict[str, str] = {}
        self._watched = 0.0

    @property
    def free(self) -> int:
        """How many more settings can be started now; none once the run is interrupted."""
        return 0 if interruption.interrupted() else self.count - self._running()

    @property
    def busy(self) -> bool:
        """Whether settings are running."""
        return self._running() > 0 or bool(self._runs)

    def start(self, assignment: Assignment) -> int:
        """Start a setting as a subflow of the current flow run; returns its number."""
        self._numbers += 1
        if not self._in_processes or _belongs_here(assignment, self._digests):
            self._here[self._numbers] = self._pool.submit(contextvars.copy_context().run, _run_here, assignment)
        else:
            work = Work(self._numbers, assignment)
            self._idle().give(work, Order(assignment, self._context))
        return self._numbers

    def ended(self) -> list[tuple[int, SettingRun]]:
        """See ``Workers.ended``."""
        if interruption.interrupted():
            self._stop()
        self._listen()
        for number in [number for number, future in self._here.items() if future.done()]:
            self._runs[number] = self._here.pop(number).result()
        found = list(self._runs.items())
        self._runs.clear()
        return found

    def __enter__(self) -> "LocalWorkers":
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

    @cached_property
    def _context(self) -> Mapping[str, Any]:
        return context_for_child()

    def _running(self) -> int:
        return sum(child.work is not None for child in self._children) + len(self._here)

    def _idle(self) -> Child:
        """A child without work; a new one if there is none."""
        for child in self._children:
            if child.work is None and child.stopped_at is None:
                return child
        number = self._started
        self._started += 1
        log = self.home / "logs" / f"worker-{host()}-{os.getpid()}-{id(self):x}-{number}.log"
        chosen = {"CUDA_VISIBLE_DEVICES": self.gpus[number % len(self.gpus)]} if self.gpus else {}
        self._children.append(Child(log, DEBUG in os.environ, chosen))
        return self._children[-1]

    def _stop(self) -> None:
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


def run_one(workers: Workers, assignment: Assignment) -> tuple[SettingRun, BaseException | None]:
    """Run a single setting; returns its entry, and the exception by which a signal ended the run, to be raised later."""
    signalled: BaseException | None = None
    number: int | None = None
    found: list[tuple[int, SettingRun]] = []
    while not found:
        try:
            number = workers.start(assignment) if number is None else number
            found = workers.ended()
        except (KeyboardInterrupt, TerminationSignal) as caught:
            signalled = caught
            interruption.interrupt(getattr(caught, "signal", signal.SIGINT))
    return found[0][1], signalled


def visible_gpus(device: str, count: int) -> list[str]:
    """What CUDA_VISIBLE_DEVICES is to say in each of ``count`` processes, so that they share the GPUs; empty to leave it."""
    if count < 2 or device not in ("auto", "cuda"):
        return []
    import torch

    found = torch.cuda.device_count()
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    names = named[:found] if len(named) >= found else [str(number) for number in range(found)]
    return names if len(names) > 1 else []


def _belongs_here(assignment: Assignment, digests: dict[str, str]) -> bool:
    """Whether nothing is left to do for a setting, or no other process could run it.

    What goes wrong in finding out goes wrong again, and is reported, where it runs. ``digests`` collects those of data sets.
    """
    plan, context, checkpoint = assignment.plan, assignment.context, assignment.checkpoint
    try:
        if not known_everywhere(plan):
            return True
        if plan.data.source not in digests:
            digests[plan.data.source] = job(plan, context, checkpoint).data_digest
        return follow(Job(plan, context, digests[plan.data.source], checkpoint), verified=False).complete
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


def _died(child: Child, work: Work) -> SettingRun:
    """The entry of a setting whose process has died; its records in Prefect and MLflow are ended."""
    asked, stopped = work.assignment, interruption.interrupted()
    if stopped:
        run = SettingRun(failed(asked.plan, work.done, interruption.Interrupted()), interrupted=True)
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
