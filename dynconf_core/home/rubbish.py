"""What can be removed from a home, and removing it.

Nothing that a process uses is removed. Every run that lives, those of other hosts included, keeps what was used since it began
(see ``dynconf_core.store.use``), and a claimed key keeps its artefact and its work folder. A folder is renamed before it is
removed, so that no reader sees part of it.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dynconf_core.failing import failure_point
from dynconf_core.home import claims
from dynconf_core.home.leftovers import leftovers
from dynconf_core.home.leftovers import remove as remove_leftover
from dynconf_core.home.reach import reached, with_inputs
from dynconf_core.home.running import runs
from dynconf_core.home.sizes import size_of
from dynconf_core.home.verification import folders, surface
from dynconf_core.store import clock
from dynconf_core.store.claim import claim
from dynconf_core.store.manifest import Damaged, Manifest
from dynconf_core.store.use import last_use, undisturbed

ARTEFACT, DAMAGED, WORK = "unreached artefact", "damaged artefact", "work folder"
LEFT, ASIDE, LOG = "left by a killed process", "damaged file set aside", "old log"
RECENT = 3600.0
"""Seconds since its last use for which an artefact stays in any case."""
DAY = 86400.0
ASIDES = ("*.damaged*", "prefect/*.damaged*")
LOGS = ("logs/*", "prefect/*.log")
Check = Callable[[Path], Manifest]
"""The manifest of the artefact in a folder; raises ``Damaged``."""


@dataclass(frozen=True)
class Rubbish:
    """Something that can be removed.

    Attributes:
        kind: one of the kinds above.
        path: the file or folder.
        size: its bytes.
        used: when it was used or changed last, in seconds since 1970.
        why: the reason.
    """

    kind: str
    path: Path
    size: int
    used: float
    why: str


def rubbish(home: Path, keep_days: float, check: Check = surface) -> list[Rubbish]:
    """What can be removed from the home.

    Args:
        home: the home.
        keep_days: artefacts that were used within so many days stay, with all that they were made from; so do work folders,
            logs and files set aside that were changed since.
        check: how artefacts are checked for damage.

    Raises:
        InputError: if a results.json cannot be read.
    """
    began = [run.began for run in runs(home) if run.owner is None or run.owner.alive() is not False]
    now = clock.now(home)
    in_use, old = min([now - RECENT, *began]), min([now - keep_days * DAY, *began])
    claimed = claims.held(home)
    good: dict[str, Manifest] = {}
    found = []
    for folder in folders(home / "artefacts"):
        try:
            good[folder.name] = check(folder)
        except Damaged as damage:
            if folder.name not in claimed and (when := _used(folder)) < in_use:
                found.append(Rubbish(DAMAGED, folder, size_of(folder), when, str(damage)))
    used = {folder: _used(folder) for folder in folders(home / "artefacts") if folder.name in good}
    young = {folder.name for folder, when in used.items() if when >= min(in_use, old)}
    kept = with_inputs(reached(home, good) | claimed | young, good)
    for folder, when in used.items():
        if folder.name not in kept:
            why = f"{good[folder.name]['parts']['stage']} {folder.name[:12]}, used last {_ago(now - when)}"
            found.append(Rubbish(ARTEFACT, folder, size_of(folder), when, why))
    found += _work_folders(home, good, claimed, now, old)
    found += [Rubbish(LEFT, path, size_of(path), _changed(path), "its process has ended") for path in leftovers(home)]
    for kind, patterns in ((ASIDE, ASIDES), (LOG, LOGS)):
        for path in sorted(path for pattern in patterns for path in home.glob(pattern)):
            if (changed := _changed(path)) < old:
                found.append(Rubbish(kind, path, size_of(path), changed, f"changed last {_ago(now - changed)}"))
    return found


def remove(home: Path, items: list[Rubbish]) -> list[Rubbish]:
    """Remove what ``rubbish`` found, except what has been used, claimed or replaced meanwhile; returns what was removed."""
    removed = []
    for item in items:
        with suppress(OSError, _Claimed):
            if _removed(home, item):
                removed.append(item)
    return removed


class _Claimed(Exception):
    """Another process holds the claim."""


def _refuse(holder: str) -> None:
    raise _Claimed(holder)


def _removed(home: Path, item: Rubbish) -> bool:
    """Remove an item unless it has been used since it was judged; whether it was removed."""
    if item.kind in (ARTEFACT, DAMAGED):
        with claim(home, item.path.name, "removing the artefact", _refuse):
            with undisturbed(home / "artefacts"):
                if _used(item.path) != item.used:
                    return False
                place = _aside(home, item.path)
            _clear(place)
    elif item.kind == WORK:
        with claim(home, item.path.name, "removing its work folder", _refuse):
            if _newest(item.path) != item.used:
                return False
            _clear(_aside(home, item.path))
    elif item.kind == LEFT:
        return remove_leftover(item.path)
    else:
        item.path.unlink()
    return not os.path.lexists(item.path)


def _aside(home: Path, folder: Path) -> Path:
    """Rename a folder into the store's temporary folder; returns the new folder that holds it."""
    temporaries = home / "artefacts" / ".tmp"
    temporaries.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix="removed-", dir=temporaries))
    try:
        folder.rename(place / "folder")
    except OSError:
        place.rmdir()
        raise
    failure_point("gc.aside")
    return place


def _clear(place: Path) -> None:
    shutil.rmtree(place, ignore_errors=True)


def _work_folders(home: Path, good: Mapping[str, Manifest], claimed: set[str], now: float, old: float) -> Iterator[Rubbish]:
    for folder in sorted((home / "work").glob("[!.]*")):
        changed = _newest(folder)
        if folder.name not in claimed and (folder.name in good or changed < old):
            why = "its artefact is there" if folder.name in good else f"changed last {_ago(now - changed)}"
            yield Rubbish(WORK, folder, size_of(folder), changed, why)


def _used(folder: Path) -> float:
    try:
        return last_use(folder)
    except OSError:  # it has just gone
        return math.inf


def _newest(folder: Path) -> float:
    """When a folder or something in it was changed last."""
    return max(map(_changed, [folder, *folder.rglob("*")]))


def _changed(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:  # it has just gone
        return math.inf


def _ago(seconds: float) -> str:
    days = seconds / DAY
    return f"{days:.0f} days ago" if days >= 2 else f"{24 * days:.0f} hours ago"
