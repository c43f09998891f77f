"""The folder of a cluster: files that only their owner can read, ports, passwords, and the environment to work in."""

import contextlib
import json
import os
import secrets
import shlex
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

HOST = "127.0.0.1"
DATABASES = ("prefect", "mlflow", "dynconf")


class Refused(Exception):
    """What was asked for cannot work; the message says why and what helps."""


@dataclass
class Folder:
    """Where everything lies, dynconf's home, the servers' ports, and the names of the workers that should run."""

    path: Path
    home: str
    ports: dict[str, int] = field(default_factory=dict)
    workers: list[str] = field(default_factory=list)

    @classmethod
    def at(cls, path: Path) -> Self:
        path = path.absolute()
        file = path / "state.json"
        known = json.loads(file.read_text()) if file.is_file() else {}
        return cls(path, **{"home": str(path / "home"), **known})

    @property
    def log(self) -> Path:
        return self.path / "logs"

    @property
    def passwords(self) -> Path:
        """In libpq's format, which psycopg and asyncpg read, so that no server's address has to hold a password."""
        return self.path / "pgpass"

    def password(self, user: str) -> str:
        lines = [line.split(":") for line in self.passwords.read_text().splitlines()]
        return next(fields[4] for fields in lines if fields[3] == user)

    def url(self, part: str) -> str:
        return f"http://{HOST}:{self.ports.get(part, '')}"

    def make(self) -> None:
        # As root, PostgreSQL runs as another user, who has to reach its own folder in here.
        self.path.mkdir(mode=0o711 if os.getuid() == 0 else 0o700, parents=True, exist_ok=True)

    def prepare(self) -> None:
        """Make the folders, and choose the passwords."""
        for folder in (self.log, self.path / "mlflow", self.path / "prefect"):
            folder.mkdir(mode=0o700, exist_ok=True)
        if not self.passwords.is_file():
            lines = [f"*:*:*:{user}:{secrets.token_hex(16)}\n" for user in ("postgres", *DATABASES)]
            write(self.passwords, "".join(lines))

    def save(self) -> None:
        """Write what is to be remembered, and the file that a user's shell reads."""
        write(self.path / "state.json", json.dumps({"home": self.home, "ports": self.ports, "workers": self.workers}))
        lines = [f"export {name}={shlex.quote(value)}\n" for name, value in self.environment().items()]
        write(self.path / "env", "".join(lines))

    def choose_port(self, part: str, asked: int | None, running: bool) -> None:
        """Keep the port of a part that runs; else take what was asked for, the last one, or one that is free."""
        last = self.ports.get(part)
        if running and last is not None:
            if asked not in (None, last):
                raise Refused(f"{part} runs on port {last} already; stop the cluster first: scripts/cluster down")
            return
        if asked and not is_free(asked):
            raise Refused(f"--{part}-port {asked}: it is in use; name another, or none, to have one chosen")
        self.ports[part] = asked or (last if last and is_free(last) else free_port())

    def environment(self) -> dict[str, str]:
        """What a user's shell, and a Prefect worker, need to work on the cluster."""
        database = f"{HOST}:{self.ports['postgres']}/dynconf"
        return {
            "PREFECT_API_URL": f"{self.url('prefect')}/api",
            "MLFLOW_TRACKING_URI": self.url("mlflow"),
            "DYNCONF_HOME": self.home,
            "DYNCONF_STORAGE": f"postgresql://dynconf:{self.password('dynconf')}@{database}",
        }


def write(file: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    new = file.with_name(f".{file.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.write(text)
    new.replace(file)


def is_free(port: int) -> bool:
    with socket.socket() as probe, contextlib.suppress(OSError):
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port whose last connections have just closed is free
        probe.bind((HOST, port))
        return True
    return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
