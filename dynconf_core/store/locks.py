"""Locks that end with their process: on a file of the home, or in the storage that machines share.

A lock in the storage is an advisory lock of a PostgreSQL session. The server ends it with the connection: at once if a process
dies, within a minute if its machine loses power. It needs a connection of its own while it is held or waited for.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from dynconf_core.store.owner import Owner
from dynconf_core.store.storage import connect

if TYPE_CHECKING:
    import psycopg

LONGEST_NAME = 63
"""Bytes of an application's name in PostgreSQL."""


class Lock(Protocol):
    """A lock that at most one thread of all processes holds."""

    def acquire(self, seconds: float) -> bool:
        """Take the lock, waiting for so many seconds if another holds it; returns whether it was taken.

        Raises:
            OSError: if the home cannot be written.
            InputError: if the storage does not answer.
        """

    def release(self) -> None:
        """Let the lock go, or stop waiting for it; without effect if neither."""


class FileLocked:
    """A lock on a file, which is removed with it."""

    def __init__(self, path: Path) -> None:
        from filelock import FileLock

        self.path = path
        self._lock = FileLock(path, thread_local=False)

    def acquire(self, seconds: float) -> bool:
        """See ``Lock``."""
        from filelock import Timeout

        self.path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(Timeout):
            self._lock.acquire(timeout=seconds, poll_interval=0.05)
            return True
        return False

    def release(self) -> None:
        """See ``Lock``."""
        if self._lock.is_locked:
            # A process that has opened the file meanwhile sees that it is unlinked, and opens it anew.
            with suppress(OSError):
                os.unlink(self.path)
            self._lock.release()


class StorageLocked:
    """A lock in the storage.

    If the connection is lost while the lock is held, the server gives the lock to the next, and the holder goes on.
    """

    def __init__(self, url: str, name: str) -> None:
        self.name = name
        self._url = url
        self._connection: psycopg.Connection | None = None

    def acquire(self, seconds: float) -> bool:
        """See ``Lock``."""
        if self._try():
            return True
        time.sleep(seconds)
        return self._try()

    def _try(self) -> bool:
        import psycopg

        for attempt in range(2):
            if self._connection is None:
                self._connection = connect(self._url, _application())
            try:
                return self._execute("select pg_try_advisory_lock(%s)", number(self.name))
            except psycopg.Error:  # the server was started anew while this process waited
                self._close()
                if attempt:
                    raise
        raise AssertionError("unreachable")

    def release(self) -> None:
        """See ``Lock``."""
        import psycopg

        with suppress(psycopg.Error):
            if self._connection is not None:
                self._execute("select pg_advisory_unlock_all()::text")  # at once; closing alone takes effect a little later
        self._close()

    def _execute(self, statement: str, *values: str | int) -> bool:
        assert self._connection is not None
        row = self._connection.execute(statement.encode(), values).fetchone()
        return row is not None and row[0] is True

    def _close(self) -> None:
        import psycopg

        with suppress(psycopg.Error):
            if self._connection is not None:
                self._connection.close()
        self._connection = None


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock on a file; True if that cannot be seen, False if there is no such file."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except OSError:
        return True
    finally:
        os.close(descriptor)


def locked_in_storage(url: str, names: Iterable[str]) -> set[str]:
    """Those of the names whose lock in the storage a process holds.

    Raises:
        InputError: if the storage does not answer.
    """
    statement = """
        select (classid::bigint << 32) | objid::bigint from pg_locks
        where locktype = 'advisory' and objsubid = 1 and granted
        and database = (select oid from pg_database where datname = current_database())
    """
    with connect(url) as connection:
        taken = {row[0] for row in connection.execute(statement.encode())}
    return {name for name in names if number(name) in taken}


def number(name: str) -> int:
    """The number, of 64 bits with a sign, of a lock in the storage."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)


def _application() -> str:
    """How the server's administrators see this process."""
    owner = Owner.this()
    return f"dynconf {owner.host}/{owner.pid}".encode("ascii", "replace").decode()[:LONGEST_NAME]
