"""Numbers and names as a report shows them."""

from __future__ import annotations

from collections.abc import Sequence

from dynconf_core.schemes.field import Value

MINUS = "\N{MINUS SIGN}"
DASH = "\N{EN DASH}"


def percent(share: float | None, places: int = 2) -> str:
    """A fraction in per cent, without the sign; a dash for None."""
    return DASH if share is None else number(100 * share, places)


def number(value: float | None, places: int = 2) -> str:
    """A number with a true minus sign; a dash for None."""
    if value is None:
        return DASH
    return f"{value:z.{places}f}".replace("-", MINUS)


def between(interval: Sequence[float], scale: float = 1.0, places: int = 2) -> str:
    """An interval, such as "2.10 to 2.30"."""
    low, high = (number(scale * end, places) for end in interval)
    return f"{low} to {high}"


def values_text(values: dict[str, Value]) -> str:
    """The values of some fields, such as "levels=4, time_steps=8"."""
    return ", ".join(f"{name}={short(value)}" for name, value in values.items())


def short(value: Value) -> str:
    """The value of a field."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def count(number_of: int, one: str, several: str = "") -> str:
    """A number and what it counts."""
    return f"{number_of} {one if number_of == 1 else several or one + 's'}"


def listed(words: Sequence[str]) -> str:
    """Words as a list in a sentence."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
