"""A temporary Prefect server for a run on the local machine, used unless ``PREFECT_API_URL`` names a server.

Prefect itself would start a server only with the first flow, which then has to wait for it. This one starts earlier and comes
up while torch is imported and the data are checked.
"""

import json
import logging
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

from dynconf_core.errors import InputError
from dynconf_core.files import set_aside
from dynconf_core.home.running import note_killed
from dynconf_core.store.owner import Owner
from dynconf_flows.prefect_runs import deliver_logs_and_events
from dynconf_tasks.answering import NoCertificate, answer, without_password
from dynconf_tasks.databases import SIDECARS, damage
from dynconf_tasks.links import TEMPORARY

_PATIENCE = 90.0
_STARTS = 5
"""How often a server that was killed is started again."""
_PROCESS = Path(__file__).with_name("server_process.py")
_log = logging.getLogger(__name__)
_LITTLE = 2**20
"""Free bytes below which a disk is full."""
_OWN = [
    f"PREFECT_{kind}_DATABASE_{name}" for kind in ("API", "SERVER") for name in ("CONNECTION_URL", "DRIVER", "HOST", "NAME")
]
"""Settings with which users name a database of their own."""
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


def no_space() -> str | None:
    """A sentence that says so if the disk of Prefect's folder, in the home, is full; then servers fail in many ways."""
    folder = Path(os.environ.get("PREFECT_HOME", "")).expanduser().absolute()
    if "PREFECT_HOME" not in os.environ or not folder.is_dir() or shutil.disk_usage(folder).free >= _LITTLE:
        return None
    return f"there is no space left for {folder}: free some, then run again; finished stages are kept"


class TemporaryServer:
    """A Prefect server on a free loopback port until ``stop``; not started if ``PREFECT_API_URL`` is set.

    If its process is killed, it is started again on the same socket: the flows try again for hours before they give up. What it
    had not stored yet is lost, so that the next run in the home looks for records that still say that they run.

    Raises:
        InputError: if the server that ``PREFECT_API_URL`` names does not answer within seconds, or is none of Prefect's.
    """

    def __init__(self, home: Path) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._home, self._starting = home, threading.Lock()
        configure(home)
        if os.environ.get("PREFECT_API_URL"):
            check_api(os.environ["PREFECT_API_URL"])
            return
        self._folder = Path(os.environ["PREFECT_HOME"]).expanduser().absolute()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._log = self._folder / "server.log"
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._port = self._listening.getsockname()[1]
        self._stopping = threading.Event()
        self._start()

    def wait(self) -> None:
        """Wait until the server answers.

        Raises:
            RuntimeError: if it ends or does not answer.
        """
        if self._process is None:
            return
        if not self._answers():
            reason = self._reason()
            if not self._set_aside():
                raise RuntimeError(f"Prefect's temporary server did not start ({reason}); {self._log} may say more.")
            self._start()
            if not self._answers():
                raise RuntimeError(f"Prefect's temporary server did not start ({self._reason()}); {self._log} may say more.")
        self._repeat_warnings()
        self._watch = threading.Thread(target=self._start_again, name="server", daemon=True)
        self._watch.start()

    def stop(self) -> None:
        """Stop the server."""
        if self._process is None:
            return
        deliver_logs_and_events()
        os.environ.pop("PREFECT_API_URL", None)
        os.environ.pop(TEMPORARY, None)
        with self._starting:
            self._stopping.set()
        self._listening.close()
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _start(self) -> None:
        """Start the process; connections wait in its socket until it serves."""
        database = self._folder / "prefect.db"
        url = {"PREFECT_API_DATABASE_CONNECTION_URL": _url(database)} if not any(os.environ.get(name) for name in _OWN) else {}
        paths = [os.path.abspath(entry) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
        with self._log.open("ab") as log:
            self._logged = log.tell()
            asked = {
                "socket": self._listening.fileno(),
                "database": str(database) if url else None,
                "path": [os.path.abspath(entry) for entry in sys.path],
            }
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(_PROCESS), json.dumps(asked)],
                # Prefect reads settings from files in the current folder, which may be any.
                cwd=self._folder,
                env={**os.environ, **_SERVER_SETTINGS, **url, "PYTHONPATH": os.pathsep.join(paths)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                pass_fds=[self._listening.fileno()],
                start_new_session=True,
                text=True,
            )
        self._owner = Owner.of(self._process.pid)
        os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{self._port}/api"
        os.environ[TEMPORARY] = "1"

    def _start_again(self) -> None:
        """Start the process again whenever it ends before ``stop``, a few times."""
        for start in range(_STARTS + 1):
            process = self._process
            assert process is not None
            code = process.wait()
            with self._starting:
                if self._stopping.is_set():
                    return
                note_killed(self._home, self._owner, "Prefect's temporary server")
                if start == _STARTS:
                    _log.warning("Prefect's temporary server ended again (exit code %d); %s may say why.", code, self._log)
                    self._listening.close()  # so that the flows are refused, instead of waiting
                    return
                _log.warning("Prefect's temporary server ended (exit code %d) and is started again.", code)
                self._start()
            self._repeat_warnings()

    def _repeat_warnings(self) -> None:
        """Log the lines that the server prints until it has started."""
        assert self._process is not None and self._process.stdout is not None
        for line in self._process.stdout:
            _log.warning("%s", line.strip())

    def _answers(self) -> bool:
        """Wait until the server answers or ends."""
        assert self._process is not None
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy does not know this machine's loopback
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end and self._process.poll() is None:
            try:
                with direct.open(f"http://127.0.0.1:{self._port}/api/health", timeout=1):
                    return True
            except OSError:
                time.sleep(0.05)
        return False

    def _reason(self) -> str:
        """Why the server did not start, as far as is known."""
        if full := no_space():
            return full
        with self._log.open("rb") as log:
            log.seek(self._logged)
            lines = [line for line in log.read().decode(errors="replace").splitlines() if line.strip()]
        return lines[-1].strip()[:300] if lines else "it gave no reason"

    def _set_aside(self) -> bool:
        """Set the database aside if it is damaged where the server did not look; returns whether it was."""
        database = self._folder / "prefect.db"
        try:
            found = damage(database, (), thorough=True) if database.is_file() else None
        except sqlite3.Error:
            return False
        if found:
            _log.warning(
                "%s is damaged (%s): set aside as %s, and made anew.", database, found, set_aside(database, SIDECARS).name
            )
        return bool(found)


def check_api(address: str) -> None:
    """Raise ``InputError`` unless a Prefect server answers at ``address``, within seconds."""
    told = without_password(address)
    remedy = "start that server, correct PREFECT_API_URL, or unset it to use a temporary server."
    try:
        status, body = answer(f"{address.rstrip('/')}/health")
    except NoCertificate:
        return  # Prefect may be configured with other certificates
    except OSError as error:
        raise InputError(f"PREFECT_API_URL: nothing answers at {told} ({without_password(str(error))}): {remedy}") from None
    if status not in (401, 403) and not (status == 200 and body.strip() == b"true"):  # without an API key: refused, but there
        raise InputError(f"PREFECT_API_URL: what answers at {told} is not Prefect's API (status {status}): {remedy}")


def _url(database: Path) -> str:
    from sqlalchemy.engine import URL

    return URL.create("sqlite+aiosqlite", database=str(database)).render_as_string()
