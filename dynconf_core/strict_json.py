"""Reading JSON that somebody else may have written: bounded in size and depth, and nothing that JSON does not have.

Python's own reader accepts NaN and repeated keys, guesses encodings, and lets numbers and nesting through on which later code
fails. What is refused here is refused at once, and the message names the file.
"""

import json
import math
import os
import stat
from pathlib import Path
from typing import Any, NoReturn

from dynconf_core.errors import InputError

LARGEST = 16 * 2**20
"""Bytes of a file."""
DEEPEST = 100
"""Lists and objects within each other."""
DIGITS = 20
"""Digits of a whole number; larger numbers are written as 1e21."""


def read_json(path: Path, largest: int = LARGEST) -> Any:
    """The content of a JSON file.

    Raises:
        InputError: naming the file, if it cannot be read, is not a file, larger than ``largest`` bytes or not JSON.
    """
    if "\0" in str(path):
        raise InputError(f"{str(path)!r} names no file.")
    try:
        # Opening a pipe without anybody who writes into it would wait for ever.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
            found = os.fstat(stream.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise InputError(f"{path} is not a file: name a JSON file.")
            if found.st_size > largest:
                raise InputError(f"{path} has {found.st_size} bytes, more than the {largest} of any such file: name another.")
            text = stream.read(largest + 1)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}): name another file.") from error
    return parsed(text, str(path), largest)


def parsed(text: bytes | str, source: str, largest: int = LARGEST) -> Any:
    """The value of a JSON text; ``source`` names it in messages.

    Raises:
        InputError: if the text is not JSON in UTF-8, or exceeds a bound.
    """
    if len(text) > largest:
        raise InputError(f"{source} holds {len(text)} bytes of JSON, more than the {largest} that are read.")
    try:
        found = json.loads(
            text if isinstance(text, str) else text.decode("utf-8"),
            object_pairs_hook=_once,
            parse_constant=_no_number,
            parse_int=_whole,
            parse_float=_finite,
        )
        _check(found)
    except RecursionError:
        raise InputError(f"{source} is nested more than {DEEPEST} deep: it is damaged, or not one of these files.") from None
    except UnicodeDecodeError as error:
        raise InputError(
            f"{source} cannot be read as JSON (byte {error.start} is not UTF-8): it is damaged, or the wrong file was named."
        ) from None
    except ValueError as error:  # also of the checks below
        raise InputError(f"{source} cannot be read as JSON ({error}): it is damaged, or the wrong file was named.") from None
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object, in which every key may stand once."""
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice[:80]!r} stands twice in one object")
    return found


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number in JSON")


def _whole(text: str) -> int:
    if len(text) > DIGITS + 1:
        raise ValueError(f"a whole number has {len(text)} digits; at most {DIGITS} are read")
    return int(text)


def _finite(text: str) -> float:
    found = float(text)
    if not math.isfinite(found):
        raise ValueError(f"the number {text[:40]} is too large")
    return found


def _check(value: Any) -> None:
    """Raise ``RecursionError`` for what is nested too deep, and ``ValueError`` for text that UTF-8 cannot hold."""
    level = [value]
    for _ in range(DEEPEST + 1):
        inner: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                inner += one
                inner += one.values()
            elif isinstance(one, list):
                inner += one
            elif isinstance(one, str) and not one.isascii():
                one.encode("utf-8")  # "\ud800" alone is half a character
        if not inner:
            return
        level = inner
    raise RecursionError
