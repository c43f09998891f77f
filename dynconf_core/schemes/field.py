"""A field that a user may set as ``field=value``: its type, and which values work."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

TRUTHS = {"true": True, "false": False}


@dataclass(frozen=True)
class Field:
    """A field that may be overridden.

    Attributes:
        kind: the type of its value.
        wants: which values work, in words.
        works: whether a value of that type works.
    """

    kind: type
    wants: str
    works: Callable[[Any], bool]

    def read(self, text: str) -> Any:
        """The value that ``text`` says.

        Raises:
            ValueError: where the text says none, or one that does not work.
        """
        if self.kind is bool and text.lower() not in TRUTHS:
            raise ValueError(text)
        value = TRUTHS[text.lower()] if self.kind is bool else self.kind(text)
        if not self.works(value):
            raise ValueError(text)
        return value


def between(low: float, high: float) -> Callable[[Any], bool]:
    """Whether a number is finite and lies from ``low`` to ``high``."""
    return lambda value: math.isfinite(value) and low <= value <= high


def whole(low: int, high: int) -> Field:
    """A whole number from ``low`` to ``high``."""
    return Field(int, f"a whole number from {low} to {high}", between(low, high))
