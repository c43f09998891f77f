"""Confidence smoothing: from accumulated logits z to the z' that a measure scores, z'_t = z_t / alpha_t.

- `sum`: alpha_t = alpha, the constant of Li, Jones and Furber (ICCV 2023; 30 in their demo). Accumulated logits grow with t, so
  that early steps are never confident: this imposes a minimum latency.
- `mean`: alpha_t = t alpha, so that early steps can be as confident as late ones.
- `power`: alpha_t = alpha t^exponent, a temperature that depends on the step through one more parameter; `sum` and `mean` are
  the exponents 0 and 1. `dynconf_core.confidence.temperature` fits it by maximum likelihood.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dynconf_core.confidence.elementary import exponential, logarithm
from dynconf_core.errors import InputError

Form = Literal["sum", "mean", "power"]
FORMS: tuple[Form, ...] = ("sum", "mean")
"""The forms determined by alpha alone."""
ALL_FORMS: tuple[Form, ...] = get_args(Form)
LARGEST_EXPONENT = 8.0
# A tiny alpha may overflow z' or underflow itself; within these limits neither z' nor a difference of two is infinite or nan.
LARGEST = float(np.finfo(np.float64).max) / 4
SMALLEST = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True)
class Smoothing:
    """One smoothing.

    Attributes:
        form: "sum", "mean" or "power".
        alpha: > 0, the temperature (for "power", that of the first step), in units of the logits.
        exponent: how the temperature grows with the step; only for "power", otherwise None.

    Raises:
        InputError: for another form, an alpha that is not a finite number above 0, or an exponent that is missing, outside -8
            to 8, or given with another form.
    """

    form: Form
    alpha: float
    exponent: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.form, str) or self.form not in ALL_FORMS:
            raise InputError(f"smoothing form {self.form!r} is not known; give one of {', '.join(ALL_FORMS)}.")
        object.__setattr__(self, "alpha", _number("alpha", self.alpha, "one above 0"))
        if not self.alpha > 0:
            raise InputError(f"smoothing alpha = {self.alpha} cannot divide logits; give a finite number above 0.")
        if self.form != "power":
            if self.exponent is not None:
                raise InputError(
                    f"smoothing exponent = {self.exponent!r} means nothing for the form {self.form}; leave it out."
                )
            return
        exponent = _number("exponent", self.exponent, "how the temperature grows with the step, such as 0.5")
        if abs(exponent) > LARGEST_EXPONENT:
            raise InputError(f"smoothing exponent = {exponent} is out of range; give one from -8 to 8.")
        object.__setattr__(self, "exponent", exponent)

    def __str__(self) -> str:
        """The formula of z', of the sum z of the logits up to step t."""
        alpha = f"{self.alpha:.3g}"
        divisor = {"sum": alpha, "mean": f"(t · {alpha})"}.get(self.form)
        return f"z / {divisor or f'({alpha} t^{self.exponent:.2g})'}"

    def temperature(self, step: Tensor) -> Tensor:
        """alpha_t (...) float64 for the steps t (...), counted from 1; the same bits on every device."""
        steps = step.to(torch.float64)
        if self.form == "sum":
            return torch.full_like(steps, max(self.alpha, SMALLEST))
        if self.exponent is not None:
            steps = exponential(logarithm(steps) * self.exponent)
        return (steps * self.alpha).clamp(min=SMALLEST)

    def smoothed(self, accumulated: Tensor, step: Tensor) -> Tensor:
        """z' (..., C) for the accumulated logits z (..., C) float64 of the steps t (...), clipped to +-4e307."""
        return (accumulated / self.temperature(step)[..., None]).clamp(-LARGEST, LARGEST)

    def apply(self, accumulated: NDArray[np.float64], ends: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
        """z' (n, T, C) for the accumulated logits z (n, T, C) of the steps 1 to T, float64: `smoothed` for arrays. After the
        step at which a sample ends, one of `ends` (n,), its z' stays as it is there."""
        steps = torch.arange(1, accumulated.shape[1] + 1)
        if ends is not None:
            steps = torch.minimum(steps, torch.from_numpy(ends)[:, None])
        smoothed: NDArray[np.float64] = self.smoothed(torch.from_numpy(accumulated), steps).numpy()
        return smoothed

    def to_dict(self) -> dict[str, Any]:
        """{"form": ..., "alpha": ...}, as stored in files; for "power" also "exponent"."""
        entry: dict[str, Any] = {"form": self.form, "alpha": self.alpha}
        return entry if self.exponent is None else {**entry, "exponent": self.exponent}

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> Smoothing:
        """The inverse of `to_dict`; an InputError names what is missing or wrong."""
        if not isinstance(entry, Mapping) or not {"form", "alpha"} <= set(entry):
            raise InputError(f"smoothing = {entry!r} lacks form or alpha; give both, as a JSON object.")
        return cls(form=entry["form"], alpha=entry["alpha"], exponent=entry.get("exponent"))


def _number(name: str, value: Any, wanted: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InputError(f"smoothing {name} = {value!r} is not a number; give {wanted}.")
    try:
        number = float(value)
    except OverflowError:  # a whole number of hundreds of digits
        number = math.inf
    if not math.isfinite(number):
        raise InputError(f"smoothing {name} = {number} is not finite; give {wanted}.")
    return number


PLAIN = Smoothing("sum", 1.0)
"""No smoothing: z' = z."""
