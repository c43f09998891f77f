"""A worker (see ``dynconf_flows.workers.worker``) as seen from the run that started it."""

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from dynconf_core.experiment.job import Handle
from dynconf_core.results.types import Resources
from dynconf_flows.setting import SettingRun
from dynconf_flows.workers.messages import (
    Assignment,
    Began,
    Channel,
    Ended,
    Finished,
    Logged,
    Made,
    Order,
    Progressed,
    Started,
    Waiting,
    Welcome,
    loads,
)
from dynconf_flows.workers.worker import peak_of
from dynconf_tasks.listening import Listener, observer

TAIL = 400
"""Characters of a dead process's output in its error."""


@dataclass
class Work:
    """A setting that a child runs, and what is known of it if the child dies.

    Attributes:
        flow_run: its flow run in Prefect, once that has started.
        done: the finished stages.
        stage, since: the running stage and when it started; None between stages.
        peak: the most memory of the process so far, in bytes.
        run: the setting's entry, once it has ended.
    """

    number: int
    assignment: Assignment
    begun: float = field(default_factory=time.monotonic)
    flow_run: UUID | None = None
    done: dict[str, Handle] = field(default_factory=dict)
    stage: str | None = None
    since: float = 0.0
    peak: int | None = None
    run: SettingRun | None = None
    listeners: dict[str, Listener] = field(default_factory=dict)

    def resources(self) -> Resources:
        """The time and memory so far."""
        return Resources(round(time.monotonic() - self.begun, 3), self.peak)


class Child:
    """A process that runs one setting after the other.

    Args:
        log: the file for what it prints, removed if it ends in order.
        debug: whether it prints to standard error instead.
        environment: variables of its environment that differ from this process's.
    """

    def __init__(self, log: Path, debug: bool, environment: Mapping[str, str]) -> None:
        self.log, self.debug = log, debug
        self.work: Work | None = None
        self.reason: str | None = None
        """Why it was killed by the run."""
        self.stopped_at: float | None = None
        theirs, orders = os.pipe()
        messages, answers = os.pipe()
        log.parent.mkdir(parents=True, exist_ok=True)
        try:
            with log.open("wb") as printed:
                self.process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "dynconf_flows.workers.worker", str(answers)],
                    stdin=theirs,
                    stdout=sys.stderr.fileno() if debug else printed,
                    stderr=sys.stderr.fileno() if debug else printed,
                    pass_fds=(answers,),
                    env={**os.environ, "PYTHONSAFEPATH": "1", **environment},
                    start_new_session=True,
                )
        finally:
            os.close(theirs)
            os.close(answers)
        self.channel = Channel(messages, orders)
        self._send(Welcome(_path(), debug))

    def give(self, work: Work, order: Order) -> None:
        """Let it run a setting."""
        self.work = work
        self._send(order)

    def take(self) -> bool:
        """Take in what it has sent; False if it is gone."""
        try:
            messages = self.channel.receive()
        except (EOFError, OSError):
            return False
        for content in messages:
            self._heed(loads(content))
        return True

    def watch(self, stage_timeout: float | None) -> None:
        """Note its memory; kill it if a stage runs for too long."""
        work = self.work
        if work is None:
            return
        work.peak = peak_of(self.process.pid) or work.peak
        if stage_timeout is not None and work.stage is not None and time.monotonic() - work.since > stage_timeout:
            self.reason = f"took longer than --stage-timeout {stage_timeout:g} s; run again with more time"
            self.kill()

    def stop(self) -> None:
        """Ask it to stop at the next batch."""
        if self.stopped_at is None:
            self.stopped_at = time.monotonic()
            with suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGTERM)

    def kill(self) -> None:
        """End it, and everything that it has started, at once."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def dismiss(self) -> None:
        """Tell it to end once it is idle."""
        self._send(None)

    def ended(self, within: float) -> bool:
        """Whether it ends within so many seconds; closes what it leaves behind if so."""
        end = time.monotonic() + within
        while (code := self._ended()) is None:
            if time.monotonic() >= end:
                return False
            time.sleep(0.01)
        with suppress(OSError):
            self.channel.close()
        if code == 0 or self.reason is not None or self.stopped_at is not None or not self.log.stat().st_size:
            self.log.unlink(missing_ok=True)
        return True

    def fault(self) -> str:
        """Why it is gone, for people."""
        code = self.process.returncode
        if self.reason is not None:
            return self.reason
        if code < 0:
            memory = f"; it used up to {self.work.peak / 2**30:.1f} GiB" if self.work and self.work.peak else ""
            perhaps = ", perhaps for lack of memory" if -code == signal.SIGKILL else ""
            return f"killed by signal {-code} ({signal.Signals(-code).name}){perhaps}{memory}"
        printed = "" if self.debug else " ".join(self.log.read_text(errors="replace").split())[-TAIL:]
        return f"its process ended with exit code {code}" + (f": {printed}" if printed else "")

    def _ended(self) -> int | None:
        """The exit code if it has ended; its work then knows the peak of the memory, however short it was."""
        if self.process.returncode is None:
            pid, status, used = os.wait4(self.process.pid, os.WNOHANG)
            if pid:
                self.process.returncode = os.waitstatus_to_exitcode(status)
                if self.work is not None:
                    self.work.peak = max(self.work.peak or 0, used.ru_maxrss * (1 if sys.platform == "darwin" else 1024))
        return self.process.returncode

    def _send(self, message: object) -> None:
        with suppress(OSError):  # it is gone, which is noticed when its messages are read
            self.channel.send(message)

    def _heed(self, message: object) -> None:
        work = self.work
        if isinstance(message, Logged):
            logging.getLogger(message.name).log(message.level, "%s", message.text)
        if work is None:
            return
        match message:
            case Began(flow_run):
                work.flow_run = flow_run
            case Made(handle):
                work.done[handle.stage] = handle
            case Ended(run):
                work.run = run
            case Started(stage):
                work.stage, work.since = stage, time.monotonic()
                self._shown(work, stage).started()
            case Progressed(stage, done, total, text):
                self._shown(work, stage)(done, total, text)
            case Waiting(stage, text):
                work.since = time.monotonic()  # waiting for another process is no running
                self._shown(work, stage).waiting(text)
            case Finished(stage, outcome, seconds):
                work.stage = None
                self._shown(work, stage).finished(outcome, seconds)

    def _shown(self, work: Work, stage: str) -> Listener:
        if stage not in work.listeners:
            work.listeners[stage] = observer(work.assignment.name, stage)
        return work.listeners[stage]


def _path() -> list[str]:
    """Where modules lie for this process, the current folder last, so that it shadows nothing."""
    here = str(Path.cwd())
    found = [entry for entry in sys.path if entry not in ("", here)]
    return [*found, here] if len(found) < len(sys.path) else found
