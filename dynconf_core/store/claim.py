"""Claims: at most one process at a time works on a key, in any number of processes that share a home.

A claim is a lock that ends with its process, however that ends: on a file of the home, or in the shared storage where
``DYNCONF_STORAGE`` names one (see ``dynconf_core.store.locks``). Whoever waits then takes over. The holder and those who wait
write who they are into files of the home, for people who look.

    <home>/claims/<name>.lock            a claim without storage, while it is held
    <home>/claims/<name>.json            who holds it, while it is held
    <home>/claims/<name>.waits-....json  while a process waits for it
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from dynconf_core.errors import InputError
from dynconf_core.store.identity import identity, known
from dynconf_core.store.locks import FileLocked, Lock, StorageLocked, is_locked, locked_in_storage
from dynconf_core.store.owner import Owner
from dynconf_core.store.storage import storage_url
from dynconf_core.strict_json import read_json

FOLDER = "claims"
WAITS = ".waits-"
"""Follows the claim's name in the name of a note of a process that waits."""
POLL = 0.2
"""Seconds between two attempts of a process that waits."""


@dataclass(frozen=True)
class Note:
    """What a process that holds a claim or waits for it writes about itself.

    Attributes:
        owner: the process.
        what: what it does under the claim.
        since: when it wrote the note, in seconds since 1970 by the clock of the home's file system.
        storage: whether its lock is in the shared storage.
    """

    owner: Owner
    what: str
    since: float
    storage: bool

    def __str__(self) -> str:
        when = datetime.fromtimestamp(self.since)
        day = "" if when.date() == datetime.now().date() else f"{when:%Y-%m-%d} "
        return f"process {self.owner.pid} on {self.owner.host} ({self.what}), since {day}{when:%H:%M}"


@contextmanager
def claim(home: Path, name: str, what: str, waiting: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold the claim ``name`` during the block, once no other process or thread holds it.

    Args:
        home: the folder that the processes share; they may see it at different paths.
        name: a file name, such as a stage's key.
        what: what is done under the claim, shown to those who wait.
        waiting: called several times a second while another holds the claim, with text that says who and since when; an
            exception from it ends the wait.

    Raises:
        InputError: if the home cannot be written, or the storage does not answer.
    """
    folder = home / FOLDER
    with _writable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = _lock(home, name)
    try:
        with ExitStack() as noted:
            wait = 0.0
            while not _acquired(lock, wait, folder):
                if wait == 0:
                    noted.enter_context(_noted(folder / f"{name}{WAITS}{secrets.token_hex(4)}.json", what))
                    wait = POLL
                if waiting is not None:
                    waiting(holder(home, name) or "another process")
        with _noted(folder / f"{name}.json", what):
            yield
    finally:
        lock.release()


def holder(home: Path, name: str) -> str | None:
    """Who holds a claim, what for and since when, as text; None if nobody is known to."""
    note = read_note(home / FOLDER / f"{name}.json")
    return None if note is None else str(note)


def held(home: Path, name: str) -> bool:
    """Whether a process, this one included, holds a claim; True if that cannot be seen from here.

    Raises:
        InputError: if the storage does not answer.
    """
    return name in held_among(home, [name])


def held_among(home: Path, names: Iterable[str]) -> set[str]:
    """Those of the claims that a process holds; see ``held``."""
    names = set(names)
    found = {name for name in names if is_locked(home / FOLDER / f"{name}.lock")}
    rest, url, home_id = names - found, storage_url(), known(home)
    if url is None:  # the holder may have named a storage that this process does not know
        notes = {name: read_note(home / FOLDER / f"{name}.json") for name in rest}
        return found | {name for name, note in notes.items() if note and note.storage and note.owner.alive() is not False}
    if rest and home_id is not None:
        in_storage = locked_in_storage(url, [_in_storage(home_id, name) for name in rest])
        found |= {name for name in rest if _in_storage(home_id, name) in in_storage}
    return found


def read_note(path: Path) -> Note | None:
    """The note in a file of the claims' folder; None if there is none, or none that can be read."""
    try:
        since, content = path.stat().st_mtime, read_json(path)
        owner = Owner.parse(content["owner"])
        return None if owner is None else Note(owner, str(content["what"]), since, content.get("storage") is True)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _lock(home: Path, name: str) -> Lock:
    url = storage_url()
    if url is None:
        return FileLocked(home / FOLDER / f"{name}.lock")
    return StorageLocked(url, _in_storage(identity(home), name))


def _acquired(lock: Lock, seconds: float, folder: Path) -> bool:
    with _writable(folder):
        return lock.acquire(seconds)


@contextmanager
def _writable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{folder} cannot be written ({error.strerror}): name another home.") from error


def _in_storage(home_id: str, name: str) -> str:
    """The name of a claim's lock in the storage, where other homes have theirs too."""
    return f"dynconf {home_id} {name}"


@contextmanager
def _noted(note: Path, what: str) -> Iterator[None]:
    """A note that names this process while the block runs; it is for people alone, so that nothing fails for it."""
    content = json.dumps({"owner": str(Owner.this()), "what": what, "storage": storage_url() is not None})
    with suppress(OSError):
        note.write_text(content)
    try:
        yield
    finally:
        with suppress(OSError):
            if note.read_text() == content:  # else that of a process that took over after the connection was lost
                os.unlink(note)
