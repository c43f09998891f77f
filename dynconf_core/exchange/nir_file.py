"""Reading and writing NIR files, which are HDF5."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dynconf_core.arguments import file_path, instance
from dynconf_core.errors import InputError
from dynconf_core.files import written
from dynconf_core.libraries import nir as library

if TYPE_CHECKING:
    import nir

DEEPEST = 16
"""Groups within each other."""
MOST = 1_000_000
"""Groups and arrays in a file."""
SPARE, GROWTH = 2**30, 20
"""Bytes that the arrays of a file may take in memory: SPARE, and GROWTH times the size of the file. A constant array, one
threshold a neuron, is written a thousand times smaller."""


def write_nir(graph: nir.NIRGraph, path: str | os.PathLike[str]) -> None:
    """Write a graph to a file, whole or not at all.

    Raises:
        InputError: for what is no graph of NIR, or no path.
    """
    package, target = library(), file_path("path", path)
    instance("graph", graph, package.NIRGraph, "give what to_nir(snn) returns")
    content = io.BytesIO()
    package.write(content, graph)
    with written(target) as stream:
        stream.write(content.getbuffer())


def read_nir(path: str | os.PathLike[str]) -> nir.NIRGraph:
    """Read a graph from a file, which may come from a stranger.

    Links, data outside the file, and arrays that are much larger than it are refused. Shapes are checked by ``from_nir``.

    Raises:
        InputError: if the file is missing, damaged, no NIR, or would fill the memory.
    """
    package, path = library(), file_path("path", path)
    import h5py

    if not path.is_file():
        raise InputError(f"{path} is not a file: name one written by `nir.write`, or by `dynconf export-nir`.")
    try:
        with h5py.File(path, "r") as file:
            _check(file, path)
        graph = package.read(path, type_check=False)  # its own check refuses groups and oblong kernels
    except InputError:
        raise
    except Exception as error:  # h5py and nir raise nearly anything for a file of another form
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path} cannot be read as NIR ({reason[:200]}): name a file written by `nir.write`.") from error
    if not isinstance(graph, package.NIRGraph):
        raise InputError(f"{path} holds a single {type(graph).__name__} node, not a graph: write a nir.NIRGraph.")
    return graph


def _check(file: Any, path: Path) -> None:
    """Raise ``InputError`` for a file that reaches outside itself or grows in memory."""
    total, limit = 0, SPARE + GROWTH * path.stat().st_size
    for count, (name, array) in enumerate(_arrays(file, path, ""), start=1):
        if array.external or array.is_virtual:
            raise InputError(f"{path}: {name} keeps its data in another file: write the network into one file.")
        total += math.prod(array.shape or ()) * array.dtype.itemsize
        if total > limit or count > MOST:
            raise InputError(f"{path}: its arrays take more than {limit} bytes, far more than the file: it is damaged.")


def _arrays(group: Any, path: Path, name: str, depth: int = 0) -> Iterator[tuple[str, Any]]:
    """The arrays of a group and of those in it."""
    import h5py

    if depth > DEEPEST:
        raise InputError(f"{path}: {name[:80]} lies more than {DEEPEST} groups deep: it is damaged.")
    for key in group:
        inner = f"{name}/{key}"
        if not isinstance(group.get(key, getlink=True), h5py.HardLink):
            raise InputError(f"{path}: {inner[:80]} is a link: write the network into one file, without links.")
        if isinstance(found := group[key], h5py.Group):
            yield from _arrays(found, path, inner, depth + 1)
        elif isinstance(found, h5py.Dataset):
            yield inner, found
