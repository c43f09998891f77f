"""Owners: the processes that records in a home, in Prefect, in MLflow and in Optuna belong to.

A record is abandoned if its owner no longer runs. Since process ids are used again, an owner is a host, a pid and the time at
which the process started. Whether a process on another host runs cannot be seen from here; the same holds for one in another
container, even if the container has the host's name.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path

HOST_PROCESSES = "pid:[4026531836]"
"""The namespace of the process ids of the host itself, the same for every Linux."""


@dataclass(frozen=True)
class Owner:
    """A process.

    Attributes:
        host: the name of its host, in a container followed by the namespace of its process ids.
        pid: its number.
        started: when it started, in clock ticks since the host was booted, which no change of the clock affects.
    """

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
        _, started = _seen(pid)
        return cls(_here(), pid, started)

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
        if self.host != _here():
            return None
        try:
            state, started = _seen(self.pid)
        except OSError:  # there is none, or it is hidden from this user
            return _exists(self.pid)
        return state not in "ZX" and started == self.started


def _here() -> str:
    """The name of this host and, in a container, of the namespace of its process ids."""
    namespace = os.readlink("/proc/self/ns/pid")
    return socket.gethostname() + ("" if namespace == HOST_PROCESSES else f"+{namespace.strip('pid:[]')}")


def _seen(pid: int) -> tuple[str, int]:
    """The state of a process, one letter, and when it started; raises OSError if it does not exist or is hidden."""
    fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    return fields[0], int(fields[19])


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True
