"""A Prefect server for one run on one's own machine, where the user named none.

Prefect would start such a server itself, but only when the first flow begins, which then waits for it. Started first, it
comes up while torch is imported and the data are checked.
"""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

_PATIENCE = 90.0
# The server ends when its standard input does: also when this process is killed.
_LAUNCH = """
import os, signal, sys, threading
def watch():
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)
threading.Thread(target=watch, daemon=True).start()
import uvicorn
uvicorn.run("prefect.server.api.server:create_app", factory=True, host="127.0.0.1", port=int(sys.argv[1]), log_level="error")
"""


def configure(home: Path) -> None:
    """Settings of Prefect for this process and its server; what the user has set stays. Call before prefect is imported."""
    for name, value in {
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_LEVEL": "CRITICAL",
    }.items():
        os.environ.setdefault(name, value)


class TemporaryServer:
    """A Prefect server on a free port of the loopback interface, until ``stop``; none where ``PREFECT_API_URL`` is set."""

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
                env={**os.environ, "PREFECT_SERVER_UI_ENABLED": "false"},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{self._port}/api"

    def wait(self) -> None:
        """Return once it answers.

        Raises:
            RuntimeError: where it ends or stays silent; its log says why.
        """
        if self._process is None:
            return
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end and self._process.poll() is None:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/api/health", timeout=1):
                    return
            except OSError:
                time.sleep(0.05)
        raise RuntimeError(f"Prefect's temporary server did not start; {self._log} says why.")

    def stop(self) -> None:
        """End it."""
        if self._process is None:
            return
        os.environ.pop("PREFECT_API_URL", None)
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._process = None
