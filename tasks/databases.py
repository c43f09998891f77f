"""The SQLite databases of a home, MLflow's and Prefect's: whether one is damaged, and setting it aside.

Both can be made anew, so a damaged one never ends a run: it gets another name, which a warning states, and a new one is made.
"""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

SIDECARS = ("-wal", "-shm", "-journal")
"""Endings of the files that SQLite keeps beside a database. A new database must not find those of an old one."""
VERSION = "alembic_version"
"""The table in which Alembic, which makes the tables of both databases, notes their version; written last."""
BUSY = 15.0
"""Seconds to wait for a database that another process has locked."""
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def damage(path: Path, needed: Sequence[str], thorough: bool = False) -> str | None:
    """What is wrong with the content of a database; None if nothing is.

    Args:
        path: an existing file.
        needed: tables without which the database is half-made.
        thorough: whether to read all of it, instead of a few pages; takes about a second for 500 MB.

    Raises:
        sqlite3.Error: if the content cannot be judged: the database is locked, the disk is full or cannot be read.
    """
    try:
        with closing(connected(path)) as database:
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            missing = [name for name in (VERSION, *needed) if name not in tables]
            if missing:
                return f"half-made: without {', '.join(missing)}"
            if version(database) is None:
                return "half-made: without a version"
            if thorough:
                (found,) = database.execute("PRAGMA quick_check(1)").fetchone()
                return None if found == "ok" else str(found).splitlines()[-1]
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED:
            return str(error)
        raise
    return None


def version(database: sqlite3.Connection) -> str | None:
    """The version of the tables, according to Alembic."""
    row = database.execute(f"SELECT version_num FROM {VERSION}").fetchone()
    return None if row is None else str(row[0])


def connected(path: Path) -> sqlite3.Connection:
    """A connection to an existing database, on which statements commit at once."""
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=BUSY, isolation_level=None)


def removed(path: Path) -> None:
    """Remove a database that was never used, together with SQLite's files beside it."""
    for ending in (*SIDECARS, ""):
        path.with_name(path.name + ending).unlink(missing_ok=True)
