"""Running files: which processes compute in a home, and which were killed there.

A process that computes in a home writes a running file when it begins and removes it when it ends. A file whose owner no longer
runs shows that the process was killed, and that its records in Prefect, MLflow and Optuna may still say that they run.

    <home>/running/<host>-<pid>-....json
"""

from __future__ import annotations

import json
import os
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dynconf_core.store.owner import Owner
from dynconf_core.strict_json import read_json

FOLDER = "running"
Dead = Callable[[Owner], bool]
"""Whether a process has certainly ended."""
_shown: dict[Path, tuple[int, Path | None]] = {}
"""By home, the number of blocks in which this process is shown there, and its running file."""
_entering = threading.Lock()


@dataclass(frozen=True)
class Run:
    """A process that computes in the home, or was killed while it did.

    Attributes:
        file: its running file.
        owner: the process; None if the file does not say.
        command: what it was asked to do.
        since: when it began, in ISO 8601.
        results: the folder of its results, if known at the beginning.
        began: when its running file was written, in seconds since 1970 by the clock of the home's file system.
        progress: what it last said of its progress, as JSON (see ``dynconf_tasks.listening.Board``); None if it said nothing.
    """

    file: Path
    owner: Owner | None
    command: str
    since: str
    results: str | None
    began: float
    progress: Mapping[str, Any] | None = None


@contextmanager
def running(home: Path, command: str, results: Path | None = None) -> Iterator[None]:
    """Show during the block that this process computes in ``home``; a home that cannot be written is left as it is.

    A process that is shown already is not shown twice.
    """
    with _entering:
        within, file = _shown.get(home, (0, None))
        _shown[home] = within + 1, file if within else _write(home, Owner.this(), command, results)
    try:
        yield
    finally:
        with _entering:
            within, file = _shown.pop(home)
            if within > 1:
                _shown[home] = within - 1, file
            elif file is not None:
                with suppress(OSError):
                    file.unlink()


def note_progress(progress: Mapping[str, Any]) -> None:
    """Write into the running files of this process how far it is."""
    with _entering:
        for _, file in _shown.values():
            if file is not None:
                with suppress(OSError, ValueError):
                    content, began = read_json(file), os.stat(file).st_mtime
                    _put(file, {**content, "progress": progress}, began)


def note_killed(home: Path, owner: Owner, what: str) -> None:
    """Leave the running file of a process that was killed, so that the next run ends what it left."""
    _write(home, owner, what, None)


def runs(home: Path) -> list[Run]:
    """The runs that have a running file in the home, in the order in which they began."""
    found = []
    for file in sorted((home / FOLDER).glob("[!.]*.json")):
        with suppress(FileNotFoundError):  # it has just ended
            found.append(_read(file))
    return sorted(found, key=lambda run: run.began)


def stale(home: Path, dead: Dead | None = None) -> list[Run]:
    """The runs whose process has ended without an orderly end, or whose running file names no process.

    ``dead`` is by default ``ended``.
    """
    judge = dead or ended
    return [run for run in runs(home) if run.owner is None or judge(run.owner)]


def ended(owner: Owner) -> bool:
    """Whether the process has certainly ended; one of another host counts as running."""
    return owner.alive() is False


def _write(home: Path, owner: Owner, command: str, results: Path | None) -> Path | None:
    file = home / FOLDER / f"{owner.host}-{owner.pid}-{secrets.token_hex(4)}.json"
    since = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    content = {"owner": str(owner), "command": command, "since": since, "results": str(results) if results else None}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        _put(file, content)
        return file
    except OSError:
        return None


def _put(file: Path, content: Mapping[str, Any], began: float | None = None) -> None:
    """Write a running file, all of it or nothing; its time stays when it was first written."""
    beside = file.with_name(f".{file.name}")
    try:
        beside.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        if began is not None:
            os.utime(beside, (began, began))
        beside.replace(file)
    except OSError:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise


def _read(file: Path) -> Run:
    began = os.stat(file).st_mtime
    try:
        content = read_json(file)
        owner, results = Owner.parse(content["owner"]), content.get("results")
        progress = content.get("progress")
        told = progress if isinstance(progress, Mapping) else None
        return Run(file, owner, str(content["command"]), str(content["since"]), str(results) if results else None, began, told)
    except (ValueError, KeyError, TypeError, AttributeError):
        return Run(file, None, "unknown", f"{datetime.fromtimestamp(began, UTC):%Y-%m-%dT%H:%M:%SZ}", None, began)
