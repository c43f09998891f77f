"""Whether a command may write where the user wants it, found out before anything is started and without making anything."""

import tempfile
from pathlib import Path

from dynconf_core.errors import InputError


def check_folder(folder: Path, option: str) -> None:
    """Raise ``InputError`` unless files can be made in ``folder``, which need not exist yet; ``option`` named it."""
    try:
        nearest = folder.absolute()
        while not nearest.exists():
            nearest = nearest.parent
        if not nearest.is_dir():
            raise InputError(f"{option} {folder}: {nearest} is a file; name a folder.")
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise InputError(f"{option} {folder} cannot be written ({error.strerror}): name a folder of yours.") from None


def check_file(file: Path, option: str) -> None:
    """Raise ``InputError`` unless ``file`` can be made or replaced; ``option`` named it."""
    if file.is_dir():
        raise InputError(f"{option} {file} is a folder; name a file in it.")
    check_folder(file.absolute().parent, option)
