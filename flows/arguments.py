"""What is written on a command line as ``NAME=VALUE`` or as a list; ``InputError`` says how it is written right."""

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


def checkpoint_paths(texts: list[str] | None) -> dict[str, str]:
    """``--checkpoint SETTING=PATH`` as setting to path."""
    pairs: dict[str, str] = {}
    for text in texts or []:
        name, equals, path = text.partition("=")
        if not equals or not path:
            raise InputError(f"--checkpoint {text}: write SETTING=PATH.")
        if name in pairs:
            raise InputError(f"--checkpoint {name} is given twice: give it once.")
        pairs[name] = path
    return pairs


def field_texts(texts: list[str] | None, option: str, example: str) -> dict[str, str]:
    """``option FIELD=VALUES`` as field to the text of its values."""
    named: dict[str, str] = {}
    for text in texts or []:
        name, equals, values = text.partition("=")
        if not equals or not values:
            raise InputError(f"{option} {text}: write FIELD=VALUES, such as {option} {example}.")
        if name in named:
            raise InputError(f"{option} {name} is given twice: give it once.")
        named[name] = values
    return named
