"""The artefact store: the files that a stage wrote, under the stage's key.

An artefact is written completely or not at all. Its files are written into a temporary folder inside the store, hashed and
flushed to disk; the manifest is written last, and the whole folder is then renamed into place. A reader therefore sees a
complete artefact or none, even if a writer is killed. Every hit is verified: the size and sha256 of each file, and the
manifest's own checksum. A flipped bit or a truncated, swapped, missing or stray file makes it a miss, with a warning.

    <root>/<stage>/<first two digits of the key>/<key>/manifest.json and the stage's files
    <root>/.tmp/...   artefacts being written, see `dynconf_core.store.writer`
    <root>/.lock      see `dynconf_core.store.use`

POSIX file systems only: the rename must be atomic.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from dynconf_core.errors import InputError
from dynconf_core.failing import failure_point
from dynconf_core.files import host, naming
from dynconf_core.store import clock
from dynconf_core.store.keys import StageKey, canonical, is_key
from dynconf_core.store.manifest import MANIFEST, Damaged, Manifest, read, sync_folder, verify, write
from dynconf_core.store.use import note_use
from dynconf_core.store.writer import abandoned, writing

_log = logging.getLogger(__name__)
_OLD = 3600.0  # seconds without a sign of life after which a temporary folder is removed, if its writer is known to be gone


@dataclass(frozen=True)
class Artefact:
    """A verified artefact.

    Attributes:
        key: the key it was requested by.
        digest: the sha256 over the names and hashes of its files. It identifies the content and becomes part of the keys of the
            stages that read the artefact.
        folder: where its files are, to be read and never written.
        manifest: see `dynconf_core.store.manifest`.
    """

    key: str
    digest: str
    folder: Path
    manifest: Manifest = field(repr=False)

    @property
    def stage(self) -> str:
        """The name of the stage that wrote it."""
        return self.manifest["parts"]["stage"]

    @property
    def adopted(self) -> bool:
        """Whether it was made under another key; see ``Store.adopt``."""
        return "adopted" in self.manifest["provenance"]

    def file(self, name: str) -> Path:
        """The path of one of its files; raises KeyError listing the files it has."""
        if name not in self.manifest["files"]:
            raise KeyError(f"artefact {self.key[:12]} has no file {name!r}, only {sorted(self.manifest['files'])}")
        return self.folder / name


class Store:
    """The artefacts under one folder, which is created with the first artefact."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    def get(self, key: StageKey | str) -> Artefact | None:
        """The artefact of this key, or None if it is missing or damaged; damage is logged as a warning."""
        folder = self._find(key)
        if folder is None or not os.path.lexists(folder):
            return None
        note_use(self.root, folder)
        if not os.path.lexists(folder):  # it has just been removed
            return None
        try:
            return _artefact(folder, verify(folder, folder.name))
        except Damaged as damage:
            _log.warning("%s. The artefact is treated as missing and made again.", damage)
            return None

    def listed(self, key: StageKey | str) -> Artefact | None:
        """The artefact of this key if its manifest is intact; unlike with ``get``, its files are not verified."""
        folder = self._find(key)
        if folder is None:
            return None
        try:
            return _artefact(folder, read(folder, folder.name))
        except Damaged:
            return None

    def create(self, key: StageKey, provenance: Mapping[str, Any]) -> Writing:
        """Write an artefact: `with (new := store.create(key, provenance)) as folder:`, then `new.created`.

        `provenance` says how it came about (JSON values; entries added inside the block are kept too); it is not part of the
        key. Raises InputError if the store is not writable.
        """
        return Writing(self, key, provenance)

    def adopt(self, old: Artefact, key: StageKey) -> Artefact:
        """Take an artefact that was made under another key, by other code or by several processes, under a new one.

        It keeps its provenance, in which the list `adopted` gets an entry: the key and code it was made under, when it was made
        there, and when it was taken. The files become hard links to the old ones, or copies on a file system without links.
        """
        before = old.manifest["provenance"]
        origin = {
            "from": old.key,
            "code": old.manifest["parts"]["code"],
            "made": old.manifest["created"],
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        with (new := self.create(key, {**before, "adopted": [*before.get("adopted", ()), origin]})) as folder:
            for name in old.manifest["files"]:
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                try:
                    os.link(old.folder / name, target)
                except OSError:
                    shutil.copyfile(old.folder / name, target)
        return new.created

    def of_other_code(self, key: StageKey) -> Artefact | None:
        """The newest artefact whose key differs from this one in its code alone; None if there is none."""
        for manifest in self.manifests(key.stage):
            parts = manifest["parts"]
            if parts["code"] != key.parts["code"] and {**parts, "code": key.parts["code"]} == key.parts:
                found = self.get(manifest["key"])
                if found is not None:
                    return found
        return None

    def manifests(self, stage: str) -> list[Manifest]:
        """The readable manifests of a stage's artefacts, newest first; the files are not verified."""
        found = []
        for path in (self.root / stage).glob(f"*/*/{MANIFEST}"):
            with contextlib.suppress(Damaged):
                found.append(read(path.parent, path.parent.name))
        return sorted(found, key=lambda manifest: manifest["created"], reverse=True)

    def place(self, stage: str, key: str) -> Path:
        """The folder of the artefact of this stage and key, whether it is there or not."""
        return self.root / stage / key[:2] / key

    def _find(self, key: StageKey | str) -> Path | None:
        if isinstance(key, StageKey):
            return self.place(key.stage, key.key)
        if not is_key(key):
            raise ValueError(f"{key!r} is not an artefact's key: 64 hexadecimal digits")
        return next(iter(sorted(self.root.glob(f"[!.]*/{key[:2]}/{key}"))), None)


class Writing:
    """One artefact being written: a context manager that yields the folder to write into.

    Leaving the block normally commits the artefact; an exception removes everything that was written. A second writer of the
    same key does no harm: the first to commit wins, and `created` is its artefact for both.
    """

    def __init__(self, store: Store, key: StageKey, provenance: Mapping[str, Any]) -> None:
        canonical(provenance)  # unsuitable values are rejected now, not after hours of work
        self._store, self._key, self._provenance = store, key, provenance
        self._work: Path | None = None
        self._shown = contextlib.ExitStack()
        self._created: Artefact | None = None

    @property
    def created(self) -> Artefact:
        """The artefact, once the block has ended without an exception."""
        if self._created is None:
            raise RuntimeError("the artefact is not written yet: leave the with block first")
        return self._created

    def __enter__(self) -> Path:
        temporaries = self._store.root / ".tmp"
        try:
            temporaries.mkdir(parents=True, exist_ok=True)
            _sweep(temporaries)
            self._work = Path(tempfile.mkdtemp(prefix=f"{self._key.stage}-{host()}-", dir=temporaries))
            self._shown.enter_context(writing(self._work))
            (self._work / "files").mkdir()
        except OSError as fault:
            self._clean()
            raise InputError(
                f"the artefact store {self._store.root} cannot be written ({fault.strerror}). "
                "Set DYNCONF_HOME (or --home) to a folder you can write to."
            ) from fault
        return self._work / "files"

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None) -> None:
        try:
            with naming(self._store.root / self._key.stage):  # before the removal makes room on a full disk
                if fault is not None:
                    raise fault
                self._commit()
        finally:
            self._clean()

    def _commit(self) -> None:
        assert self._work is not None, "entered"
        files = self._work / "files"
        failure_point("store.files")
        write(files, self._key, self._provenance)
        failure_point("store.manifest")
        self._created = self._move_into_place(files)
        failure_point("store.placed")

    def _move_into_place(self, files: Path) -> Artefact:
        target = self._store.place(self._key.stage, self._key.key)
        target.parent.mkdir(parents=True, exist_ok=True)
        while True:
            try:
                files.rename(target)
            except OSError:
                if not os.path.lexists(target):
                    raise
            else:
                for folder in (target.parent, target.parent.parent, self._store.root):
                    sync_folder(folder)
                return _artefact(target, read(target, target.name))
            # The place is taken: by another writer's artefact, which is kept, or by a damaged one, which is replaced.
            try:
                return _artefact(target, verify(target, target.name))
            except Damaged as damage:
                _log.warning("%s. It is replaced.", damage)
            assert self._work is not None
            with contextlib.suppress(FileNotFoundError):  # another writer has just moved it away
                target.rename(Path(tempfile.mkdtemp(dir=self._work)) / "damaged")

    def _clean(self) -> None:
        if self._work is not None:
            shutil.rmtree(self._work, ignore_errors=True)
        self._shown.close()
        self._work = None


def _artefact(folder: Path, manifest: Manifest) -> Artefact:
    return Artefact(manifest["key"], manifest["digest"], folder, manifest)


def _sweep(temporaries: Path) -> None:
    """Remove the temporary folders of writers that are gone."""
    now = clock.now(temporaries)
    for work in temporaries.iterdir():
        if abandoned(work, now, _OLD):
            shutil.rmtree(work, ignore_errors=True)
