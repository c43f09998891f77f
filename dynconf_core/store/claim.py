"""Claims: at most one process at a time works on a key, in any number of processes that share a home.

A claim is a lock on a file, which ends with its process, however that ends: whoever waits takes over within a fraction of a
second. The holder and those who wait write who they are into files beside the lock, for people who look.

    <home>/claims/<name>.lock and <name>.json   while the claim is held
    <home>/claims/<name>.waits-....json         while a process waits for it
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from dynconf_core.errors import InputError
from dynconf_core.store.owner import Owner
from dynconf_core.strict_json import read_json

FOLDER = "claims"
WAITS = ".waits-"
"""Follows the claim's name in the name of a note of a process that waits."""
POLL = 0.2
"""Seconds between two attempts of a process that waits."""


@contextmanager
def claim(home: Path, name: str, what: str, waiting: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold the claim ``name`` during the block, once no other process or thread holds it.

    Args:
        home: the folder that the processes share.
        name: a file name, such as a stage's key.
        what: what is done under the claim, shown to those who wait.
        waiting: called repeatedly while another holds the claim, with text that says who; an exception from it ends the wait.

    Raises:
        InputError: if the home cannot be written.
    """
    from filelock import FileLock, Timeout

    folder = home / FOLDER
    path, note = folder / f"{name}.lock", folder / f"{name}.json"
    lock = FileLock(path, thread_local=False)
    with ExitStack() as noted:
        wait: float = 0
        while True:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                lock.acquire(timeout=wait, poll_interval=POLL / 4)
                break
            except Timeout:
                if wait == 0:
                    noted.enter_context(_noted(folder / f"{name}{WAITS}{secrets.token_hex(4)}.json", what))
                    wait = POLL if waiting else -1
                if waiting is not None:
                    waiting(holder(home, name) or "another process")
            except OSError as error:
                raise InputError(f"{folder} cannot be written ({error.strerror}): name another home.") from error
    try:
        with _noted(note, what):
            yield
    finally:
        # A process that has opened the file meanwhile sees that it is unlinked, and opens it anew.
        with suppress(OSError):
            os.unlink(path)
        lock.release()


def holder(home: Path, name: str) -> str | None:
    """Who holds a claim and what for, as text; None if nobody is known to."""
    try:
        note = read_json(home / FOLDER / f"{name}.json")
        owner = Owner.parse(note["owner"])
        return f"process {owner.pid} on {owner.host} ({note['what']})" if owner is not None else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


@contextmanager
def _noted(note: Path, what: str) -> Iterator[None]:
    """A note that names this process while the block runs; it is for people alone, so that nothing fails for it."""
    with suppress(OSError):
        note.write_text(json.dumps({"owner": str(Owner.this()), "what": what}))
    try:
        yield
    finally:
        with suppress(OSError):
            note.unlink(missing_ok=True)
