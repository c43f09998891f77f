"""Digests of files: what they hold, in hexadecimal digits."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path


def file_digest(path: Path, algorithm: str = "sha256") -> str:
    """The digest of a file, read anew."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, algorithm).hexdigest()


def content_digest(path: Path) -> str:
    """The sha256 of a file, read anew only if its size or time of change differ from the last reading.

    Raises:
        OSError: if it cannot be read.
    """
    state = path.stat()
    return _remembered(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=16)
def _remembered(path: Path, size: int, changed: int) -> str:
    return file_digest(path)
