"""A process that runs settings for a run in another one: ``python -m dynconf_flows.workers.worker OUT``.

It reads orders from its standard input and writes messages to the file descriptor ``OUT``. SIGINT, SIGTERM and SIGHUP make it
stop its setting at the next batch, report it, and end. If its standard input closes, the run is gone, however it ended: the
process then ends at once, with everything that it has started.
"""

from __future__ import annotations

import logging
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dynconf_flows.prefect_runs import is_prefects
from dynconf_flows.workers.messages import (
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
from dynconf_tasks import interruption
from dynconf_tasks.listening import listen

if TYPE_CHECKING:
    from uuid import UUID

    from dynconf_core.experiment.job import Handle

PROGRESS, WAITING = 0.25, 1.0
"""Least seconds between two messages on the progress of a stage, and on its waiting."""
LAST = 0.5
"""Seconds to deliver logs and events to Prefect after an interruption."""
Send = Callable[[object], None]


def main() -> None:
    """Run settings until told to end."""
    signals = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # in every thread, whatever handlers Prefect installs
    threading.Thread(target=lambda: interruption.interrupt(signal.sigwait(signals)), daemon=True).start()
    channel = Channel(os.dup(0), int(sys.argv[1]))
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    orders: queue.Queue[bytes] = queue.Queue()
    threading.Thread(target=_receive, args=(channel, orders), daemon=True).start()
    welcome: Welcome = loads(orders.get())
    sys.path[:] = welcome.path
    _log_to(channel.send, welcome.debug)
    listen(lambda setting, stage: _Reporting(channel.send, stage))
    import dynconf_flows.setting  # noqa: F401  # takes seconds: while the run prepares the first order
    import dynconf_tasks.track  # noqa: F401
    from dynconf_flows.prefect_runs import deliver_logs_and_events

    while not interruption.interrupted() and (order := loads(orders.get())) is not None:
        channel.send(_run(order, channel.send))
    deliver_logs_and_events(LAST if interruption.interrupted() else 3)
    sys.stderr.flush()
    os._exit(0)  # at once: what remains are threads of libraries that wait for more


def _receive(channel: Channel, orders: queue.Queue[bytes]) -> None:
    while True:
        try:
            for message in channel.receive():
                orders.put(message)
        except (EOFError, OSError):
            os.killpg(os.getpgrp(), signal.SIGKILL)


def _run(order: Order, send: Send) -> Ended:
    """Run a setting as a subflow of the flow run that the order names."""
    from prefect.context import hydrated_context

    from dynconf_core.results.rows import failed
    from dynconf_core.results.types import Resources
    from dynconf_flows.prefect_runs import owned
    from dynconf_flows.setting import SettingRun, planned_setting, run_of

    asked = order.assignment
    memory = PeakMemory()
    start = time.perf_counter()
    try:
        with hydrated_context(dict(order.prefect)), owned():
            state = planned_setting(
                asked.plan,
                asked.context,
                asked.checkpoint,
                asked.identity,
                asked.parent,
                asked.point,
                _Observing(send),
                return_state=True,
            )
        run = run_of(state, asked.plan)
    except Exception as error:  # of Prefect, around the flow
        logging.getLogger(__name__).debug("the flow failed", exc_info=True)
        run = SettingRun(failed(asked.plan, {}, error))
    used = Resources(round(time.perf_counter() - start, 3), memory.bytes())
    return Ended(replace(run, row=replace(run.row, resources=used)))


class PeakMemory:
    """The most memory (resident set) of a process since this object was made; Linux forgets earlier peaks on request."""

    def __init__(self) -> None:
        with suppress(OSError):  # the peak is then that of the whole life of the process
            Path("/proc/self/clear_refs").write_text("5")

    def bytes(self) -> int | None:
        """The peak so far; None if the system does not tell."""
        found = peak_of(os.getpid())
        if found is not None:
            return found
        import resource

        scale = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def peak_of(pid: int) -> int | None:
    """The peak of a process's memory in bytes, as Linux counts it; None if it does not, or the process is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)


@dataclass
class _Observing:
    """Sends what a setting has begun and made."""

    send: Send

    def began(self, flow_run: UUID) -> None:
        self.send(Began(flow_run))

    def made(self, handle: Handle) -> None:
        self.send(Made(handle))


@dataclass
class _Reporting:
    """Sends the progress of a stage."""

    send: Send
    stage: str
    last: float = field(default=float("-inf"))

    def started(self) -> None:
        self.send(Started(self.stage))

    def __call__(self, done: int, total: int, text: str) -> None:
        if self._due(PROGRESS) or done == total:
            self.send(Progressed(self.stage, done, total, text))

    def waiting(self, text: str) -> None:
        if self._due(WAITING):
            self.send(Waiting(self.stage, text))

    def finished(self, outcome: str, seconds: float) -> None:
        self.send(Finished(self.stage, outcome, seconds))

    def _due(self, every: float) -> bool:
        now = time.monotonic()
        if now - self.last < every:
            return False
        self.last = now
        return True


class _Sending(logging.Handler):
    """Sends warnings, which users should see, to the run."""

    def __init__(self, send: Send) -> None:
        super().__init__(logging.WARNING)
        self.send = send
        self.addFilter(lambda record: not is_prefects(record))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.send(Logged(record.name, record.levelno, record.getMessage()))
        except OSError:
            self.handleError(record)


def _log_to(send: Send, debug: bool) -> None:
    handlers: list[logging.Handler] = [_Sending(send)]
    if debug:
        shown = logging.StreamHandler(sys.stderr)
        shown.addFilter(lambda record: record.levelno < logging.WARNING and not is_prefects(record))
        handlers.append(shown)
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=handlers)


if __name__ == "__main__":
    main()
