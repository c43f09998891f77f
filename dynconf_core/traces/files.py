"""Arrays of traces on disk: a `.npz` archive, or a folder of `.npy` files that are memory-mapped.

Nothing is unpickled and no header is trusted: before any data of an array is read or decompressed, its header must declare a
form that traces allow, the declared size must match the size in the file, and all arrays together must fit into memory.
"""

import os
import zipfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from dynconf_core.files import written, written_folder
from dynconf_core.traces.checks import KINDS, Form, TracesError, check_forms
from dynconf_core.traces.foreign import HOUSE, house_forms

META = "meta"
LARGEST_META = 64 * 2**20  # bytes
# Deflate expands one byte to at most 1032.
LARGEST_RATIO = 1032
# Version 3 differs only in the encoding of field names, and arrays of traces have no fields.
_HEADERS = {b"\1\0": npy.read_array_header_1_0, b"\2\0": npy.read_array_header_2_0, b"\3\0": npy.read_array_header_2_0}


class _Header(NamedTuple):
    form: Form
    length: int  # bytes before the first element

    @property
    def data(self) -> int:
        """Size of all elements in bytes (computed with Python integers, which do not overflow)."""
        size = self.form.dtype.itemsize
        for side in self.form.shape:
            size *= side
        return size


def read_archive(source: Path, layout: str = HOUSE) -> dict[str, NDArray[Any]]:
    """The arrays of a `.npz` file, read into memory, in the layout that they have there.

    Raises:
        TracesError: if something is missing, damaged, pickled, larger than memory or of a wrong form.
    """
    with _readable(source), open(source, "rb") as stream:
        begin = stream.read(6)
        if begin == npy.MAGIC_PREFIX:
            raise TracesError(f"{source} is one array, not an archive; save logits and labels with numpy.savez.")
        if not begin.startswith(b"PK"):
            raise TracesError(f"{source} is not a .npz archive; it is damaged, or the wrong file was named.")
        with zipfile.ZipFile(stream) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            if len(members) != len(archive.infolist()):
                raise TracesError(f"{source} holds two arrays of the same name; save every array once.")
            _check_present(source, members)
            kept = {name: members[name] for name in (*KINDS, META) if name in members}
            size = os.fstat(stream.fileno()).st_size
            headers: dict[str, _Header] = {}
            for name, info in kept.items():
                place = f"{source}: {name}"
                _check_member(place, info, size)
                with archive.open(info) as member:
                    headers[name] = _header(place, member)
                _check_size(place, headers[name], info.file_size)
            _check_forms(source, headers, layout)
            _check_memory(source, sum(header.data for header in headers.values()))
            return {name: _inflated(archive, info) for name, info in kept.items()}


def read_folder(source: Path, layout: str = HOUSE) -> dict[str, NDArray[Any]]:
    """The arrays of a folder of `.npy` files, memory-mapped except for the meta, in the layout that they have there.

    Raises:
        TracesError: if something is missing, damaged, pickled or of a wrong form.
    """
    with _readable(source):
        present = {entry.name: entry for entry in sorted(source.iterdir()) if entry.is_file()}
    _check_present(source, present, ".npy")
    found = {name: present[f"{name}.npy"] for name in (*KINDS, META) if f"{name}.npy" in present}
    headers: dict[str, _Header] = {}
    for name, file in found.items():
        with _readable(file), open(file, "rb") as stream:
            headers[name] = _header(str(file), stream)
            _check_size(str(file), headers[name], os.fstat(stream.fileno()).st_size)
    _check_forms(source, headers, layout)
    arrays: dict[str, NDArray[Any]] = {}
    for name, file in found.items():
        with _readable(file):
            # Empty text cannot be mapped, and meta is small anyway.
            arrays[name] = np.load(file, mmap_mode=None if name == META else "r", allow_pickle=False)
    return arrays


def save_archive(target: Path, arrays: Mapping[str, NDArray[Any]], compressed: bool = False) -> None:
    """Write a `.npz` file, whole or not at all."""
    with written(target) as stream:
        (np.savez_compressed if compressed else np.savez)(stream, allow_pickle=False, **arrays)


def save_folder(target: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write a folder of `.npy` files, whole or not at all.

    Raises:
        TracesError: if `target` exists and is not an empty folder.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise TracesError(f"{target} exists and is not empty; name a new folder or a file ending in .npz.")
    with written_folder(target) as folder:
        for name, array in arrays.items():
            np.save(folder / f"{name}.npy", array, allow_pickle=False)


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    """Turn every exception that a damaged file can cause in its readers into one TracesError."""
    try:
        yield
    except TracesError:
        raise
    # zipfile, zlib and numpy's header parser raise almost anything: BadZipFile, EOFError, NotImplementedError, TokenError, ...
    except Exception as error:
        if isinstance(error, MemoryError):
            raise TracesError(f"{file} does not fit into memory; save the arrays as a folder of .npy files.") from error
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise TracesError(
            f"{file} cannot be read as traces ({str(reason).rstrip('.')[:200]}); it is damaged, truncated or not a .npz file."
        ) from error


def _check_present(source: Path, names: Collection[str], ending: str = "") -> None:
    for needed in ("logits", "labels"):
        if needed + ending not in names:
            shown = ", ".join(list(names)[:8]) or "nothing"
            raise TracesError(f"{source} holds no array {needed}{ending} (it holds {shown}); traces need {needed}.")


def _header(place: str, stream: IO[bytes]) -> _Header:
    """The header at the start of an array's data; its text is parsed as literals, never executed."""
    if stream.read(len(npy.MAGIC_PREFIX)) != npy.MAGIC_PREFIX:
        raise TracesError(f"{place} is not a numpy array; save it with numpy.save or numpy.savez.")
    version = stream.read(2)
    read = _HEADERS.get(version)
    if read is None:
        raise TracesError(f"{place} is an array in an unknown version of numpy's format; save it with numpy.save.")
    shape, _, dtype = read(stream)
    if dtype.hasobject:
        raise TracesError(f"{place} holds pickled objects, which are never loaded; save plain numeric arrays.")
    if any(side < 0 for side in shape):
        raise TracesError(f"{place} declares the shape {shape}; it is damaged.")
    return _Header(Form(tuple(shape), dtype), stream.tell())


def _check_member(place: str, info: zipfile.ZipInfo, archive_size: int) -> None:
    """Check that the sizes an archive member declares are possible."""
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or info.flag_bits & 1:
        raise TracesError(f"{place} is encrypted or compressed in a way that numpy does not write; save it with numpy.savez.")
    ratio = 1 if info.compress_type == zipfile.ZIP_STORED else LARGEST_RATIO
    if info.compress_size > archive_size or info.file_size > ratio * info.compress_size:
        there = min(info.compress_size, archive_size)
        raise TracesError(
            f"{place} declares {info.file_size} bytes, too many for its {there} compressed bytes; it is damaged or truncated."
        )


def _check_size(place: str, header: _Header, total: int) -> None:
    if header.length + header.data != total:
        raise TracesError(
            f"{place} declares the shape {header.form.shape} of {header.form.dtype}, {header.data} bytes, but has "
            f"{total - header.length} bytes for it; it is damaged or truncated."
        )


def _check_forms(source: Path, headers: Mapping[str, _Header], layout: str) -> None:
    meta = headers.get(META)
    if meta is not None and (meta.form.dtype.kind not in "US" or meta.data > LARGEST_META):
        raise TracesError(f"{source}: meta must be one piece of JSON text, not {meta.data} bytes of {meta.form.dtype}.")
    try:
        check_forms(house_forms({name: header.form for name, header in headers.items() if name != META}, layout))
    except TracesError as error:
        raise TracesError(f"{source}: {error}") from error


def _check_memory(source: Path, needed: int) -> None:
    free = free_memory()
    if free is not None and needed > free:
        raise TracesError(
            f"{source} holds {needed / 1e9:.3g} GB of arrays, more than the {free / 1e9:.3g} GB of free memory; "
            "save them as a folder of .npy files, which is read piece by piece."
        )


def free_memory() -> int | None:
    """Bytes that a process may still allocate, according to the system and its control group; None if the system does not
    say."""
    limits: list[int] = []
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            limits += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")]
    except (OSError, ValueError):
        pass
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            limits.append(int(Path(file).read_text()))
        except (OSError, ValueError):  # "max" where there is no limit
            continue
    return min(limits, default=None)


def _inflated(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> NDArray[Any]:
    with archive.open(info) as member:
        array: NDArray[Any] = npy.read_array(member, allow_pickle=False)
        member.read(1)  # the checksum is compared at the end
    return array
