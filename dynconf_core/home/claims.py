"""The claims of a home as others see them: who holds one, who waits for it, and what a killed holder left behind."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dynconf_core.home.running import Dead
from dynconf_core.store.claim import FOLDER, WAITS
from dynconf_core.store.owner import Owner
from dynconf_core.strict_json import read_json


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
    """The claims that have a lock file or a note in the home."""
    folder = home / FOLDER
    names = {file.stem for pattern in ("*.lock", "*.json") for file in folder.glob(pattern) if WAITS not in file.name}
    return [_claim(folder, name) for name in sorted(names)]


def held(home: Path) -> set[str]:
    """The names of the claims that are held; those that cannot be judged count as held."""
    return {path.stem for path in (home / FOLDER).glob("*.lock") if is_locked(path)}


def abandoned(home: Path, dead: Dead) -> list[Path]:
    """The files that killed holders and waiting processes left: locks that nobody holds, their notes, notes of dead waiters."""
    folder = home / FOLDER
    found = []
    for path in sorted([*folder.glob("*.lock"), *folder.glob("*.json")]):
        if WAITS in path.name:
            owner, _ = _note(path)
            if owner is None or dead(owner):
                found.append(path)
        elif not is_locked(path.with_suffix(".lock")):
            found.append(path)
    return found


def remove(path: Path) -> None:
    """Remove a file that ``abandoned`` lists, unless its claim is held again."""
    lock = path.with_suffix(".lock")
    if WAITS in path.name or not lock.exists():
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


def _claim(folder: Path, name: str) -> Claim:
    owner, what = _note(folder / f"{name}.json")
    waiting = tuple(one for path in sorted(folder.glob(f"{name}{WAITS}*.json")) if (one := _note(path)[0]) is not None)
    return Claim(name, owner, what, is_locked(folder / f"{name}.lock"), waiting)


def _note(path: Path) -> tuple[Owner | None, str]:
    try:
        content = read_json(path)
        return Owner.parse(content["owner"]), str(content["what"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return None, "unknown"


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock on a file; True if that cannot be seen, False if there is no such file."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except OSError:
        return True
    finally:
        os.close(descriptor)
