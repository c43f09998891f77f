"""Logging to MLflow again: what is missing there of a home's reproductions and sweeps, from their results and the store.

A run in MLflow shows the newest results of a reproduction. Of older ones, those settings are sent that no newer one has.
"""

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from dynconf_core.errors import InputError
from dynconf_core.evaluation.setting import EVALUATION, SettingEvaluation
from dynconf_core.experiment.overrides import applied, applies, typed
from dynconf_core.experiment.profiles import resolve
from dynconf_core.results.files import RESULTS, write_results, write_sweep
from dynconf_core.results.records import read
from dynconf_core.results.run_names import titled
from dynconf_core.results.types import AnyPoint, AnySetting, FailedPoint, FailedSetting, RunResult, SweepPoint, SweepResult
from dynconf_core.schemes.field import Value
from dynconf_core.store.artefacts import Artefact, Store
from dynconf_tasks.interruption import Interrupted
from dynconf_tasks.tracking.logged import CHECKPOINT, FILES, Child, Origin, child_of
from dynconf_tasks.tracking.tags import Kind, Source, known_as
from dynconf_tasks.tracking.tracker import Tracker

ROOMS = ("results", "sweeps")
NEVER_RAN = str(Interrupted())
"""Ends the error of a setting that an interruption kept from finishing."""
STARTED = re.compile(r"(\d{8}-\d{6})(?:-(\d+)(?=-))?")
"""The beginning of a reproduction's name: when it started, and its number if several started in that second."""
Row = AnySetting | AnyPoint
T = TypeVar("T")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sent:
    """What was sent of one results folder.

    Attributes:
        run: the folder's name.
        children: the names of the runs logged.
        without_files: those of which only figures were logged, since their artefacts were removed.
    """

    run: str
    children: tuple[str, ...]
    without_files: tuple[str, ...]


@dataclass(frozen=True)
class _Found:
    """The results of a folder, what identifies their run in MLflow, and the rows that no newer results replace."""

    folder: Path
    result: RunResult | SweepResult
    identity: Mapping[str, Value]
    rows: tuple[Row, ...]

    @property
    def of_parent(self) -> tuple[str, int, Mapping[str, Value], str, Kind]:
        result = self.result
        if isinstance(result, RunResult):
            title = titled(result.profile, result.seed, result.overrides)
            return (result.profile, result.seed, self.identity, title, "reproduction")
        return (result.profile, result.seed, result.overrides, f"sweep {result.run}", "sweep")

    @property
    def source(self) -> Source:
        return Source(self.result.command or None, self.result.environment.commit)


def _warn(unreadable: InputError) -> None:
    _log.warning("%s", unreadable)


def resend(home: Path, named: Sequence[str] = (), unreadable: Callable[[InputError], None] = _warn) -> Iterator[Sent]:
    """Log what is missing in MLflow, folder by folder, the newest last; yields the folders of which anything was missing.

    Args:
        home: the home.
        named: names or folders of reproductions and sweeps; empty for all of the home.
        unreadable: called for results that cannot be read and were not named; by default, it logs a warning.

    Raises:
        InputError: for a name that the home does not have, or results of that name that cannot be read.
        TrackingUnavailable: if MLflow does not work; what was sent before is there.
    """
    store = Store(home / "artefacts")
    chosen = {_folder(home, name) for name in named}
    found = [*_reproductions(home, store, chosen, unreadable), *_sweeps(home, chosen, unreadable)]
    if not found:
        return
    tracker = Tracker(home, "`dynconf resend` sends what is missing once it works")
    for one in found:
        if chosen and one.folder not in chosen:
            continue
        sent = _send(tracker, one, store)
        result = one.result
        if result.tracking_error and isinstance(result, RunResult) and len(one.rows) == len(result.settings):
            write_results(home, replace(result, tracking_error=None), newest=False)
        elif result.tracking_error and isinstance(result, SweepResult) and len(one.rows) == len(result.points):
            write_sweep(home, replace(result, tracking_error=None), newest=False)
        if sent is not None:
            yield sent


def _send(tracker: Tracker, one: _Found, store: Store) -> Sent | None:
    """Send what is missing of one folder; None if nothing was."""
    known, ended = tracker.known(*one.of_parent)
    ran = [row for row in one.rows if not (isinstance(row, FailedSetting) and row.error.endswith(NEVER_RAN))]
    missing = [child for row in ran if not known & known_as(child := _child(row, one, store))]
    if not missing and (ended or not one.rows):
        return None
    parent = tracker.parent(*one.of_parent, one.source)
    for child in missing:
        tracker.child(parent, child)
    result = replace(one.result, tracking_error=None)
    tracker.finish_parent(parent, result, interrupted=len(ran) < len(one.rows))
    bare = tuple(child.place for child in missing if child.key and not child.files)
    return Sent(one.folder.name, tuple(child.place for child in missing), bare)


def _folder(home: Path, name: str) -> Path:
    """The folder of a reproduction or sweep of the home, given by its name or path."""
    rooms = [(home / room).resolve() for room in ROOMS]
    for given in (Path(name), *(home / room / name for room in ROOMS)):
        folder = given.resolve()
        if folder.parent in rooms and (folder / RESULTS).is_file():
            return folder
    there = [path.parent.name for room in rooms for path in sorted(room.glob(f"*/{RESULTS}"))]
    raise InputError(f"{name} is no reproduction or sweep of {home}, which has: {', '.join(there) or 'none'}.")


def _reproductions(home: Path, store: Store, chosen: set[Path], unreadable: Callable[[InputError], None]) -> list[_Found]:
    """The reproductions of the home, the oldest first."""
    found: list[_Found] = []
    taken: set[tuple[object, ...]] = set()
    for folder, result in reversed(_read(home / "results", RunResult, chosen, unreadable)):
        identity = _identity(result, store)
        same = (result.profile, result.seed, *sorted(identity.items()))
        rows = tuple(row for row in result.settings if (*same, row.name) not in taken)
        taken |= {(*same, row.name) for row in rows}
        found.append(_Found(folder, result, identity, rows))
    return found[::-1]


def _sweeps(home: Path, chosen: set[Path], unreadable: Callable[[InputError], None]) -> list[_Found]:
    found = _read(home / "sweeps", SweepResult, chosen, unreadable)
    return [_Found(folder, result, {}, result.points) for folder, result in found]


def _read(room: Path, kind: type[T], chosen: set[Path], unreadable: Callable[[InputError], None]) -> list[tuple[Path, T]]:
    """The results in a room, the oldest first; what cannot be read is told to ``unreadable``, or raised if it was chosen."""

    def started(folder: Path) -> tuple[str, int, str]:
        found = STARTED.match(folder.name)
        return (found[1], int(found[2] or 1), folder.name) if found else ("", 0, folder.name)

    found = []
    folders = {path.parent.resolve() for path in room.glob(f"*/{RESULTS}")}  # each once, also if linked as `latest`
    for folder in sorted((folder for folder in folders if folder.parent == room.resolve()), key=started):
        try:
            found.append((folder, read(kind, folder / RESULTS)))
        except InputError as error:
            if folder in chosen:
                raise
            unreadable(error)
    return found


def _identity(result: RunResult, store: Store) -> dict[str, Value]:
    """What identifies a reproduction besides profile and seed: its overrides, and the files that took the place of training."""
    files: dict[str, Value] = {}
    for row in result.settings:
        artefact = _artefact(row, "train", store) if row.stages.get("train") == "given" else None
        if artefact is not None:
            files[f"{CHECKPOINT}{row.name}"] = str(artefact.manifest["provenance"].get("facts", {}).get("given"))
    return {**result.overrides, **files}


def _child(row: Row, one: _Found, store: Store) -> Child:
    """What is logged of a row, as far as it is in the store, else as the row has it."""
    artefact = _artefact(row, "evaluate", store)
    whole = artefact is not None and set(FILES) <= set(artefact.manifest["files"])
    evaluation = artefact if whole else None
    # of a point, the results hold few figures
    figures = read(SettingEvaluation, artefact.file(EVALUATION)) if artefact is not None else None
    return child_of(row, _origin(row, one, store), evaluation, figures)


def _origin(row: Row, one: _Found, store: Store) -> Origin:
    """Where a row comes from; the plan is None where the setting is not known any more, or has other fields now."""
    result, point = one.result, row.values if isinstance(row, SweepPoint | FailedPoint) else None
    identity = {**one.identity, **(result.overrides if isinstance(result, SweepResult) else {}), **(point or {})}
    setting = row.setting if isinstance(row, SweepPoint | FailedPoint) else row.name
    seed = int(identity.pop("seed", result.seed))
    plan = None
    with suppress(InputError):
        found = resolve(setting, result.profile, seed)
        named = {name: value for name, value in identity.items() if not name.startswith(CHECKPOINT)}
        values = {name: typed(name, given, [found]) for name, given in named.items() if applies(name, found)}
        plan = applied(found, values)
    home = store.root.parent
    return Origin(home, result.profile, seed, identity, plan, one.source.command, point)


def _artefact(row: Row, stage: str, store: Store) -> Artefact | None:
    """The artefact of a row's stage; None if there is none any more."""
    with suppress(ValueError):  # not a key
        return store.get(row.artefacts[stage]) if stage in row.artefacts else None
    return None
