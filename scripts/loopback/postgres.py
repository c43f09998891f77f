"""PostgreSQL in the folder of a cluster."""

import os
import pwd
import shutil
import subprocess
from pathlib import Path

from loopback.folder import DATABASES, HOST, Folder, Refused, write
from loopback.processes import finish

PART = "postgres"


class Postgres:
    """A PostgreSQL server with a database and a user for each of ``DATABASES``.

    PostgreSQL refuses to run as root, so root runs it as the user postgres.
    """

    def __init__(self, folder: Folder) -> None:
        self.folder, self.path = folder, folder.path / "postgres"
        self.data = self.path / "data"
        found = shutil.which("initdb") or max(map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb")), default=None)
        if found is None:
            raise Refused("PostgreSQL is not installed; on Debian and Ubuntu: apt-get install postgresql")
        self.programs = Path(found).parent
        self.as_user = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []

    def running(self) -> bool:
        return self.data.is_dir() and self._call("pg_ctl", "status")[0] == 0

    def start(self) -> None:
        if not self.data.is_dir():
            self._make()
        # Without a socket in the file system, whose path may not be longer than 107 characters.
        settings = f"-c listen_addresses={HOST} -c unix_socket_directories='' -c max_connections=300"
        options = f"-p {self.folder.ports[PART]} {settings}"
        code, told = self._call("pg_ctl", "-w", "-l", str(self.path / "log"), "-o", options, "start")
        if code:
            raise Refused(f"PostgreSQL did not start; the reason is in {self.path / 'log'}:\n{told}")

    def stop(self) -> None:
        if self.running():
            self._call("pg_ctl", "-w", "-m", "fast", "stop")

    def make_databases(self) -> None:
        """Make the users and databases that are not there."""
        import psycopg
        from psycopg import sql

        port, secrets = self.folder.ports[PART], str(self.folder.passwords)
        address = psycopg.conninfo.make_conninfo(host=HOST, port=port, user="postgres", dbname="postgres", passfile=secrets)
        with psycopg.connect(address, autocommit=True) as connection:
            roles = {name for (name,) in connection.execute("SELECT rolname FROM pg_roles")}
            databases = {name for (name,) in connection.execute("SELECT datname FROM pg_database")}
            for name in DATABASES:
                # The server gets the hash alone, so that no log of statements can hold a password.
                secret = self.folder.password(name).encode()
                verifier = connection.pgconn.encrypt_password(secret, name.encode(), b"scram-sha-256").decode()
                verb = sql.SQL("ALTER" if name in roles else "CREATE")
                connection.execute(sql.SQL("{} ROLE {} LOGIN PASSWORD {}").format(verb, sql.Identifier(name), verifier))
                if name not in databases:
                    connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(*[sql.Identifier(name)] * 2))

    def _make(self) -> None:
        owner = pwd.getpwnam("postgres").pw_uid if self.as_user else os.getuid()
        shutil.rmtree(self.path, ignore_errors=True)  # what a killed `up` has left; databases would be in `data`
        self.path.mkdir(mode=0o700)
        password = self.path / "password"
        write(password, self.folder.password("postgres"))
        for path in (self.path, password):
            os.chown(path, owner, -1)
        if subprocess.run([*self.as_user, "test", "-r", str(password)], cwd="/", check=False).returncode:
            raise Refused(f"the user postgres cannot enter {self.path}: choose another --folder, or chmod o+x those above it")
        final, self.data = self.data, self.path / "new"
        options = ("-U", "postgres", "-A", "scram-sha-256", f"--pwfile={password}", "-E", "UTF8", "--locale=C.UTF-8")
        code, told = self._call("initdb", *options)
        password.unlink()
        if code:
            raise Refused(f"initdb failed:\n{told}")
        self.data = self.data.rename(final)

    def _call(self, program: str, *arguments: str) -> tuple[int, str]:
        command = [*self.as_user, str(self.programs / program), "-D", str(self.data), *arguments]
        return finish(self.folder, PART, command, {"LC_ALL": "C.UTF-8"}, Path("/"))
