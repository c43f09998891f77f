"""What is written on a command line as ``NAME=VALUE`` or as a list; ``InputError`` says how it is written right."""

from typing import Any

from dynconf_core.errors import InputError


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


def with_fixed_point(overrides: dict[str, Any], no_fixed_point: bool) -> dict[str, Any]:
    """``--no-fixed-point`` as the override that it stands for."""
    if not no_fixed_point:
        return overrides
    if "fixed_point" in overrides:
        raise InputError(
            f"--no-fixed-point and --set fixed_point={str(overrides['fixed_point']).lower()} are given: give one of them."
        )
    return {**overrides, "fixed_point": False}


def with_rule(overrides: dict[str, Any], rule: str | None) -> dict[str, Any]:
    """``--rule`` as the override that it stands for."""
    if rule is None:
        return overrides
    if "rule" in overrides:
        raise InputError(f"--rule {rule} and --set rule={overrides['rule']} are given: give one of them.")
    return {**overrides, "rule": rule}
