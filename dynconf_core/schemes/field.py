"""Fields that a user may set as ``field=value``: their types and permitted values."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dynconf_core.errors import InputError
from dynconf_core.wording import told

Value = str | int | float | bool
"""A value of a field."""
TRUTHS = {"true": True, "false": False}


def as_written(value: Value) -> str:
    """A value as a user would write it after ``--set FIELD=``."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


@dataclass(frozen=True)
class Field:
    """A field that may be overridden.

    Attributes:
        kind: the type of its value.
        wants: the permitted values, in words.
        works: whether a value of that type is permitted.
    """

    kind: type
    wants: str
    works: Callable[[Any], bool]

    def read(self, text: str) -> Value:
        """The value written in ``text``.

        Raises:
            ValueError: if ``text`` is not a value of this type, or not a permitted one.
        """
        if self.kind is bool and text.lower() not in TRUTHS:
            raise ValueError(text)
        value: Value = TRUTHS[text.lower()] if self.kind is bool else self.kind(text)
        if not self.works(value):
            raise ValueError(text)
        return value

    def check(self, name: str, value: object, where: str = "") -> None:
        """Raise ``InputError``, beginning with ``where``, unless ``value`` is permitted."""
        taken = (int, float) if self.kind is float else (self.kind,)
        fits = isinstance(value, taken) and (self.kind is bool) == isinstance(value, bool)
        try:
            fits = fits and self.works(value)
        except OverflowError:  # a whole number beyond float64
            fits = False
        if not fits:
            raise InputError(f"{where}{told(name, value)}: needs {self.wants}.")


def between(low: float, high: float) -> Callable[[Any], bool]:
    """A test for finite numbers from ``low`` to ``high``."""
    return lambda value: math.isfinite(value) and low <= value <= high


def whole(low: int, high: int) -> Field:
    """A field for whole numbers from ``low`` to ``high``."""
    return Field(int, f"a whole number from {low} to {high}", between(low, high))
