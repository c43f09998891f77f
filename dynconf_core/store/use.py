"""When an artefact was last used, so that what a running process reads is never removed.

Using an artefact sets the modification time of its manifest. A process that removes artefacts holds a lock of the store while
it looks at that time and moves the artefact away, and a process that is about to use one holds the same lock, shared, while it
sets the time: either the remover sees the new time, or the reader no longer finds the artefact and makes it again.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dynconf_core.store.manifest import MANIFEST

LOCK = ".lock"


def note_use(root: Path, folder: Path) -> None:
    """Record that the artefact in ``folder`` is used now; has no effect in a store that cannot be written."""
    with suppress(OSError), _locked(root, fcntl.LOCK_SH):
        os.utime(folder / MANIFEST)


def last_use(folder: Path) -> float:
    """When the artefact in ``folder`` was used or written last, in seconds since 1970 by the clock of its file system."""
    manifest = folder / MANIFEST
    return (manifest if os.path.lexists(manifest) else folder).lstat().st_mtime


@contextmanager
def undisturbed(root: Path) -> Iterator[None]:
    """No process begins to use an artefact of the store during the block.

    Raises:
        OSError: if the store cannot be locked.
    """
    with _locked(root, fcntl.LOCK_EX):
        yield


@contextmanager
def _locked(root: Path, operation: int) -> Iterator[None]:
    descriptor = os.open(root / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, operation)
        yield
    finally:
        os.close(descriptor)
