"""A PostgreSQL server for tests, in a folder of its own, on a free port of this machine."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

PASSWORD = "a%20long/secret"
"""Of every role; percent-encoded in URLs."""
ENCODED = "a%2520long%2Fsecret"


@dataclass(frozen=True)
class Postgres:
    """A running server.

    Attributes:
        folder: its data, log and socket.
        port: its port on 127.0.0.1.
        binaries: the folder of its programs.
    """

    folder: Path
    port: int
    binaries: Path

    def url(self, database: str = "dynconf") -> str:
        """The URL of a database, with the password."""
        return f"postgresql://dynconf:{ENCODED}@127.0.0.1:{self.port}/{database}"

    def database(self, name: str) -> str:
        """Make a new, empty database; returns its URL."""
        self.query(f'create database "{name}"')
        return self.url(name)

    def query(self, statement: str, database: str = "dynconf") -> list[tuple[object, ...]]:
        """Run a statement as the server's superuser; returns its rows."""
        import psycopg

        with psycopg.connect(self.url(database), autocommit=True) as connection:
            done = connection.execute(statement.encode())
            return done.fetchall() if done.description else []

    def stop(self) -> None:
        """Stop the server at once, as if its machine had lost power."""
        self._control("stop", "-m", "immediate")

    def start(self) -> None:
        """Start the server."""
        listening = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.folder} -c fsync=off"
        self._control("start", "-w", "-l", str(self.folder / "log"), "-o", f"{listening} -c max_connections=200")

    def _control(self, *arguments: str) -> None:
        _run([self.binaries / "pg_ctl", "-D", self.folder / "data", *arguments])


@contextmanager
def postgres_server() -> Iterator[Postgres]:
    """A server with a database and a superuser, both called dynconf; skips the test where PostgreSQL is not installed."""
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'dynconf[cluster]'")
    on_path = shutil.which("pg_ctl")
    places = [*Path("/usr/lib/postgresql").glob("*/bin"), *([Path(on_path).resolve().parent] if on_path else [])]
    binaries = [place for place in places if (place / "initdb").exists()]
    if not binaries:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    with tempfile.TemporaryDirectory(prefix="dynconf-postgres-") as name, socket.socket() as free:
        folder = Path(name)
        password = folder / "password"
        password.write_text(PASSWORD)
        if os.getuid() == 0:
            for path in (folder, password):
                shutil.chown(path, "postgres")
        user = ["-U", "dynconf", "-A", "scram-sha-256", f"--pwfile={password}"]
        _run([binaries[0] / "initdb", "-D", folder / "data", *user, "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"])
        free.bind(("127.0.0.1", 0))
        server = Postgres(folder, free.getsockname()[1], binaries[0])
        free.close()
        server.start()
        try:
            server.query("create database dynconf", "postgres")
            yield server
        finally:
            if (folder / "data" / "postmaster.pid").exists():  # a test may have stopped it
                server.stop()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A server for the whole session: use a database of your own (``postgres.database(NAME)``) where others would disturb."""
    with postgres_server() as server:
        yield server


def _run(command: list[object]) -> None:
    """Run one of the server's programs; as root, in the name of the user postgres, since they refuse root."""
    texts = [str(part) for part in command]
    if os.getuid() == 0:
        pwd.getpwnam("postgres")
        texts = ["runuser", "-u", "postgres", "--", *texts]
    done = subprocess.run(texts, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd="/")
    assert done.returncode == 0, done.stdout
