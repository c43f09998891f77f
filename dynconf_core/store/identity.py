"""The identity of a home: a random text in it, by which machines that see the home at different paths know it as one."""

from __future__ import annotations

import re
import secrets
from contextlib import suppress
from pathlib import Path

from dynconf_core.errors import InputError
from dynconf_core.files import NotWritten, written_folder

FOLDER, FILE = "identity", "id"
_FORM = re.compile(r"[0-9a-f]{32}")


def identity(home: Path) -> str:
    """The identity of a home: 32 hexadecimal digits, drawn once by the first process that asks.

    Raises:
        InputError: if the home cannot be written, or its identity is damaged.
    """
    if (found := known(home)) is None:
        with suppress(NotWritten), written_folder(home / FOLDER) as folder:  # another process may have been faster
            (folder / FILE).write_text(secrets.token_hex(16))
        found = known(home)
    if found is None:
        raise InputError(f"{home / FOLDER} cannot be written: name another home.")
    return found


def known(home: Path) -> str | None:
    """The identity of a home; None if it has none yet.

    Raises:
        InputError: if it is damaged.
    """
    path = home / FOLDER / FILE
    try:
        found = path.read_text(errors="replace").strip()
    except OSError:
        return None
    if not _FORM.fullmatch(found):
        raise InputError(f"{path} is damaged: remove the folder {path.parent} while nothing runs in the home.")
    return found
