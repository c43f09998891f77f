"""Traces: the output of an SNN at every time step for every sample, in a format that any simulator can write.

Everything after the simulation (confidence, calibration, exit rules, oracles, evaluation) reads only traces. They are stored in
one `.npz` file without pickled objects or, if they are larger than memory, in a folder of `.npy` files of the same names, read
piece by piece (`dynconf_core.traces.files`). Their arrays are specified in `dynconf_core.traces.checks`.

The accumulated output of Li, Jones and Furber (ICCV 2023) is z_t, the sum of the logits of steps 1 to t, computed here in
float64; the prediction at step t is argmax z_t, the lowest index among equals.

Samples may end before T (`lengths`). What is recorded after a sample's end counts as 0, so that z_t and the prediction stay
what they are at its end, and it exits there at the latest (`dynconf_core.exit.rule.exit_steps`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from dynconf_core.arguments import file_path, flag, tensor, whole
from dynconf_core.files import NotWritten
from dynconf_core.strict_json import parsed
from dynconf_core.traces.checks import (
    KINDS,
    PIECE_ELEMENTS,
    check_counts,
    check_forms,
    check_labels,
    check_lengths,
    check_logits,
    check_meta,
    check_outputs,
    form_of,
    pieces,
)
from dynconf_core.traces.checks import TracesError as TracesError
from dynconf_core.traces.files import META, read_archive, read_folder, save_archive, save_folder
from dynconf_core.traces.foreign import HOUSE, check_layout, class_indices, in_house_layout, of_each_step
from dynconf_core.wording import counted

EVERY = slice(None)


@dataclass(frozen=True, eq=False)
class Traces:
    """The outputs of N samples over T time steps and C classes, validated on construction.

    Attributes:
        logits: (N, T, C) float16, float32 or float64: the output of step t, not the running sum.
        labels: (N,) integers in [0, C), stored as int64: the true classes; given as one-hot rows (N, C) or as whole floats,
            they are converted.
        ann_logits: (N, C), the output of the trained network, or None.
        reference_logits: (N, C), the output of the network with rounded weights to which the SNN is equal, or None.
        spikes: (N, T), spikes emitted by all layers in step t (a negative spike counts 1), or None.
        synaptic_operations: (N, T), accumulations caused by the spikes of step t, or None.
        input_hash: (N,) unsigned integers, a hash of each input, or None: equal inputs have equal hashes.
        lengths: (N,) integers from 1 to T, stored as int64: the time steps after which each sample ends; None: all end at T.
        meta: facts about the SNN (source, network, neurons, layers, units, ...), a JSON object. Its `trained_on_calibration`
            (true or false) says whether the network was trained on the calibration images.

    Raises:
        TracesError: naming the array, and the sample (counted from 0) and time step (from 1) at fault.
    """

    logits: NDArray[np.floating[Any]]
    labels: NDArray[np.int64]
    ann_logits: NDArray[np.floating[Any]] | None = None
    spikes: NDArray[Any] | None = None
    synaptic_operations: NDArray[Any] | None = None
    meta: dict[str, Any] = field(default_factory=dict)
    reference_logits: NDArray[np.floating[Any]] | None = None
    input_hash: NDArray[np.unsignedinteger[Any]] | None = None
    lengths: NDArray[np.int64] | None = None

    by_sample: ClassVar[tuple[str, ...]] = tuple(KINDS)
    """The fields with one row a sample."""

    def __post_init__(self) -> None:
        for name in KINDS:
            if hasattr(given := getattr(self, name), "detach"):  # a tensor, on any device
                dense = tensor(name, given, "give dense numbers")
                object.__setattr__(self, name, dense.detach().cpu().numpy())
        arrays = self._arrays()
        check_forms({name: form_of(name, array) for name, array in arrays.items()})
        check_logits(self.logits)
        object.__setattr__(self, "labels", class_indices(self.labels, self.classes))
        check_labels(self.labels, self.classes)
        object.__setattr__(self, "labels", self.labels.astype(np.int64, copy=False))
        if self.lengths is not None:
            check_lengths(self.lengths, self.time_steps)
            object.__setattr__(self, "lengths", self.lengths.astype(np.int64, copy=False))
        for name in ("ann_logits", "reference_logits"):
            if name in arrays:
                check_outputs(name, arrays[name])
        for name in ("spikes", "synaptic_operations"):
            if name in arrays:
                check_counts(name, arrays[name])
        check_meta(self.meta)

    @property
    def samples(self) -> int:
        """N, the number of samples."""
        return int(self.logits.shape[0])

    @property
    def time_steps(self) -> int:
        """T, the number of time steps."""
        return int(self.logits.shape[1])

    @property
    def classes(self) -> int:
        """C, the number of classes."""
        return int(self.logits.shape[2])

    @property
    def ends(self) -> NDArray[np.int64]:
        """(N,): the last step of each sample, its length or T."""
        return np.full(self.samples, self.time_steps) if self.lengths is None else self.lengths

    @property
    def mean_length(self) -> float | None:
        """The mean number of time steps of a sample; None: all have T."""
        return None if self.lengths is None else float(self.lengths.mean())

    def steps_at_t(self) -> tuple[float, ...] | None:
        """(T,): the mean number of steps that the samples have had by step t; None: t."""
        if self.lengths is None:
            return None
        return tuple(float(np.minimum(self.lengths, step).mean()) for step in range(1, self.time_steps + 1))

    @property
    def trained_on_calibration(self) -> bool | None:
        """Whether the network was trained on the calibration images; None if the meta does not say."""
        seen: bool | None = self.meta.get("trained_on_calibration")
        return seen

    def accumulated(self) -> Iterator[tuple[slice, NDArray[np.float64]]]:
        """z_t of all samples, in pieces that bound the memory used: (slice of samples, z (n, T, C) float64).

        Each piece is a new array, which the caller may overwrite.
        """
        for piece in pieces(self.logits, PIECE_ELEMENTS):
            if self.lengths is None:
                yield piece, np.cumsum(self.logits[piece], axis=1, dtype=np.float64)
            else:
                outputs = self.until_end(self.logits, piece)
                yield piece, np.cumsum(outputs, axis=1, out=outputs)

    def until_end(self, array: NDArray[Any], rows: slice | NDArray[np.int64] = EVERY) -> NDArray[np.float64]:
        """Some rows of an array (N, T, ...) of these samples as a new float64 array, with 0 after each sample's end."""
        values = array[rows].astype(np.float64)
        if self.lengths is not None:
            values[np.arange(self.time_steps) >= self.lengths[rows, None]] = 0.0
        return values

    def outputs(self, rows: slice | NDArray[np.int64] = EVERY) -> NDArray[np.float64]:
        """The output (n, T, C) of each step for some samples, float64, with 0 after each sample's end."""
        return self.until_end(self.logits, rows)

    def predictions(self) -> NDArray[np.int64]:
        """(N, T): argmax z_t at every step, the lowest index among equals."""
        found = np.empty((self.samples, self.time_steps), dtype=np.int64)
        for piece, accumulated in self.accumulated():
            found[piece] = accumulated.argmax(axis=2)
        return found

    def correct(self) -> NDArray[np.bool_]:
        """(N, T): whether the prediction at each step is the label."""
        right = np.empty((self.samples, self.time_steps), dtype=np.bool_)
        for piece, accumulated in self.accumulated():
            np.equal(accumulated.argmax(axis=2), self.labels[piece, None], out=right[piece])
        return right

    def cut(self, time_steps: int) -> Traces:
        """The traces of the first `time_steps` steps (views; nothing is copied).

        Raises:
            TracesError: if `time_steps` is not between 1 and T.
        """
        if not 1 <= (time_steps := whole("time_steps", time_steps)) <= self.time_steps:
            raise TracesError(
                f"time_steps = {time_steps} cannot be cut from traces of {counted(self.time_steps, 'time step')}; "
                f"give a number from 1 to {self.time_steps}."
            )
        operations = self.synaptic_operations
        return replace(
            self,
            logits=self.logits[:, :time_steps],
            spikes=None if self.spikes is None else self.spikes[:, :time_steps],
            synaptic_operations=None if operations is None else operations[:, :time_steps],
            lengths=None if self.lengths is None else np.minimum(self.lengths, time_steps),
        )

    def save(self, path: str | os.PathLike[str], compressed: bool = False) -> Path:
        """Write to `path`: one file if it ends in `.npz` (optionally `compressed`), otherwise a folder of `.npy` files.

        The data is written under a temporary name and renamed, so that an incomplete file never has the final name. A folder
        that is not empty is not overwritten.

        Returns:
            The path written.

        Raises:
            TracesError: for a `.npy` path, a folder that is not empty, a meta that JSON cannot hold, or a path that cannot be
                written.
            NotWritten: if the disk is full or fails.
        """
        target, compressed = file_path("path", path), flag("compressed", compressed)
        if target.suffix == ".npy":
            raise TracesError(f"{target}: traces are several arrays; name a file ending in .npz or a folder.")
        kept = {**self._arrays(), META: np.array(_meta_text(self.meta))}
        try:
            if target.suffix == ".npz":
                save_archive(target, kept, compressed)
            else:
                save_folder(target, kept)
        except NotWritten as error:
            if error.of_the_disk:
                raise
            raise TracesError(str(error)) from error
        return target

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, layout: str = HOUSE, accumulated: bool = False) -> Traces:
        """Read a `.npz` file, or a folder of `.npy` files (memory-mapped); nothing is unpickled.

        Args:
            path: the file or folder.
            layout: "NTC", or "TNC" if the time steps come first in the arrays that have them: logits (T, N, C), spikes (T, N).
            accumulated: whether `logits` are running sums; their differences are then taken, in memory.

        Raises:
            TracesError: naming the file, if it is missing, damaged, pickled, against the format or (an archive) larger than
                memory.
            InputError: for an unknown layout.
        """
        check_layout(layout)
        source, accumulated = file_path("path", path), flag("accumulated", accumulated)
        if not source.exists():
            raise TracesError(f"{source} does not exist; name a .npz file of traces or a folder of .npy files.")
        if not (source.is_file() or source.is_dir()):
            raise TracesError(f"{source} is neither a file nor a folder; name a .npz file or a folder of .npy files.")
        arrays = read_folder(source, layout) if source.is_dir() else read_archive(source, layout)
        meta = _parsed_meta(arrays.pop(META, None), source)
        arrays = in_house_layout(arrays, layout)
        if accumulated:
            arrays["logits"] = of_each_step(arrays["logits"])
        try:
            return cls(**arrays, meta=meta)
        except TracesError as error:
            raise TracesError(f"{source}: {error}") from error

    def _arrays(self) -> dict[str, Any]:
        """The arrays that are present, by name."""
        named = {name: getattr(self, name) for name in KINDS}
        return {name: array for name, array in named.items() if array is not None or name in ("logits", "labels")}


def _meta_text(meta: Mapping[str, Any]) -> str:
    try:
        return json.dumps(meta, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise TracesError(f"meta cannot be written as JSON: {error}.") from error


def _parsed_meta(array: NDArray[Any] | None, source: Path) -> dict[str, Any]:
    """The JSON object in the `meta` array (a single text); {} if there is none."""
    if array is None:
        return {}
    try:
        meta = parsed(array.item(), f"{source}: meta")
    except (ValueError, TypeError, SystemError) as error:  # the last for what is no character
        raise TracesError(f"{source}: meta must be one piece of JSON text: {str(error).rstrip('.')}.") from error
    if not isinstance(meta, dict):
        raise TracesError(f"{source}: meta holds a JSON {type(meta).__name__}; it must be an object.")
    return meta
