"""The process of the temporary Prefect server: ``python -P server_process.py``, with JSON on the command line.

It ignores the signals that end the command, since Slurm, systemd and a terminal send them to every process of a job: the flows
still have to report how they ended. It ends when its standard input closes or its parent is gone, however that happened.

Database: while it is made, the file ``.making`` stands beside it and the process holds a claim; if the process is killed, the
next one makes it anew. A damaged one is set aside, and a line on the standard output says so. Then that closes.
"""

import json
import os
import select
import signal
import socket
import sqlite3
import sys
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
MAKING = ".making"
LIMIT = 128 * 2**20
"""The largest database, in bytes, that is read completely at the start, which takes a fraction of a second."""
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Application:
    """Prefect's application; ``started`` is called when it has started, its database included."""

    def __init__(self, started: Callable[[], None]) -> None:
        from prefect.server.api.server import create_app

        self._app, self._started = create_app(), started

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer as Prefect does, but let the client try again at once where SQLite, which has a single writer, was busy."""

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 503:
                message = {**message, "headers": [*message["headers"], (b"retry-after", b"0.05")]}
            if message["type"] == "lifespan.startup.complete":
                self._started()
            await send(message)

        await self._app(scope, receive, answer)


def checked(database: Path, held: ExitStack) -> None:
    """Set a damaged database aside, or remove an unfinished one; if it is to be made, ``held`` then holds the claim."""
    from dynconf_core.files import set_aside
    from dynconf_core.store.claim import claim
    from dynconf_tasks.databases import SIDECARS, removed

    making = database.with_name(MAKING)
    if database.is_file() and not making.exists() and not damaged(database):
        return
    held.enter_context(claim(database.parent, "database", "making Prefect's database"))
    fault = damaged(database) if database.is_file() and not making.exists() else None
    if fault:
        print(f"{database} is damaged ({fault}): set aside as {set_aside(database, SIDECARS).name}, and made anew.", flush=True)
    elif database.is_file() and not making.exists():  # made by the process that held the claim
        held.close()
        return
    removed(database)
    making.touch()
    held.callback(making.unlink, missing_ok=True)


def damaged(database: Path) -> str | None:
    """What is wrong with the database's content, as far as can be told at once; None if nothing is."""
    from dynconf_tasks.databases import damage

    try:
        return damage(database, ("flow_run",), thorough=database.stat().st_size <= LIMIT)
    except sqlite3.Error:  # locked, or the disk is full: Prefect will say so
        return None


def main() -> None:
    """Serve until the parent is gone."""
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    asked = json.loads(sys.argv[1])
    sys.path.extend(folder for folder in asked["path"] if folder not in sys.path)
    parent = os.getppid()
    listening = socket.socket(fileno=asked["socket"])
    servers: list[Any] = []

    def serve() -> None:
        held = ExitStack()
        try:
            if asked["database"]:
                checked(Path(asked["database"]), held)
            import uvicorn

            def started() -> None:
                held.close()
                os.dup2(2, 1)  # closes the standard output that the parent reads

            server = uvicorn.Server(uvicorn.Config(Application(started), log_level="error", lifespan="on"))
            servers.append(server)
            server.run(sockets=[listening])
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)

    serving = threading.Thread(target=serve, daemon=True)
    serving.start()
    while os.getppid() == parent:
        if select.select([sys.stdin], [], [], 1.0)[0] and not os.read(0, 4096):
            break
    for server in servers:
        server.should_exit = True
    serving.join(3)
    os._exit(0)


if __name__ == "__main__":
    main()
