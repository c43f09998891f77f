"""Validation of trace arrays: first their forms (rank, shape, type), then their values.

Forms are checked separately, so that a file can be rejected by its headers before any of its data is read; values are checked
piece by piece, so that arrays may be larger than memory.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dynconf_core.errors import InputError
from dynconf_core.wording import an, counted

# Elements of one float64 piece: 16 MiB, which keeps the intermediate arrays of a score near the cache.
PIECE_ELEMENTS = 2**21
LARGEST = 1e99
"""The largest logit: gaps then stay below 1e100, the limit of fitted parameters, and squares of sums are finite."""


class TracesError(InputError):
    """Unusable traces: the message names the array, the place and the remedy."""


class Form(NamedTuple):
    """Shape and type of an array, whether it is in memory or declared by a file."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class _Kind(NamedTuple):
    axes: str
    types: str
    advice: str


_FLOATS = "float16, float32 or float64"
_LOGITS = _Kind("NC", "f", _FLOATS)
_COUNTS = _Kind("NT", "iuf", "integers or floats")
KINDS = {
    "logits": _Kind("NTC", "f", _FLOATS),
    "labels": _Kind("N", "iuf", "integers: class indices, such as int64"),
    "ann_logits": _LOGITS,
    "reference_logits": _LOGITS,
    "spikes": _COUNTS,
    "synaptic_operations": _COUNTS,
    "input_hash": _Kind("N", "u", "unsigned integers: the first 64 bits of a hash of each input, such as uint64"),
    "lengths": _Kind("N", "iu", "integers: the number of time steps of each sample, such as int64"),
}
"""Every array: its axes (samples N, time steps T, classes C) and the permitted element types."""
ONE_HOT = _Kind("NC", "biuf", "integers: class indices (N,), such as int64")
"""Labels may also be one-hot rows."""
TIME_STEPS_FIRST = (
    " If the time steps come first, as (T, N, C), give logits.transpose(1, 0, 2), or name the layout: --layout TNC on the "
    'command line, Traces.load(path, layout="TNC") in Python.'
)
_AXES = {"N": "samples", "T": "time steps", "C": "classes"}


def form_of(name: str, array: Any) -> Form:
    """The form of an array in memory.

    Raises:
        TracesError: for anything that is not a numpy array.
    """
    if not isinstance(array, np.ndarray):
        raise TracesError(f"{name} is {an(array)}; give a numpy array of shape {_shown(KINDS[name].axes)}.")
    return Form(array.shape, array.dtype)


def check_forms(forms: Mapping[str, Form]) -> None:
    """Raise `TracesError` unless the arrays, which must include `logits` and `labels`, have the right types and shapes."""
    for name, (shape, dtype) in forms.items():
        kind = _kind(name, shape)
        if len(shape) != len(kind.axes):
            axes = ", ".join(_AXES[axis] for axis in kind.axes)
            raise TracesError(f"{name} has the shape {shape}; it must be {_shown(kind.axes)}: {axes}.")
        if dtype.kind not in kind.types or (dtype.kind == "f" and dtype.itemsize > 8):
            remedy = f"; in Python {name}.astype(np.float32)" if kind.types == "f" and dtype.kind in "biuf" else ""
            raise TracesError(f"{name} has the type {dtype}; save it as {kind.advice}{remedy}.")
    shape = forms["logits"].shape
    samples, time_steps, classes = shape
    if samples == 0:
        raise TracesError(f"logits has the shape {shape}, without samples; give at least one.")
    if time_steps == 0:
        raise TracesError(f"logits has the shape {shape}, without time steps; give at least one.")
    if classes < 2:
        raise TracesError(f"logits has the shape {shape}; an exit needs at least two classes to choose from.")
    sizes = {"N": samples, "T": time_steps, "C": classes}
    for name, form in forms.items():
        axes = _kind(name, form.shape).axes
        needed = tuple(sizes[axis] for axis in axes)
        if form.shape != needed:
            if name == "labels" and form.shape == (samples, 1):
                raise TracesError(f"labels has the shape {form.shape}; give one class a sample, ({samples},): labels.ravel().")
            swapped = axes[0] == "N" and form.shape[0] == time_steps != samples
            held = f"{counted(samples, 'sample')}, {counted(time_steps, 'time step')} and {classes} classes"
            more = TIME_STEPS_FIRST if swapped else ""
            raise TracesError(
                f"{name} has the shape {form.shape}, but logits holds {held}; it must be {_shown(axes)} = {needed}.{more}"
            )


def _kind(name: str, shape: tuple[int, ...]) -> _Kind:
    return ONE_HOT if name == "labels" and len(shape) == 2 else KINDS[name]


def check_logits(logits: NDArray[Any]) -> None:
    """Raise `TracesError` for a logit (N, T, C) that is not finite, or larger than `LARGEST`."""

    def bad(part: NDArray[Any]) -> Any:
        return ~(np.abs(part) <= LARGEST) if part.dtype.itemsize == 8 else ~np.isfinite(part)

    found = _first(logits, bad)
    if found is None:
        return
    sample, step, column = found
    place = f"sample {sample} (from 0), time step {step + 1}, class {column}"
    if not np.isfinite(logits[found]):
        raise TracesError(f"logits of {place} is {logits[found]}; every logit must be finite.")
    sizes = (np.abs(logits[piece]) for piece in pieces(logits))
    largest = max(float(part.max(where=np.isfinite(part), initial=0.0)) for part in sizes)
    raise TracesError(
        f"logits reach {largest:.4g} (the first beyond {LARGEST:g}: {place}), too much for sums and squares: divide all "
        "logits, those of calibration and test, by one number; no prediction changes."
    )


def check_outputs(name: str, outputs: NDArray[Any]) -> None:
    """Raise `TracesError` for a network output (N, C) that is not finite."""
    found = _first(outputs, lambda part: ~np.isfinite(part))
    if found is not None:
        raise TracesError(
            f"{name} of sample {found[0]} (from 0), class {found[1]} is {outputs[found]}; every logit must be finite."
        )


def check_counts(name: str, counts: NDArray[Any]) -> None:
    """Raise `TracesError` for a count (N, T) that is negative or not finite."""
    found = _first(counts, lambda part: ~(np.isfinite(part) & (part >= 0)))
    if found is not None:
        raise TracesError(
            f"{name} of sample {found[0]} (from 0), time step {found[1] + 1} is {counts[found]}; "
            f"a count is finite and not negative (a negative spike counts 1)."
        )


def check_labels(labels: NDArray[Any], classes: int) -> None:
    """Raise `TracesError` for a label (N,) outside [0, classes)."""
    found = _first(labels, lambda part: (part < 0) | (part >= classes))
    if found is not None:
        raise TracesError(
            f"labels of sample {found[0]} (from 0) is {labels[found]}; with {classes} classes in logits "
            f"it must be from 0 to {classes - 1}."
        )


def check_lengths(lengths: NDArray[Any], time_steps: int) -> None:
    """Raise `TracesError` for a length (N,) outside [1, time_steps]."""
    found = _first(lengths, lambda part: (part < 1) | (part > time_steps))
    if found is not None:
        raise TracesError(
            f"lengths of sample {found[0]} (from 0) is {lengths[found]}; with {time_steps} time steps in logits it must be "
            f"from 1 to {time_steps}."
        )


def check_meta(meta: Any) -> None:
    """Raise `TracesError` unless `meta` is a dict whose `trained_on_calibration`, if present, is a boolean."""
    if not isinstance(meta, dict):
        raise TracesError(f"meta is {an(meta)}; give a dict (a JSON object).")
    seen = meta.get("trained_on_calibration")
    if not (seen is None or isinstance(seen, bool)):
        raise TracesError(f"meta's trained_on_calibration is {seen!r}; it must be true or false, or be left out.")


def pieces(array: NDArray[Any], elements: int | None = None) -> Iterator[slice]:
    """Slices along the first axis with about `elements` elements each (default: `PIECE_ELEMENTS`)."""
    per_sample = max(1, int(np.prod(array.shape[1:])))
    size = max(1, (elements or PIECE_ELEMENTS) // per_sample)
    for start in range(0, len(array), size):
        yield slice(start, start + size)


def _first(array: NDArray[Any], bad: Callable[[NDArray[Any]], NDArray[Any]]) -> tuple[int, ...] | None:
    """The index of the first element that is `bad`, or None."""
    for piece in pieces(array):
        found = bad(array[piece])
        if found.any():
            first, *others = np.unravel_index(int(found.argmax()), found.shape)
            return (piece.start + int(first), *(int(index) for index in others))
    return None


def _shown(axes: str) -> str:
    return f"({', '.join(axes)}{',' if len(axes) == 1 else ''})"
