"""What killed processes left in a home: temporary files, empty and temporary folders, and the files of their claims."""

from __future__ import annotations

import math
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from dynconf_core.home import claims
from dynconf_core.home.running import Dead, ended, runs
from dynconf_core.store import clock
from dynconf_core.store.claim import FOLDER
from dynconf_core.store.writer import abandoned

GRACE = 60.0
"""Seconds for which a temporary file may lie untouched while a process that has no running file still writes it."""
WRITTEN = (".", "running", "claims", "prefect", "results/*", "sweeps/*", "results", "sweeps", "work", "work/*")
"""The folders of a home in which files are written under temporary names."""
TEMPORARY = re.compile(r"\..+[.-](\d+|[0-9a-f]{8,})(\.tmp|\.json)?|\.(writable|clock)-\w+", re.DOTALL)
"""Temporary names: hidden, and ending in the number of a process or in random digits."""


def leftovers(home: Path, dead: Dead = ended, grace: float = GRACE) -> list[Path]:
    """Files and folders that nobody writes or locks any more.

    A temporary file counts if it is older than every run of a living process, and older than ``grace`` seconds by the clock of
    the home's file system.
    """
    return [*temporaries(home, dead, grace), *claims.abandoned(home, dead)]


def remove(path: Path) -> bool:
    """Remove one of the ``leftovers``; returns whether it is gone."""
    with suppress(OSError):
        if path.parent.name == FOLDER:
            claims.remove(path)
        elif path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    return not os.path.lexists(path)


def temporaries(home: Path, dead: Dead = ended, grace: float = GRACE) -> list[Path]:
    """The temporary files and the folders among the ``leftovers``."""
    living = [run.began for run in runs(home) if run.owner is not None and not dead(run.owner)]
    now = clock.now(home)
    before = min([now - grace, *living])
    found = [path for path in (*_candidates(home), *_empty(home)) if _touched(path) < before]
    written = (home / "artefacts" / ".tmp").glob("*")
    return sorted([*found, *(path for path in written if abandoned(path, now, grace, dead))])


def _candidates(home: Path) -> Iterator[Path]:
    for folder in WRITTEN:
        for path in home.glob(f"{folder}/.*"):
            if TEMPORARY.fullmatch(path.name) and not path.parent.is_symlink():
                yield path


def _empty(home: Path) -> Iterator[Path]:
    """Folders of runs that were killed before they had results."""
    for room in ("results", "sweeps"):
        for folder in (home / room).glob("[!.]*"):
            if folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir()):
                yield folder


def _touched(path: Path) -> float:
    """The time of the last change; never for what has just gone."""
    try:
        return path.lstat().st_mtime
    except OSError:
        return math.inf
