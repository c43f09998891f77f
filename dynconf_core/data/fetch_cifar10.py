"""Downloads CIFAR-10 as its official binary batches, byte for byte, or explains why it cannot.

The sources (`cifar10_sources.py`) are tried in turn. The six files are accepted from any of them only if their SHA-1s are
those of the official archive, so that no mirror need be trusted.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from dynconf_core.data.cifar10 import BINARY_SHA1, FOLDER, faults_in
from dynconf_core.data.cifar10_sources import OFFICIAL_URL, Say, Source, default_sources
from dynconf_core.data.class_names import KNOWN
from dynconf_core.errors import InputError
from dynconf_core.store.clock import now


def fetch_cifar10(
    root: Path, *, say: Say, sources: Sequence[Source] | None = None, sha1: Mapping[str, str] = BINARY_SHA1
) -> Path:
    """Create `<root>/cifar-10-batches-bin` with the six official binary batches and return its path.

    Does nothing if they are already there and intact. Files are built in a temporary folder and moved into place only once all
    their SHA-1s are correct. `say` receives one plain sentence at a time.

    Raises InputError if no source delivers, or if `root` is not writable.
    """
    root = Path(root)
    target = root / FOLDER
    faults = faults_in(target, sha1)
    if not faults:
        say(f"CIFAR-10 is already in {target} and its checksums are correct; nothing to do.")
        return target
    if target.is_dir():
        say(f"{'; '.join(faults)}. The damaged or missing files are fetched again.")
    if sources is None:
        sources = default_sources(root)
    try:
        root.mkdir(parents=True, exist_ok=True)
        _sweep(root)
        with tempfile.TemporaryDirectory(prefix=".fetch-cifar10-", dir=root) as work:
            fresh = Path(work) / FOLDER
            _first_that_delivers(sources, fresh, sha1, say)
            (fresh / "batches.meta.txt").write_text("\n".join(KNOWN["cifar10"]) + "\n\n", encoding="ascii", newline="\n")
            _move_into_place(fresh, target)
    except OSError as fault:
        raise InputError(
            f"CIFAR-10 cannot be written to {root} ({fault.strerror or fault}). "
            "Make room there, or set DYNCONF_DATA to a folder you can write to."
        ) from fault
    left = faults_in(target, sha1)
    if left:
        raise InputError(f"{'; '.join(left)}, just after it was written. Is the disk in order?")
    say(f"CIFAR-10 is in {target}: 50 000 training and 10 000 test images, all six SHA-1 checksums correct.")
    return target


def _first_that_delivers(sources: Sequence[Source], folder: Path, sha1: Mapping[str, str], say: Say) -> None:
    """Fill `folder` from the first source whose files are correct, or raise InputError with the faults of all sources."""
    reasons = []
    for source in sources:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        say(f"Trying {source.name}.")
        try:
            source.fill(folder, say)
            faults = faults_in(folder, sha1)
            if not faults:
                return
            reason = f"what it holds is not CIFAR-10 ({faults[0]})"
        # A network has many ways to fail (URLError, TimeoutError, IncompleteRead, EOFError, TarError, ...);
        # each is a reason to try the next source, and is reported if none is left.
        except Exception as fault:
            cause = getattr(fault, "reason", fault)  # URLError wraps what happened
            reason = str(cause) or type(cause).__name__
        reasons.append(f"{source.name}: {reason}")
        say(f"That did not work: {reason}.")
    raise InputError(
        f"CIFAR-10 could not be fetched. {'; '.join(reasons)}. Download {OFFICIAL_URL} in another way, "
        f"put it into {folder.parents[1]} and run `dynconf data fetch cifar10` again."
    )


def _move_into_place(fresh: Path, target: Path) -> None:
    """All at once if `target` is new, otherwise file by file, so that other files in it are kept."""
    if not target.is_dir():
        try:
            fresh.rename(target)
            return
        except OSError:
            if not target.is_dir():  # else: another process was faster
                raise
    for path in sorted(fresh.iterdir()):
        path.replace(target / path.name)


def _sweep(root: Path) -> None:
    """Remove what a killed download left behind more than a day ago."""
    for old in root.glob(".fetch-cifar10-*"):
        if old.is_dir() and now(root) - old.stat().st_mtime > 86_400:
            shutil.rmtree(old, ignore_errors=True)
