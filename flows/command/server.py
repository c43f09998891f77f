"""A temporary Prefect server for a run on the local machine, used unless ``PREFECT_API_URL`` names a server.

Prefect itself would start a server only with the first flow, which then has to wait for it. This one starts earlier and comes
up while torch is imported and the data are checked.
"""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from dynconf_flows.prefect_runs import deliver_logs_and_events

_PATIENCE = 90.0
# The server ends when its standard input closes, even if this process is killed. SQLite allows a single writer: if two collide,
# the server answers 503, and the header makes the client retry at once instead of after seconds.
_LAUNCH = """
import os, signal, sys, threading
def watch():
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)
threading.Thread(target=watch, daemon=True).start()
import uvicorn
from prefect.server.api.server import create_app
app = create_app()
async def soon_again(scope, receive, send):
    async def answer(message):
        if message["type"] == "http.response.start" and message["status"] == 503:
            message = {**message, "headers": [*message["headers"], (b"retry-after", b"0.05")]}
        await send(message)
    await app(scope, receive, answer if scope["type"] == "http" else send)
uvicorn.run(soon_again, host="127.0.0.1", port=int(sys.argv[1]), log_level="error", lifespan="on")
"""
_SERVICES = "PREFECT_SERVER_SERVICES_"
# On one machine nothing is scheduled, late or triggered; task runs are recorded in batches.
_SERVER_SETTINGS = {
    "PREFECT_SERVER_UI_ENABLED": "false",
    "PREFECT__SERVER_EPHEMERAL": "1",
    "PREFECT__SERVER_FINAL": "1",
    f"{_SERVICES}TASK_RUN_RECORDER_BATCH_SIZE": "200",
    f"{_SERVICES}TASK_RUN_RECORDER_READ_BATCH_SIZE": "200",
    f"{_SERVICES}TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    f"{_SERVICES}EVENT_PERSISTER_ENABLED": "false",
    **{
        f"{_SERVICES}{name}_ENABLED": "false"
        for name in (
            "TRIGGERS",
            "SCHEDULER",
            "LATE_RUNS",
            "FOREMAN",
            "REPOSSESSOR",
            "CANCELLATION_CLEANUP",
            "PAUSE_EXPIRATIONS",
        )
    },
}


def configure(home: Path) -> None:
    """Configure Prefect for this process and its server, keeping what the user has set; call before importing prefect."""
    for name, value in {
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",  # the only setting that Prefect's client checks before it sends telemetry
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
        "PREFECT_CLIENT_MAX_RETRIES": "20",
    }.items():
        os.environ.setdefault(name, value)


class TemporaryServer:
    """A Prefect server on a free loopback port until ``stop``; not started if ``PREFECT_API_URL`` is set."""

    def __init__(self, home: Path) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        configure(home)
        if os.environ.get("PREFECT_API_URL"):
            return
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        (home / "prefect").mkdir(parents=True, exist_ok=True)
        self._log = home / "prefect" / "server.log"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _LAUNCH, str(self._port)],
                env={**os.environ, **_SERVER_SETTINGS},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{self._port}/api"

    def wait(self) -> None:
        """Wait until the server answers.

        Raises:
            RuntimeError: if it ends or does not answer; its log says why.
        """
        if self._process is None:
            return
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy does not know this machine's loopback
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end and self._process.poll() is None:
            try:
                with direct.open(f"http://127.0.0.1:{self._port}/api/health", timeout=1):
                    return
            except OSError:
                time.sleep(0.05)
        raise RuntimeError(f"Prefect's temporary server did not start; {self._log} says why.")

    def stop(self) -> None:
        """Stop the server."""
        if self._process is None:
            return
        deliver_logs_and_events()
        os.environ.pop("PREFECT_API_URL", None)
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._process = None
