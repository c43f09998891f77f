"""Prefect for the length of a command, and the orderly end of both on Ctrl-C."""

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from rich.console import Console

from dynconf_flows.command.server import TemporaryServer
from dynconf_tasks import interruption

T = TypeVar("T")
FAILED = 1
"""The exit code where something failed on the way; partial results are kept."""
INTERRUPTED = 130
"""The exit code of an interrupted command."""
GRACE = 4.5
"""Seconds after Ctrl-C in which stages may end by themselves; the process is gone after five."""


class Session:
    """Prefect for the length of a command: its temporary server, and an orderly end on Ctrl-C."""

    def __init__(self, home: Path, debug: bool) -> None:
        self.debug = debug
        handler = logging.StreamHandler(sys.stderr)
        handler.setLevel(logging.INFO if debug else logging.WARNING)
        handler.addFilter(lambda record: record.name.split(".")[0] != "prefect")  # it has handlers of its own
        logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[handler])
        if debug:
            os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "INFO")
        self.server = TemporaryServer(home)

    def __enter__(self) -> "Session":
        signal.signal(signal.SIGINT, self._interrupted)
        signal.signal(signal.SIGTERM, self._interrupted)
        return self

    def __exit__(self, *ignored: object) -> None:
        self.server.stop()

    def _interrupted(self, number: int, frame: object) -> None:
        """First the threads are asked to end; if they have not after a while, the process ends as it is."""
        if not interruption.interrupted():
            interruption.interrupt()
            print("\nInterrupted: ending what runs; what is finished is kept.", file=sys.stderr, flush=True)
            last = threading.Timer(GRACE, lambda: os._exit(INTERRUPTED))
            last.daemon = True
            last.start()
            raise KeyboardInterrupt

    def ready(self) -> None:
        """Return once flows can be run."""
        self.server.wait()

    def run(self, flow: Callable[[], T], quiet: bool) -> T | None:
        """What the flow returns, its progress shown; None where it was interrupted before it had a result."""
        from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

        from dynconf_flows.command.display import Display

        # A heartbeat tells a distant server that a flow lives; here it would only delay the end of each by a second.
        with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}), Display(Console(stderr=True, quiet=quiet)):
            try:
                return flow()
            except KeyboardInterrupt:
                return None
