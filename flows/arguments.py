"""What is written on a command line as ``NAME=VALUE``, as a list or as a size; ``InputError`` says how it is written right."""

import re
from typing import Any

from dynconf_core.errors import InputError

UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
SIZE = rf"^\s*(\d+(?:\.\d+)?|\.\d+)\s*({'|'.join(UNITS)})\s*$"
"""A size as it is written: a number and a unit."""


def seed_numbers(seed: int | None, seeds: str | None) -> list[int]:
    """The seeds of ``--seed`` or ``--seeds``, each once; 0 where none is given."""
    if seeds is None:
        return [seed or 0]
    if seed is not None:
        raise InputError(f"--seed {seed} and --seeds {seeds} are given: give one of them.")
    try:
        return list(dict.fromkeys(int(text) for text in seeds.split(",")))
    except ValueError:
        raise InputError(f"--seeds {seeds}: give whole numbers, such as 0,1,2.") from None


def named_texts(texts: list[str] | None, option: str, form: str) -> dict[str, str]:
    """``option NAME=TEXT``, given any number of times, as name to text; ``form`` shows how it is written."""
    named: dict[str, str] = {}
    for written in texts or []:
        name, equals, text = written.partition("=")
        if not equals or not text:
            raise InputError(f"{option} {written}: write {form}.")
        if name in named:
            raise InputError(f"{option} {name} is given twice: give it once.")
        named[name] = text
    return named


def checkpoint_files(texts: list[str] | None, seed: int, several: bool = False) -> dict[str, str]:
    """``--checkpoint SETTING=PATH`` of one of the seeds: ``{seed}`` in a path is its number; ``several`` need it."""
    checkpoints = named_texts(texts, "--checkpoint", "SETTING=PATH")
    for name, path in checkpoints.items():
        if several and "{seed}" not in path:
            raise InputError(
                f"--checkpoint {name}={path}: one file for several seeds; write {{seed}} where their files differ."
            )
    return {name: path.replace("{seed}", str(seed)) for name, path in checkpoints.items()}


def size_in_bytes(text: str, option: str) -> int:
    """What ``text`` says, such as 8GiB or 512 MiB, in bytes (capitals and small letters are the same)."""
    found = re.match(SIZE, text, re.IGNORECASE | re.ASCII)
    if found is None:
        raise InputError(f"{option} {text}: write a number and a unit ({', '.join(UNITS)}), such as 8GiB.")
    number, unit = found.groups()
    size = int(float(number) * next(factor for name, factor in UNITS.items() if name.lower() == unit.lower()))
    if size < 1:
        raise InputError(f"{option} {text}: a size above 0 is needed, such as 8GiB.")
    return size


def with_grid(overrides: dict[str, Any], no_grid: bool) -> dict[str, Any]:
    """``--no-grid`` as the override that it stands for."""
    if not no_grid:
        return overrides
    if "grid" in overrides:
        raise InputError(f"--no-grid and --set grid={str(overrides['grid']).lower()} are given: give one of them.")
    return {**overrides, "grid": False}
