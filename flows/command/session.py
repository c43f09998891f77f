"""A Prefect session for the duration of a command, with an orderly end on Ctrl-C."""

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
"""Exit code if something failed while running; partial results are kept."""
INTERRUPTED = 130
"""Exit code of an interrupted command."""
GRACE = 4.5
"""Seconds that stages have to stop after Ctrl-C, so that the process ends within five."""


class Session:
    """A temporary Prefect server for the duration of a command, and an orderly end on Ctrl-C."""

    def __init__(self, home: Path, debug: bool) -> None:
        self.debug = debug
        handler = logging.StreamHandler(sys.stderr)
        handler.setLevel(logging.INFO if debug else logging.WARNING)
        handler.addFilter(lambda record: record.name.split(".")[0] != "prefect")  # prefect has its own handlers
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
        """Ask all threads to stop; end the process if they have not stopped after ``GRACE`` seconds."""
        if not interruption.interrupted():
            interruption.interrupt()
            print("\nInterrupted: stopping; finished stages are kept.", file=sys.stderr, flush=True)
            last = threading.Timer(GRACE, lambda: os._exit(INTERRUPTED))
            last.daemon = True
            last.start()
            raise KeyboardInterrupt

    def ready(self) -> None:
        """Wait until flows can run."""
        self.server.wait()

    def run(self, flow: Callable[[], T], quiet: bool) -> T | None:
        """Run a flow and show its progress; returns its result, or None if it was interrupted before it had one."""
        from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

        from dynconf_flows.command.display import Display

        # A heartbeat tells a remote server that a flow is alive; here it would only delay the end of each flow by a second.
        with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}), Display(Console(stderr=True, quiet=quiet)):
            try:
                return flow()
            except KeyboardInterrupt:
                return None
