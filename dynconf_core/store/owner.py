"""Owners: the processes that records in a home, in Prefect, in MLflow and in Optuna belong to.

A record is abandoned if its owner no longer runs. Since process ids are used again, an owner is a host, a pid and the time at
which the process started. Whether a process on another host runs cannot be seen from here.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass

TOLERANCE = 5.0
"""Seconds by which two readings of one process's start time may differ, as the system's clock is set."""


@dataclass(frozen=True)
class Owner:
    """A process: host, pid, and start time in seconds since 1970."""

    host: str
    pid: int
    started: int

    @classmethod
    def this(cls) -> Owner:
        """This process."""
        return cls.of(os.getpid())

    @classmethod
    def of(cls, pid: int) -> Owner:
        """A running process of this host."""
        import psutil

        return cls(socket.gethostname(), pid, round(psutil.Process(pid).create_time()))

    @classmethod
    def parse(cls, text: str) -> Owner | None:
        """The owner whose ``str()`` is ``text``; None for any other text."""
        host, _, rest = text.partition("/")
        pid, _, started = rest.partition("/")
        if not (host and pid.isascii() and pid.isdigit() and started.isascii() and started.isdigit()):
            return None
        return cls(host, int(pid), int(started))

    def __str__(self) -> str:
        return f"{self.host}/{self.pid}/{self.started}"

    def alive(self) -> bool | None:
        """Whether the process runs; None if it ran on another host."""
        import psutil

        if self.host != socket.gethostname():
            return None
        try:
            process = psutil.Process(self.pid)
            running = process.status() != psutil.STATUS_ZOMBIE
            return running and abs(process.create_time() - self.started) <= TOLERANCE
        except psutil.NoSuchProcess:
            return False
        except psutil.AccessDenied:
            return True
