"""An artefact's manifest: what lies in its folder, and whether that is still so.

The manifest is JSON: the schema's version, the stage's key and the parts it was made of, the sha256 and size
of each file, the digest over them, the time, the provenance, and a checksum of all this.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from dynconf_core.store.keys import StageKey, canonical, key_of

SCHEMA = 1
MANIFEST = "manifest.json"


def write(files: Path, key: StageKey, provenance: Mapping[str, Any]) -> None:
    """Force all files in the folder `files` to the disk, and their manifest last.

    Raises ValueError naming what an artefact cannot hold: links, devices, a manifest of the stage's own.
    """
    entries: dict[str, dict[str, Any]] = {}
    for name in sorted(_listed(files)):
        path = files / name
        if path.is_symlink() or not path.is_file() or name == MANIFEST:
            raise ValueError(f"stage {key.stage} wrote {name}, which an artefact cannot hold")
        entries[name] = {"sha256": _sha256(path, sync=True), "size": path.stat().st_size}
    if not entries:
        raise ValueError(f"stage {key.stage} wrote no file")
    manifest: dict[str, Any] = {
        "schema": SCHEMA,
        "key": key.key,
        "parts": key.parts,
        "digest": _digest(entries),
        "files": entries,
        "created": datetime.now(UTC).isoformat(timespec="microseconds"),
        "provenance": provenance,
    }
    manifest["checksum"] = key_of(manifest)
    text = json.dumps(json.loads(canonical(manifest)), indent=1, sort_keys=True, allow_nan=False)
    with (files / MANIFEST).open("w", encoding="ascii") as out:
        out.write(text + "\n")
        out.flush()
        os.fsync(out.fileno())
    for folder in [*(path for path in files.rglob("*") if path.is_dir()), files]:
        sync_folder(folder)


class Damaged(Exception):
    """What lies at an artefact's place is not the artefact; the message names the file and the fault."""


def verify(folder: Path, key: str) -> dict[str, Any]:
    """The manifest of the artefact `key` in `folder`, every file checked; raises Damaged."""
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


def read(folder: Path, key: str) -> dict[str, Any]:
    """The manifest in `folder`, in order by itself; the files are not looked at. Raises Damaged."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
    except FileNotFoundError as fault:
        raise Damaged(f"{path} is missing") from fault
    except OSError as fault:
        raise Damaged(f"{path} cannot be read ({fault.strerror})") from fault
    except (ValueError, RecursionError) as fault:
        raise Damaged(f"{path} is no JSON ({fault})") from fault
    if not isinstance(manifest, dict):
        raise Damaged(f"{path} is no manifest")
    if manifest.get("schema") != SCHEMA:
        raise Damaged(f"{path} has the schema {manifest.get('schema')!r}, not {SCHEMA}")
    if manifest.get("key") != key:
        raise Damaged(f"{path} belongs to the key {manifest.get('key')!r}, not to its folder's")
    try:
        intact = manifest.pop("checksum", None) == key_of(manifest) and key_of(manifest["parts"]) == key
    except (KeyError, TypeError, ValueError):
        intact = False
    if not intact:
        raise Damaged(f"{path} does not have the checksum it was written with")
    return manifest


def _digest(entries: Mapping[str, Mapping[str, Any]]) -> str:
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
    """Force the folder's own entries (new and renamed files) to the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
