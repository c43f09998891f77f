"""Writing a file completely or not at all, and putting a damaged one out of the way."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from dynconf_core.failing import failure_point


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file under a temporary name beside ``path``, which takes its place once the block has ended without an exception.

    If the process is killed, ``path`` is either the old or the new file. The temporary name is random, so that neither a file
    that a killed process has left nor a process on another host is in the way.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with beside.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        failure_point("file.written")
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def set_aside(path: Path) -> Path:
    """Rename a file that is of no use to ``<name>.damaged``, so that a new one can take its place; returns its new path."""
    aside = path.with_name(f"{path.name}.damaged")
    path.replace(aside)
    return aside
