"""Parameters with one value a step: how fitted measures check them and read them at a step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dynconf_core.errors import InputError

LARGEST = 1e100


def checked_numbers(name: str, values: Any) -> tuple[float, ...]:
    """The numbers as a tuple of floats.

    Raises:
        InputError: unless they are a sequence of one or more finite numbers within +-1e100.
    """
    if isinstance(values, str) or not isinstance(values, Sequence) or not values:
        raise InputError(f"{name} = {values!r} is no list of numbers; give the parameters that fit returns.")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= LARGEST:
            raise InputError(f"{name} holds {value!r}; give finite numbers within +-1e100.")
    return tuple(map(float, values))


def checked_table(name: str, rows: Any, width: int | None = None) -> tuple[tuple[float, ...], ...]:
    """Rows of numbers as tuples, all of one width, `width` if it is given.

    Raises:
        InputError: if they are not.
    """
    if isinstance(rows, str) or not isinstance(rows, Sequence) or not rows:
        raise InputError(f"{name} is no list of rows of numbers; give the parameters that fit returns.")
    found = tuple(checked_numbers(name, row) for row in rows)
    wanted = len(found[0]) if width is None else width
    if any(len(row) != wanted for row in found):
        raise InputError(f"{name} has rows of {sorted({len(row) for row in found})} numbers; each needs {wanted}.")
    return found


def at_step(values: Any, step: Tensor) -> Tensor:
    """(...) float64 the value, or (..., J) the row, of each step (...), counted from 1; after the last, that of the last.

    Raises:
        InputError: if there are none, as the measure is not fitted.
    """
    if values is None:
        raise InputError("the measure needs its fitted parameters: call fit on calibration traces first.")
    table = torch.tensor(values, dtype=torch.float64, device=step.device)
    return table[(step - 1).clamp(max=len(table) - 1)]


def log_odds(share: float, samples: int) -> float:
    """log(p / (1 - p)) of a share p of so many samples, finite at 0 and 1 too."""
    successes = share * samples
    return math.log((successes + 0.5) / (samples - successes + 0.5))
