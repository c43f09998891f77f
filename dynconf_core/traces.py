"""Traces: what an SNN put out at every time step for every sample, in a format any simulator can write.

Everything after the simulation (confidence, calibration, exit rules, bounds, evaluation) needs traces alone.
They lie in one `.npz` without pickled objects, or, where they are larger than memory, in a folder of `.npy`
files of the same names, which are then read piece by piece from the disk.

The accumulated output of Li, Jones and Furber (ICCV 2023) is z_t, the sum of the logits of the steps 1 to t,
here in float64; the prediction at step t is argmax z_t, the lowest index among equals.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dynconf_core.errors import InputError

REQUIRED = ("logits", "labels")
OPTIONAL = ("ann_logits", "spikes", "synaptic_operations", "meta")
# Elements of one float64 piece: 16 MiB, which keeps the intermediate arrays of a score near the cache.
PIECE_ELEMENTS = 2**21


class TracesError(InputError):
    """Traces that cannot be used: the message names the array, the place and the remedy."""


@dataclass(frozen=True, eq=False)
class Traces:
    """The outputs of N samples over T time steps and C classes; checked when made.

    Attributes:
        logits: (N, T, C) float16, float32 or float64: the output of step t, not the running sum.
        labels: (N,) integers in [0, C), kept as int64: the truth.
        ann_logits: (N, C), the output of the trained network, or None.
        spikes: (N, T), spikes emitted in step t by all layers (a negative spike counts 1), or None.
        synaptic_operations: (N, T), accumulations that the spikes of step t cause, or None.
        meta: facts of the SNN (source, network, neurons, layers, units, ...), a JSON object.

    Raises:
        TracesError: naming the array, and the sample (counted from 0) and time step (from 1) at fault.
    """

    logits: NDArray[np.floating[Any]]
    labels: NDArray[np.int64]
    ann_logits: NDArray[np.floating[Any]] | None = None
    spikes: NDArray[Any] | None = None
    synaptic_operations: NDArray[Any] | None = None
    meta: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_logits(self.logits)
        object.__setattr__(self, "labels", _checked_labels(self.labels, self.samples, self.classes))
        if self.ann_logits is not None:
            _check_ann_logits(self.ann_logits, (self.samples, self.classes))
        for name in ("spikes", "synaptic_operations"):
            counts = getattr(self, name)
            if counts is not None:
                _check_counts(name, counts, (self.samples, self.time_steps))
        if not isinstance(self.meta, dict):
            raise TracesError(f"meta is a {type(self.meta).__name__}; give a dict (a JSON object).")

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

    def accumulated(self) -> Iterator[tuple[slice, NDArray[np.float64]]]:
        """z_t of all samples in pieces that keep memory bounded: (samples, z (n, T, C) float64).

        Each piece is a fresh array, the caller's to overwrite.
        """
        for piece in _pieces(self.logits):
            yield piece, np.cumsum(self.logits[piece], axis=1, dtype=np.float64)

    def predictions(self) -> NDArray[np.int64]:
        """(N, T): argmax z_t at every step, the lowest index among equals."""
        found = np.empty((self.samples, self.time_steps), dtype=np.int64)
        for piece, accumulated in self.accumulated():
            found[piece] = accumulated.argmax(axis=2)
        return found

    def correct(self) -> NDArray[np.bool_]:
        """(N, T): whether the prediction at each step is the label."""
        return np.equal(self.predictions(), self.labels[:, None])

    def cut(self, time_steps: int) -> Traces:
        """The traces of the first `time_steps` steps (views, nothing is copied).

        Raises:
            TracesError: if `time_steps` is not within 1 and T.
        """
        if not 1 <= time_steps <= self.time_steps:
            raise TracesError(
                f"time_steps = {time_steps} cannot be cut from traces of {self.time_steps} time steps; "
                f"give a number from 1 to {self.time_steps}."
            )
        operations = self.synaptic_operations
        return replace(
            self,
            logits=self.logits[:, :time_steps],
            spikes=None if self.spikes is None else self.spikes[:, :time_steps],
            synaptic_operations=None if operations is None else operations[:, :time_steps],
        )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write to `path`: one file where it ends in `.npz`, else a folder of `.npy` files.

        Written beside and renamed, so that a half-written file never bears the name. A folder that holds
        anything is not overwritten.

        Returns:
            The path written.

        Raises:
            TracesError: for a `.npy` path, a folder in use, a meta that JSON cannot hold, a path not
            writable.
        """
        target = Path(path)
        if target.suffix == ".npy":
            raise TracesError(f"{target}: traces are several arrays; name a file ending in .npz or a folder.")
        arrays = {name: getattr(self, name) for name in (*REQUIRED, *OPTIONAL) if name != "meta"}
        kept = {name: np.asarray(array) for name, array in arrays.items() if array is not None}
        kept["meta"] = np.array(_meta_text(self.meta))
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.suffix == ".npz":
                _save_file(target, kept)
            else:
                _save_folder(target, kept)
        except OSError as error:
            raise TracesError(f"{target} cannot be written: {error.strerror or error}.") from error
        return target

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Traces:
        """Read a `.npz` file, or a folder of `.npy` files (mapped, not read into memory); unpickles nothing.

        Raises:
            TracesError: naming the file, for one that is missing, damaged, pickled or against the format.
        """
        source = Path(path)
        if not source.exists():
            raise TracesError(f"{source} does not exist; name a .npz file of traces or a folder of .npy files.")
        arrays = _read_folder(source) if source.is_dir() else _read_file(source)
        meta = _parsed_meta(arrays.pop("meta", None), source)
        try:
            return cls(**arrays, meta=meta)
        except TracesError as error:
            raise TracesError(f"{source}: {error}") from error


def _pieces(array: NDArray[Any]) -> Iterator[slice]:
    """Slices along the first axis of about `PIECE_ELEMENTS` elements each."""
    per_sample = max(1, int(np.prod(array.shape[1:])))
    size = max(1, PIECE_ELEMENTS // per_sample)
    for start in range(0, len(array), size):
        yield slice(start, start + size)


def _check_logits(logits: Any) -> None:
    if not isinstance(logits, np.ndarray):
        raise TracesError(f"logits is a {type(logits).__name__}; give a numpy array of shape (N, T, C).")
    if logits.ndim != 3:
        raise TracesError(f"logits has the shape {logits.shape}; it must be (N, T, C): samples, time steps, classes.")
    if logits.dtype.kind != "f" or logits.dtype.itemsize not in (2, 4, 8):
        raise TracesError(f"logits has the type {logits.dtype}; save it as float16, float32 or float64.")
    samples, time_steps, classes = logits.shape
    if samples == 0:
        raise TracesError(f"logits has the shape {logits.shape}, no sample; give at least one.")
    if time_steps == 0:
        raise TracesError(f"logits has the shape {logits.shape}, no time step; give at least one.")
    if classes < 2:
        raise TracesError(f"logits has the shape {logits.shape}; an exit needs at least two classes to choose.")
    # The running sum must stay finite too: only float64 logits can overflow it.
    largest = np.finfo(np.float64).max / (4 * time_steps)
    for piece in _pieces(logits):
        part = logits[piece]
        bad = ~np.isfinite(part) if part.dtype.itemsize < 8 else ~(np.abs(part) <= largest)
        if bad.any():
            sample, step, column = (int(index) for index in np.argwhere(bad)[0])
            raise TracesError(
                f"logits of sample {piece.start + sample} (from 0), time step {step + 1}, class {column} "
                f"is {part[sample, step, column]}; every logit must be finite and its running sum too."
            )


def _checked_labels(labels: Any, samples: int, classes: int) -> NDArray[np.int64]:
    if not isinstance(labels, np.ndarray):
        raise TracesError(f"labels is a {type(labels).__name__}; give a numpy array of {samples} integers.")
    if labels.shape != (samples,):
        raise TracesError(f"labels has the shape {labels.shape}, but logits holds {samples} samples; it must be ({samples},).")
    if labels.dtype.kind not in "iu":
        raise TracesError(f"labels has the type {labels.dtype}; save class indices as integers, such as int64.")
    bad = (labels < 0) | (labels >= classes)
    if bad.any():
        sample = int(np.argmax(bad))
        raise TracesError(
            f"labels of sample {sample} (from 0) is {labels[sample]}; with {classes} classes in logits "
            f"it must be from 0 to {classes - 1}."
        )
    return labels.astype(np.int64, copy=False)


def _check_ann_logits(ann_logits: Any, shape: tuple[int, int]) -> None:
    if not isinstance(ann_logits, np.ndarray) or ann_logits.shape != shape:
        found = getattr(ann_logits, "shape", type(ann_logits).__name__)
        raise TracesError(f"ann_logits has the shape {found}; by logits it must be (N, C) = {shape}.")
    if ann_logits.dtype.kind != "f":
        raise TracesError(f"ann_logits has the type {ann_logits.dtype}; save it as float16, float32 or float64.")
    bad = ~np.isfinite(ann_logits)
    if bad.any():
        sample, column = (int(index) for index in np.argwhere(bad)[0])
        raise TracesError(
            f"ann_logits of sample {sample} (from 0), class {column} is {ann_logits[sample, column]}; "
            f"every logit must be finite."
        )


def _check_counts(name: str, counts: Any, shape: tuple[int, int]) -> None:
    if not isinstance(counts, np.ndarray) or counts.shape != shape:
        found = getattr(counts, "shape", type(counts).__name__)
        raise TracesError(f"{name} has the shape {found}; by logits it must be (N, T) = {shape}.")
    if counts.dtype.kind not in "iuf":
        raise TracesError(f"{name} has the type {counts.dtype}; save it as integers or floats.")
    bad = ~(np.isfinite(counts) & (counts >= 0))
    if bad.any():
        sample, step = (int(index) for index in np.argwhere(bad)[0])
        raise TracesError(
            f"{name} of sample {sample} (from 0), time step {step + 1} is {counts[sample, step]}; "
            f"a count is finite and not negative (a negative spike counts 1)."
        )


def _meta_text(meta: Mapping[str, Any]) -> str:
    try:
        return json.dumps(meta, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise TracesError(f"meta cannot be written as JSON: {error}.") from error


def _parsed_meta(array: NDArray[Any] | None, source: Path) -> dict[str, Any]:
    """The JSON object of the `meta` array (one piece of text); {} where there is none."""
    if array is None:
        return {}
    try:
        text = array.item()
        meta = json.loads(text)
    except (ValueError, TypeError) as error:
        raise TracesError(f"{source}: meta must be one piece of JSON text: {error}.") from error
    if not isinstance(meta, dict):
        raise TracesError(f"{source}: meta holds a JSON {type(meta).__name__}; it must be an object.")
    return meta


def _save_file(target: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    temporary = _beside(target)
    try:
        with open(temporary, "xb") as stream:
            np.savez(stream, allow_pickle=False, **arrays)
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _save_folder(target: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise TracesError(f"{target} exists and holds something; name a new folder or a file ending in .npz.")
    temporary = _beside(target)
    try:
        temporary.mkdir()
        for name, array in arrays.items():
            np.save(temporary / f"{name}.npy", array, allow_pickle=False)
        os.replace(temporary, target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _beside(target: Path) -> Path:
    """A new name in the same folder, hence on the same file system, to be renamed to `target`."""
    return target.with_name(f".{target.name}.{secrets.token_hex(6)}.tmp")


def _read_folder(source: Path) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {}
    for name in (*REQUIRED, *OPTIONAL):
        file = source / f"{name}.npy"
        if file.is_file():
            arrays[name] = _read_array(file)
        elif name in REQUIRED:
            present = ", ".join(sorted(entry.name for entry in source.iterdir())[:8]) or "nothing"
            raise TracesError(f"{source} holds no {name}.npy (it holds {present}); traces need {name}.")
    return arrays


def _read_array(file: Path) -> NDArray[Any]:
    try:
        # Text cannot be mapped where it is empty, and meta is small anyway.
        array = np.load(file, mmap_mode=None if file.stem == "meta" else "r", allow_pickle=False)
    except (OSError, ValueError, EOFError, MemoryError) as error:
        raise TracesError(_unreadable(file, error)) from error
    if not isinstance(array, np.ndarray):
        raise TracesError(f"{file} is an archive, not an array; save it by numpy.save.")
    return array


def _read_file(source: Path) -> dict[str, NDArray[Any]]:
    try:
        with open(source, "rb") as stream:
            begin = stream.read(6)
            if begin == b"\x93NUMPY":
                raise TracesError(f"{source} is one array, not an archive; save logits and labels by numpy.savez.")
            # Only a zip archive goes on to numpy, which takes anything else for a pickle.
            if not begin.startswith(b"PK"):
                raise TracesError(f"{source} is no .npz archive; it is damaged, or something else was named.")
            stream.seek(0)
            with np.load(stream, allow_pickle=False) as archive:
                for name in REQUIRED:
                    if name not in archive.files:
                        present = ", ".join(archive.files[:8]) or "nothing"
                        raise TracesError(f"{source} holds no array {name} (it holds {present}); traces need it.")
                return {name: archive[name] for name in (*REQUIRED, *OPTIONAL) if name in archive.files}
    except TracesError:
        raise
    except (OSError, ValueError, EOFError, KeyError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        raise TracesError(_unreadable(source, error)) from error


def _unreadable(file: Path, error: BaseException) -> str:
    if any(word in str(error) for word in ("pickle", "Pickle", "Python objects")):
        return f"{file} holds pickled objects, which are never loaded; save plain numeric arrays."
    if isinstance(error, MemoryError):
        return f"{file} does not fit into memory; save the arrays as a folder of .npy files."
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"{file} cannot be read as traces ({str(reason).rstrip('.')}); it is damaged, truncated or no .npz."
