"""Temporary folders and their writers: a folder is removed by others only once its writer is gone.

The file ``writer`` in the folder names the writer. While it lives, it holds a lock on the file and sets the folder's time every
``BEAT`` seconds, since other machines may not see the lock.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dynconf_core.store.locks import is_locked
from dynconf_core.store.owner import Owner

FILE = "writer"
BEAT = 20.0
"""Seconds between two signs of life."""
SILENT = 6 * 3600.0
"""Seconds without a sign of life after which a writer on another machine counts as gone. On some file systems (Lustre) the
times of files are those of the writing machine, whose clock may be an hour off."""


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Show during the block that this process writes into ``folder``.

    Raises:
        OSError: if the folder cannot be written.
    """
    file = os.open(folder / FILE, os.O_CREAT | os.O_RDWR, 0o666)
    stop = threading.Event()
    beats = threading.Thread(target=_beat, args=(folder, stop), name="heartbeat", daemon=True)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.write(file, str(Owner.this()).encode())
        beats.start()
        yield
    finally:
        stop.set()
        if beats.ident is not None:
            beats.join()
        os.close(file)


def abandoned(
    folder: Path, now: float, grace: float, dead: Callable[[Owner], bool] = lambda owner: owner.alive() is False
) -> bool:
    """Whether nobody writes into a temporary folder any more.

    Args:
        folder: the folder.
        now: the time by the clock of its file system; see ``dynconf_core.store.clock``.
        grace: seconds without a sign of life before which every writer counts as alive.
        dead: whether a process has certainly ended. Writers of which this cannot be said must have been silent for ``SILENT``.
    """
    try:
        silent = now - folder.stat().st_mtime
        owner = _writer(folder)
    except OSError:  # it has just been removed, or belongs to somebody else
        return False
    if silent < grace or is_locked(folder / FILE):
        return False
    if owner is None or dead(owner):
        return True
    return owner.alive() is None and silent >= SILENT


def _writer(folder: Path) -> Owner | None:
    """The writer of a folder; None if none is named, as where it is killed at once."""
    file = folder / FILE
    return Owner.parse(file.read_text(errors="replace")) if file.exists() else None


def _beat(folder: Path, stop: threading.Event) -> None:
    while not stop.wait(BEAT):
        with suppress(OSError):
            os.utime(folder)
