"""Confidence smoothing: how accumulated logits become the z' that a score reads.

Li, Jones and Furber (ICCV 2023) divide the accumulated logits by a constant alpha (30 in their demo) before
the softmax: z'_t = z_t / alpha, the form `sum`. The form `mean` divides by t as well, z'_t = z_t / (t alpha),
so that early steps are as sharp as late ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from dynconf_core.errors import InputError

Form = Literal["sum", "mean"]
FORMS: tuple[Form, ...] = get_args(Form)


@dataclass(frozen=True)
class Smoothing:
    """One way to smooth: `form` is "sum" or "mean", `alpha` > 0 the temperature (in units of the logits).

    Raises:
        InputError: for another form, or an alpha that is not a finite number above 0.
    """

    form: Form
    alpha: float

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise InputError(f"smoothing form {self.form!r} is not known; give one of {', '.join(FORMS)}.")
        if isinstance(self.alpha, bool) or not isinstance(self.alpha, (int, float)):
            raise InputError(f"smoothing alpha = {self.alpha!r} is not a number; give one above 0.")
        if not (math.isfinite(self.alpha) and self.alpha > 0):
            raise InputError(f"smoothing alpha = {self.alpha} cannot divide logits; give a finite number above 0.")
        object.__setattr__(self, "alpha", float(self.alpha))

    def apply(self, accumulated: NDArray[np.float64]) -> NDArray[np.float64]:
        """z' (n, T, C) of the accumulated logits z (n, T, C) of the steps 1 to T, float64."""
        if self.form == "sum":
            return accumulated / self.alpha
        steps = np.arange(1, accumulated.shape[1] + 1, dtype=np.float64)
        return accumulated / (steps * self.alpha)[:, None]

    def to_dict(self) -> dict[str, Any]:
        """{"form": ..., "alpha": ...}, as files hold it."""
        return {"form": self.form, "alpha": self.alpha}

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> Smoothing:
        """The reverse of `to_dict`; an InputError names what is missing or wrong."""
        if not isinstance(entry, Mapping) or not {"form", "alpha"} <= set(entry):
            raise InputError(f"smoothing = {entry!r} lacks form or alpha; give both, as a JSON object.")
        return cls(form=entry["form"], alpha=entry["alpha"])
