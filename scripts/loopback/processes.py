"""The processes of a cluster.

They are known by their environment, which whatever they start inherits: no list of them can be lost or out of date.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from loopback.folder import Folder, Refused

MARK, PART = "DYNCONF_CLUSTER", "DYNCONF_CLUSTER_PART"
"""Environment variables of every process of a cluster: its folder, and which part it belongs to."""
PATIENCE = 180.0
"""Seconds that a part may take to answer; the first start makes the tables."""
UNSEEN = 1.0
"""Seconds without a process of a part after which it has ended: one that is just being started shows no environment yet."""
LAST_WORDS = 10.0
"""Seconds that a part has to end in order."""


def processes(folder: Folder) -> Iterator[tuple[int, str]]:
    """Number and part of every process that belongs to the cluster."""
    mark = f"{MARK}={folder.path}".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):  # it has ended, or is another user's
                variables = (entry / "environ").read_bytes().split(b"\0")
                if mark in variables:
                    part = next((one for one in variables if one.startswith(f"{PART}=".encode())), b"=?")
                    yield int(entry.name), part.decode().partition("=")[2]


def running(folder: Folder, part: str) -> list[int]:
    """The numbers of a part's processes."""
    return sorted(number for number, its in processes(folder) if its == part)


def marked(folder: Folder, part: str, environment: dict[str, str]) -> dict[str, str]:
    """The environment of a process of this part."""
    ours = {MARK: str(folder.path), PART: part, "PYTHONSAFEPATH": "1", "PREFECT_HOME": str(folder.path / "prefect")}
    return {**os.environ, "PREFECT_SERVER_ANALYTICS_ENABLED": "false", **environment, **ours}


def start(folder: Folder, part: str, command: Sequence[str], environment: dict[str, str]) -> None:
    """Start a part in a session of its own, so that it survives this command's terminal."""
    with (folder.log / f"{part}.log").open("ab") as log:
        subprocess.Popen(
            command,
            cwd=folder.path,
            env=marked(folder, part, environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def finish(folder: Folder, part: str, command: Sequence[str], environment: dict[str, str], cwd: Path) -> tuple[int, str]:
    """Run a command to its end; returns its exit code and what it wrote."""
    # Its output is not read from a pipe, of whose end a server that it starts would be one more owner.
    with (folder.log / f"{part}.log").open("w+") as log:
        env = marked(folder, part, environment)
        done = subprocess.run(command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False)
        log.seek(0)
        return done.returncode, log.read().strip()


def wait_for(folder: Folder, part: str, answers: Callable[[], bool]) -> None:
    """Wait until a part answers, as long as it runs."""
    end = time.monotonic() + PATIENCE
    seen = time.monotonic()
    while not answers():
        if running(folder, part):
            seen = time.monotonic()
        elif time.monotonic() - seen > UNSEEN:
            raise Refused(f"{part} has ended before it answered; the reason is in {folder.log / f'{part}.log'}")
        if time.monotonic() > end:
            raise Refused(f"{part} has not answered for {PATIENCE:.0f} s; see {folder.log / f'{part}.log'}")
        time.sleep(0.1)


def stop(folder: Folder, parts: Callable[[str], bool]) -> None:
    """End the processes of some parts, and whatever these have started: by SIGTERM, then by SIGKILL."""
    told: set[int] = set()
    end = time.monotonic() + LAST_WORDS
    while left := [number for number, part in processes(folder) if parts(part)]:
        late = time.monotonic() > end
        for number in left:
            if late or number not in told:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL if late else signal.SIGTERM)
        told.update(left)
        time.sleep(0.1)
