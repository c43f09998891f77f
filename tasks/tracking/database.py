"""MLflow's database in the home: made whole or not at all, set aside when damaged, and at home where the home is.

A new database is made under another name, ``.mlflow.db.new``, and renamed when it is complete; only the process that holds the
claim ``mlflow`` does so. MLflow notes where artefacts lie as absolute paths: in a home that was moved or copied, those below
its old ``mlartifacts`` are rewritten.
"""

import logging
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sqlalchemy import event
from sqlalchemy.engine import URL
from sqlalchemy.pool import Pool

from dynconf_core.failing import failure_point
from dynconf_core.files import set_aside
from dynconf_core.store.claim import claim
from dynconf_tasks.databases import SIDECARS, connected, damage, removed, version

FILE, NEW, ARTEFACTS = "mlflow.db", ".mlflow.db.new", "mlartifacts"
NEEDED = ("experiments", "runs")
LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""Tables and columns with absolute locations of artefacts."""
log = logging.getLogger(__name__)
Waiting = Callable[[str], None]


class OtherVersion(RuntimeError):
    """The database holds runs, and belongs to another version of MLflow."""


def tracking_uri(home: Path) -> str:
    """``MLFLOW_TRACKING_URI``, by default the URI of ``mlflow.db`` in the home."""
    return os.environ.get("MLFLOW_TRACKING_URI") or _uri(home / FILE)


def artefact_location(home: Path, experiment: str) -> str:
    """Where the artefacts of an experiment lie in the home, as a URI."""
    return (home / ARTEFACTS / experiment).as_uri()


def silence() -> None:
    """Keep MLflow from logging tracebacks of the errors that it raises, and its progress; call after importing it."""
    for noisy in ("mlflow", "alembic"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)


def prepare(home: Path, waiting: Waiting) -> None:
    """Make the database of the home if there is none, set it aside if it is visibly damaged, and correct its locations.

    Raises:
        sqlite3.Error: if it cannot be read or written, for instance because another process has locked it.
        InputError: if the home cannot be written.
    """
    path = home / FILE
    if not path.is_file() or damage(path, NEEDED):
        with claim(home, "mlflow", "making mlflow.db", waiting):
            if path.is_file() and (found := damage(path, NEEDED)):
                _put_away(path, found)
            if not path.is_file():
                _make(home)
    with closing(connected(path)) as database:
        database.execute("BEGIN IMMEDIATE")  # fails at once, rather than in the middle, if the database cannot be written
        database.execute("ROLLBACK")
        moved = _moved(database, home)
    if moved:
        with claim(home, "mlflow", "correcting the locations of artefacts", waiting):
            _relocate(home)


def repaired(home: Path, waiting: Waiting) -> bool:
    """Diagnose a database that MLflow could not open; returns whether it was damaged, set aside and made anew.

    Raises:
        OtherVersion: if MLflow must upgrade it first.
    """
    path = home / FILE
    with claim(home, "mlflow", "looking at mlflow.db", waiting):
        found = damage(path, NEEDED, thorough=True) or _other_version(path)
        if found is None:
            return False
        _put_away(path, found)
        _make(home)
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    SqlAlchemyStore._get_or_create_engine(_uri(path)).dispose()  # MLflow keeps connections to the file set aside
    return True


def _uri(path: Path) -> str:
    # With the driver's name in it: for `sqlite:///` alone MLflow makes a folder whose name is the escaped one.
    return URL.create("sqlite+pysqlite", database=str(path)).render_as_string()


def _put_away(path: Path, why: str) -> None:
    aside = set_aside(path, SIDECARS)
    log.warning("%s is damaged (%s): set aside as %s, and made anew.", path, why, aside.name)


def _make(home: Path) -> None:
    """Make the database; the caller holds the claim."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    silence()
    path, new = home / FILE, home / NEW
    removed(new)  # of a process that was killed
    removed(path)  # files that SQLite has kept beside a database that is gone
    try:
        with _unsynchronised(new):
            SqlAlchemyStore(_uri(new), (home / ARTEFACTS).as_uri()).engine.dispose()
        with new.open("rb") as file:
            os.fsync(file.fileno())
        failure_point("mlflow.made")
        new.replace(path)
    except BaseException:
        removed(new)
        raise


@contextmanager
def _unsynchronised(path: Path) -> Iterator[None]:
    """Do not wait for the disk after each of the hundred steps in which Alembic makes this database."""

    def connected_now(connection: sqlite3.Connection, record: object) -> None:
        if [file for _, _, file in connection.execute("PRAGMA database_list")] == [str(path)]:
            connection.execute("PRAGMA synchronous = OFF")

    event.listen(Pool, "connect", connected_now)
    try:
        yield
    finally:
        event.remove(Pool, "connect", connected_now)


def _other_version(path: Path) -> str | None:
    """Why the tables do not fit this version of MLflow; None if they do.

    Raises:
        OtherVersion: if they do not fit, and hold runs.
    """
    import mlflow
    from alembic.script import ScriptDirectory

    with closing(connected(path)) as database:
        found = version(database)
        (runs,) = database.execute("SELECT count(*) FROM runs").fetchone()
    head = ScriptDirectory(str(Path(mlflow.__file__).parent / "store" / "db_migrations")).get_current_head()
    if found == head:
        return None
    if runs:
        raise OtherVersion(
            f"{path} belongs to another version of MLflow than {mlflow.__version__}, which is installed: copy it, then run "
            f"`mlflow db upgrade '{_uri(path)}'`, or install the version that made it"
        )
    return f"half-made: version {found} instead of {head}, and no runs"


def _moved(database: sqlite3.Connection, home: Path) -> list[tuple[str, str]]:
    """Old and new beginnings of the locations that do not fit the home."""
    found = set()
    for name, location in database.execute("SELECT name, artifact_location FROM experiments"):
        end = f"/{ARTEFACTS}/{name}"
        if location and location.endswith(end) and location != artefact_location(home, name):
            old = location.removesuffix(end)
            if old.startswith("file:") and not _same(old, home):
                found.add((f"{old}/{ARTEFACTS}/", f"{home.as_uri()}/{ARTEFACTS}/"))
    return sorted(found)


def _same(location: str, home: Path) -> bool:
    """Whether a location is the home under another name, such as a symbolic link."""
    from mlflow.utils.file_utils import local_file_uri_to_path

    try:
        return os.path.samefile(local_file_uri_to_path(location), home)
    except OSError:
        return False


def _relocate(home: Path) -> None:
    """Rewrite the locations in one transaction; the caller holds the claim."""
    with closing(connected(home / FILE)) as database:
        database.execute("BEGIN IMMEDIATE")
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        for old, new in _moved(database, home):
            for table, column in LOCATIONS:
                if table in tables:
                    database.execute(
                        f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                        (new, len(old) + 1, len(old), old),
                    )
        database.execute("COMMIT")
