"""How much disk space the parts of a home take."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

DATA = "data"
"""The folder of the data sets, which is not counted: it may hold a million files."""


def sizes(home: Path) -> dict[str, int]:
    """Bytes by file or folder at the top of the home, largest first; data sets and links are left out."""
    try:
        parts = [path for path in home.iterdir() if path.name != DATA and not path.is_symlink()]
    except OSError:
        return {}
    found = {path.name: size_of(path) for path in parts}
    return dict(sorted(found.items(), key=lambda part: -part[1]))


def size_of(path: Path) -> int:
    """The bytes of a file, or of all files in a folder; links are not followed."""
    total, folders = 0, []
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            folders.append(str(path))
        else:
            total = path.lstat().st_size
    while folders:
        with suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                else:
                    with suppress(OSError):
                        total += entry.stat(follow_symlinks=False).st_size
    return total


def size_text(size: int) -> str:
    """A size as text, such as "3.1 GB"."""
    value, unit = float(size), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{size} bytes" if unit == "bytes" else f"{value:.1f} {unit}"
