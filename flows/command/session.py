"""A Prefect session for the duration of a command."""

import contextvars
import logging
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

from dynconf_flows.command.server import TemporaryServer
from dynconf_flows.command.signals import waiting
from dynconf_flows.command.terminal import Terminal
from dynconf_flows.prefect_runs import is_prefects
from dynconf_tasks.answering import without_password

T = TypeVar("T")
FAILED = 1
"""Exit code if something failed while running; partial results are kept."""


class Session:
    """A temporary Prefect server for the duration of a command, in which flows run in a thread.

    The main thread only waits for them: there, Prefect would replace the handlers of signals by its own.
    """

    def __init__(self, home: Path, debug: bool) -> None:
        self.debug = debug
        handler = logging.StreamHandler(sys.stderr)
        handler.setLevel(logging.INFO if debug else logging.WARNING)
        handler.addFilter(lambda record: not is_prefects(record))  # Prefect has its own handlers
        logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[handler])
        if debug:
            os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "INFO")
            os.environ["DYNCONF_DEBUG"] = "1"
        self.server = TemporaryServer(home)

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *ignored: object) -> None:
        self.server.stop()

    def ready(self) -> None:
        """Wait until flows can run."""
        self.server.wait()

    def run(self, flow: Callable[[], T], quiet: bool, noun: str = "setting") -> T:
        """Run a flow and show its progress; returns its result once it has finished or, after a signal, stopped."""
        from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

        from dynconf_flows.command.display import Display
        from dynconf_flows.prefect_runs import owned

        ended: Future[T] = Future()

        def call() -> None:
            try:
                ended.set_result(flow())
            except BaseException as error:
                ended.set_exception(error)

        # A heartbeat tells a remote server that a flow is alive; here it would only delay the end of each flow by a second.
        heartless = temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None})
        with waiting(), heartless, Display(Terminal(stderr=True, quiet=quiet), noun), owned():
            threading.Thread(target=contextvars.copy_context().run, args=(call,), name="flow", daemon=True).start()
            return ended.result()


def started(say: Callable[[str], None], home: Path, debug: bool) -> Session:
    """A session in which flows can run; ``say`` is told what is starting."""
    given = os.environ.get("PREFECT_API_URL")
    say("starting a local Prefect server" if not given else f"looking for the Prefect server at {without_password(given)}")
    session = Session(home, debug)
    try:
        say("importing PyTorch and Prefect")
        import dynconf_flows.reproduce  # noqa: F401  # while the server starts

        say("waiting for the Prefect server")
        session.ready()
    except BaseException:
        session.server.stop()
        raise
    return session
