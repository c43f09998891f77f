"""The artefacts of a home one by one, and the check of all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from dynconf_core.store.manifest import MANIFEST, Damaged, Manifest, read, verify


@dataclass(frozen=True)
class DamagedArtefact:
    """A place in the store that does not hold the artefact it should, and the reason."""

    path: Path
    why: str


@dataclass(frozen=True)
class Verification:
    """The check of a store: its number of artefacts, their bytes, and the damaged ones among them."""

    artefacts: int
    size: int
    damaged: tuple[DamagedArtefact, ...]


def folders(root: Path) -> Iterator[Path]:
    """The places of artefacts in the store ``root``, whole or damaged."""
    for path in sorted(root.glob("[!.]*/??/*")):
        if not path.name.startswith("."):
            yield path


def surface(folder: Path) -> Manifest:
    """The manifest of an artefact whose files have the right names and sizes; their content is not read.

    Raises:
        Damaged: if a file is missing, too short or too long, or if the manifest is damaged.
    """
    manifest = read(folder, folder.name)
    for name, entry in manifest["files"].items():
        path = folder / name
        try:
            size = path.stat().st_size
        except OSError as error:
            raise Damaged(f"{path} cannot be read ({error.strerror})") from error
        if size != entry["size"]:
            raise Damaged(f"{path} has {size} bytes, not {entry['size']}")
    return manifest


def content(folder: Path) -> Manifest:
    """The manifest of an artefact all of whose files have the content they were written with; raises ``Damaged``."""
    return verify(folder, folder.name)


def verified(root: Path, progress: Callable[[int, int], None] = lambda done, total: None) -> Verification:
    """Read every artefact of the store ``root`` and compare it with its manifest.

    ``progress(done, total)`` is called with bytes after each artefact.
    """
    places = [(folder, _size(folder)) for folder in folders(root)]
    total, done, count, damaged = sum(size for _, size in places), 0, 0, []
    for folder, size in places:
        try:
            content(folder)
            count += 1
        except Damaged as damage:
            if folder.exists() or folder.is_symlink():  # otherwise it has been removed meanwhile
                count += 1
                damaged.append(DamagedArtefact(folder, str(damage)))
        done += size
        progress(done, total)
    return Verification(count, total, tuple(damaged))


def _size(folder: Path) -> int:
    """The bytes of an artefact according to its manifest, and of the manifest; 0 if that is damaged."""
    try:
        manifest = read(folder, folder.name)
        return sum(entry["size"] for entry in manifest["files"].values()) + (folder / MANIFEST).stat().st_size
    except (Damaged, OSError):
        return 0
