"""An artefact's manifest: what its folder contains, and the check that it still does.

The manifest is JSON: the schema version, the stage's key and the parts it was computed from, the sha256 and size of each file,
the digest over them, the time of writing, the provenance, and a checksum of all this.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, TypedDict, cast

from dynconf_core.errors import InputError
from dynconf_core.names import is_inside
from dynconf_core.store.keys import KeyParts, StageKey, canonical, key_of
from dynconf_core.strict_json import read_json
from dynconf_core.wording import shown

SCHEMA = 1
MANIFEST = "manifest.json"


class FileEntry(TypedDict):
    """One file of an artefact: its sha256 in hexadecimal digits and its size in bytes."""

    sha256: str
    size: int


class Manifest(TypedDict):
    """What a manifest holds, apart from its own checksum; `files` are by name relative to the artefact's folder."""

    schema: int
    key: str
    parts: KeyParts
    digest: str
    files: dict[str, FileEntry]
    created: str
    provenance: Mapping[str, Any]


def write(files: Path, key: StageKey, provenance: Mapping[str, Any]) -> None:
    """Flush all files in the folder `files` to disk, then write and flush their manifest.

    Raises ValueError naming what an artefact cannot hold: links, devices, a file called like the manifest.
    """
    entries: dict[str, FileEntry] = {}
    for name in sorted(_listed(files)):
        path = files / name
        if path.is_symlink() or not path.is_file() or name == MANIFEST:
            raise ValueError(f"stage {key.stage} wrote {name}, which an artefact cannot hold")
        entries[name] = {"sha256": _sha256(path, sync=True), "size": path.stat().st_size}
    if not entries:
        raise ValueError(f"stage {key.stage} wrote no file")
    manifest: Manifest = {
        "schema": SCHEMA,
        "key": key.key,
        "parts": key.parts,
        "digest": _digest(entries),
        "files": entries,
        "created": datetime.now(UTC).isoformat(timespec="microseconds"),
        "provenance": provenance,
    }
    signed = {**manifest, "checksum": key_of(manifest)}
    text = json.dumps(json.loads(canonical(signed)), indent=1, sort_keys=True, allow_nan=False)
    with (files / MANIFEST).open("w", encoding="ascii") as out:
        out.write(text + "\n")
        out.flush()
        os.fsync(out.fileno())
    for folder in [*(path for path in files.rglob("*") if path.is_dir()), files]:
        sync_folder(folder)


class Damaged(Exception):
    """A folder does not hold the artefact it should; the message names the file and the fault."""


def verify(folder: Path, key: str) -> Manifest:
    """The manifest of the artefact `key` in `folder`, after checking every file; raises Damaged."""
    manifest = read(folder, key)
    entries = manifest["files"]
    try:
        for name, entry in entries.items():
            path = folder / name
            if not path.is_file():
                raise Damaged(f"{path} is missing")
            size = path.stat().st_size
            if size != entry["size"]:
                raise Damaged(f"{path} has {size} bytes, not {entry['size']}")
            if _sha256(path) != entry["sha256"]:
                raise Damaged(f"{path} does not have the sha256 it was written with")
        # Hidden strays come from file managers and network file systems, not from a stage.
        strays = [name for name in _listed(folder) if name not in entries and name != MANIFEST]
        strays = [name for name in strays if not PurePosixPath(name).name.startswith(".")]
    except OSError as fault:
        raise Damaged(f"{fault.filename or folder} cannot be read ({fault.strerror})") from fault
    if strays:
        raise Damaged(f"{folder / min(strays)} does not belong to the artefact")
    return manifest


def read(folder: Path, key: str) -> Manifest:
    """The manifest in `folder`, after checking its own checksum; the files are not looked at. Raises Damaged."""
    path = folder / MANIFEST
    try:
        content = read_json(path)
    except InputError as fault:
        if isinstance(fault.__cause__, FileNotFoundError):
            raise Damaged(f"{path} is missing") from fault
        reason = "cannot be read" if isinstance(fault.__cause__, OSError) else "is not JSON"
        raise Damaged(f"{path} {reason} ({fault})") from fault
    if not isinstance(content, dict):
        raise Damaged(f"{path} is not a manifest")
    if content.get("schema") != SCHEMA:
        raise Damaged(f"{path} has the schema {content.get('schema')!r}, not {SCHEMA}")
    if content.get("key") != key:
        raise Damaged(f"{path} belongs to the key {content.get('key')!r}, not to its folder's")
    try:
        intact = content.pop("checksum", None) == key_of(content) and key_of(content["parts"]) == key
    except (KeyError, TypeError, ValueError):
        intact = False
    if not intact:
        raise Damaged(f"{path} does not have the checksum it was written with")
    _check(content, path)
    return cast(Manifest, content)


def _check(content: dict[str, Any], path: Path) -> None:
    """Raise Damaged unless the fields have their types, and all files lie in the folder: a stranger can write a checksum."""
    kinds = {"parts": dict, "digest": str, "files": dict, "created": str, "provenance": dict}
    for name, kind in kinds.items():
        if not isinstance(content.get(name), kind):
            raise Damaged(f"{path} is not a manifest: {name} is {shown(content.get(name))}")
    for name, entry in content["files"].items():
        if not is_inside(name):
            raise Damaged(f"{path}, files: {shown(name)} does not name a file of the folder")
        well = isinstance(entry, dict) and type(entry.get("sha256")) is str and type(entry.get("size")) is int
        if not well:
            raise Damaged(f"{path}, files, {shown(name)}: {shown(entry)} is no sha256 and size")


def _digest(entries: Mapping[str, FileEntry]) -> str:
    return key_of({name: entry["sha256"] for name, entry in entries.items()})


def _listed(folder: Path) -> list[str]:
    """All files under `folder`, links too, by name relative to it."""
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()]


def _sha256(path: Path, sync: bool = False) -> str:
    with path.open("rb") as stream:
        if sync:
            os.fsync(stream.fileno())
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sync_folder(folder: Path) -> None:
    """Flush the folder's own entries (new and renamed files) to disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
