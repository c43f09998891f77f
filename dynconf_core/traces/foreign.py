"""Arrays as other simulators hand them over: time steps first, running sums, labels as one-hot rows or floats."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dynconf_core.arguments import one_of
from dynconf_core.traces.checks import KINDS, Form, TracesError, pieces

LAYOUTS = ("NTC", "TNC")
"""Orders of the axes of logits: samples first, as traces have them, or time steps first."""
HOUSE, TIME_FIRST = LAYOUTS
_log = logging.getLogger(__name__)


def check_layout(layout: str) -> None:
    """Raise `InputError` for an unknown layout."""
    one_of("layout", layout, LAYOUTS)


def house_forms(forms: Mapping[str, Form], layout: str) -> dict[str, Form]:
    """The forms that arrays of this layout have as traces."""
    return {
        name: Form((form.shape[1], form.shape[0], *form.shape[2:]), form.dtype) if _swapped(name, form.shape, layout) else form
        for name, form in forms.items()
    }


def in_house_layout(arrays: Mapping[str, NDArray[Any]], layout: str) -> dict[str, NDArray[Any]]:
    """The arrays as traces have them; views, nothing is copied."""
    return {name: array.swapaxes(0, 1) if _swapped(name, array.shape, layout) else array for name, array in arrays.items()}


def _swapped(name: str, shape: tuple[int, ...], layout: str) -> bool:
    """Whether the first two axes of an array change places: those of logits and of counts for each time step."""
    return layout == TIME_FIRST and KINDS[name].axes.startswith("NT") and len(shape) > 1


def of_each_step(running: NDArray[Any]) -> NDArray[np.float64]:
    """The outputs (N, T, C) of each step alone, float64, for running sums of the same shape."""
    return np.diff(running.astype(np.float64), axis=1, prepend=0.0)


def class_indices(labels: NDArray[Any], classes: int) -> NDArray[Any]:
    """Labels (N,) as class indices: those of one-hot rows (N, C), and whole numbers of a floating type, as integers.

    Raises:
        TracesError: for rows that are not one-hot, and for floats that are not whole.
    """
    if labels.ndim == 2:
        for piece in pieces(labels):
            rows = labels[piece]
            wrong = ~(((rows == 0) | (rows == 1)).all(axis=1) & (rows.sum(axis=1) == 1))
            if wrong.any():
                sample = int(wrong.argmax())
                raise TracesError(
                    f"labels of sample {piece.start + sample} (from 0) are {rows[sample].tolist()}, not one-hot; save class "
                    "indices (N,), such as labels.argmax(1)."
                )
        _log.warning("labels (%d, %d) are one-hot: read as class indices, labels.argmax(1).", *labels.shape)
        found: NDArray[np.int64] = labels.argmax(axis=1)
        return found
    if labels.dtype.kind != "f":
        return labels
    wrong = ~(np.abs(labels) < 2**53) | (labels != np.round(labels))
    if wrong.any():
        sample = int(wrong.argmax())
        raise TracesError(
            f"labels of sample {sample} (from 0) is {labels[sample]}; a class index is a whole number from 0 to {classes - 1}."
        )
    return labels.astype(np.int64)
