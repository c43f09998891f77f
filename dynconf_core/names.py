"""Plain names: what a file from outside may call a setting, a run or a file, so that no path made of it leads elsewhere."""

from pathlib import PurePosixPath

from dynconf_core.errors import InputError
from dynconf_core.wording import an, shown

LONGEST = 255
"""Bytes of the longest name of a file."""


def is_plain(name: object) -> bool:
    """Whether ``name`` is text that can name a file in a given folder, and nothing elsewhere."""
    return fault(name) is None


def is_inside(path: object) -> bool:
    """Whether ``path`` is text made of plain names and ``/``, so that it lies below any folder to which it is relative."""
    return isinstance(path, str) and path == str(PurePosixPath(path)) and all(map(is_plain, path.split("/")))


def plain_name(name: str, field: str) -> str:
    """``name``, if it is plain.

    Raises:
        InputError: for any other, naming the field, the value and the reason.
    """
    found = fault(name)
    if found is not None:
        raise InputError(f"{field} = {shown(name)} {found}: use a plain name, such as my-network.")
    return name


def fault(name: object) -> str | None:
    """Why ``name`` is not plain, in words that follow it; None if it is."""
    if not isinstance(name, str):
        return f"is {an(name)}, not text"
    if not name:
        return "is empty"
    if name in (".", ".."):
        return "names a folder"
    if "/" in name or "\\" in name:
        return "holds a separator of folders"
    if any(ord(character) < 32 or 127 <= ord(character) < 160 for character in name):
        return "holds a control character"
    try:
        size = len(name.encode("utf-8"))
    except UnicodeEncodeError:
        return "holds half a character"
    return f"has {size} bytes, more than {LONGEST}" if size > LONGEST else None
