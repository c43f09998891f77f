"""The claims of a home as others see them: who holds one, who waits for it, and what a killed holder left behind."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dynconf_core.home.running import Dead
from dynconf_core.store.claim import FOLDER, WAITS, held_among, read_note
from dynconf_core.store.owner import Owner


@dataclass(frozen=True)
class Claim:
    """A claim that a process holds or held.

    Attributes:
        name: its name; for a stage, the key.
        owner: the holder according to its note; None if there is no readable one.
        what: what is done under the claim.
        held: whether its lock is held; False if the holder was killed.
        waiting: the processes that wait for it.
    """

    name: str
    owner: Owner | None
    what: str
    held: bool
    waiting: tuple[Owner, ...]


def claims(home: Path) -> list[Claim]:
    """The claims that have a lock file or a note in the home.

    Raises:
        InputError: if the shared storage does not answer.
    """
    names = _names(home)
    taken = held_among(home, names)
    return [_claim(home / FOLDER, name, name in taken) for name in names]


def held(home: Path) -> set[str]:
    """The names of the claims that are held; those that cannot be judged count as held.

    Raises:
        InputError: if the shared storage does not answer.
    """
    return held_among(home, _names(home))


def abandoned(home: Path, dead: Dead) -> list[Path]:
    """The files that killed holders and waiting processes left: locks that nobody holds, their notes, notes of dead waiters."""
    folder, taken = home / FOLDER, held(home)
    found = []
    for path in sorted([*folder.glob("*.lock"), *folder.glob("*.json")]):
        if WAITS in path.name:
            note = read_note(path)
            if note is None or dead(note.owner):
                found.append(path)
        elif path.stem not in taken:
            found.append(path)
    return found


def remove(path: Path) -> None:
    """Remove a file that ``abandoned`` lists, unless its claim is held again."""
    lock = path.with_suffix(".lock")
    if WAITS in path.name or not lock.exists():
        if WAITS in path.name or path.stem not in held_among(path.parent.parent, [path.stem]):
            path.unlink(missing_ok=True)
        return
    with suppress(OSError):
        descriptor = os.open(lock, os.O_RDWR)
        try:
            # A process that has opened the lock meanwhile sees that it is unlinked, and opens it anew.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            lock.with_suffix(".json").unlink(missing_ok=True)
            lock.unlink(missing_ok=True)
        finally:
            os.close(descriptor)


def _names(home: Path) -> list[str]:
    folder = home / FOLDER
    return sorted({file.stem for pattern in ("*.lock", "*.json") for file in folder.glob(pattern) if WAITS not in file.name})


def _claim(folder: Path, name: str, held: bool) -> Claim:
    note = read_note(folder / f"{name}.json")
    waiting = tuple(one.owner for path in sorted(folder.glob(f"{name}{WAITS}*.json")) if (one := read_note(path)) is not None)
    return Claim(name, note.owner if note else None, note.what if note else "unknown", held, waiting)
