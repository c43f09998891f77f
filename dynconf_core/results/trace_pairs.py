"""Finding the traces that a path stands for: a single set, a pair, or all pairs of a folder of results."""

import logging
import zipfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from dynconf_core.errors import InputError
from dynconf_core.experiment.request import home_folder
from dynconf_core.results.files import RESULTS
from dynconf_core.results.records import read
from dynconf_core.results.types import RunResult
from dynconf_core.store.artefacts import Store

CALIBRATION, TEST = "calibration", "test"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pair:
    """Traces to be analysed together; ``test`` is None if a single set is to be split into halves."""

    name: str
    calibration: Path
    test: Path | None


def pairs(given: Path, test: Path | None, home: str | None = None) -> list[Pair]:
    """Find the traces that a path stands for.

    Args:
        given: a file or folder of traces, or a folder with several. That may hold trace files (``NAME-calibration.npz`` and
            ``NAME-test.npz``; a set without a partner is split into halves), or the ``results.json`` of a reproduction, whose
            traces are beside it (an exported run) or in its home.
        test: the test traces that belong to ``given``.
        home: the home of the reproduction, if not the one that contains its folder.

    Raises:
        InputError: if there is nothing to analyse.
    """
    for path in (given, test):
        if path is not None and not path.exists():
            raise InputError(f"{path} does not exist: name traces (.npz, or a folder of .npy files), or a folder of results.")
    if not holds_several(given):
        return [Pair(_named(given), given, test)]
    if test is not None:
        raise InputError(
            f"--test {test} belongs to a single set of traces, but {given} is a folder of results: leave --test out."
        )
    latest = given / "results" / "latest"
    folder = latest if latest.is_dir() else given  # a home
    lying = list(_lying(folder))
    found = [*_stored(folder, home, {pair.name for pair in lying}), *lying]
    if not found:
        raise InputError(
            f"{given} holds no traces: it needs NAME-calibration.npz and NAME-test.npz, a single .npz, logits.npy, or the "
            "results.json of a run whose traces are still in its home."
        )
    names = [pair.name for pair in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{given} holds several traces of the name {twice!r}: rename some.")
    return found


def asked_folder(traces: Path, out: str | Path, pair: Pair) -> Path:
    """The folder of an analysis asked for as ``out``: a subfolder of it for each pair if ``traces`` holds several."""
    return Path(out) / pair.name if holds_several(traces) else Path(out)


def holds_several(given: Path) -> bool:
    """Whether the path is a folder of results, rather than of a single set of traces."""
    return given.is_dir() and not (given / "logits.npy").is_file()


def _named(path: Path) -> str:
    """The name of a set of traces: that of its file or, if this only states the split, of its folder."""
    return _bare(path) or path.absolute().parent.name or "traces"


def _bare(path: Path) -> str:
    name = path.name.removesuffix(".npz")
    return "" if name == TEST else name.replace(CALIBRATION, "").strip("-_. ")


def _lying(folder: Path) -> Iterator[Pair]:
    """The traces in a folder and its subfolders."""
    every = [*folder.rglob("*.npz"), *(path.parent for path in folder.rglob("logits.npy"))]
    every = [path for path in every if path.is_file() or path.is_dir()]  # opening a pipe would wait for ever
    seen = {path for path in every if not any(part.startswith(".") for part in path.relative_to(folder).parts)}
    seen = {path for path in seen if path.with_name(f"{path.name}.npz") not in seen}  # otherwise the same traces appear twice
    for path in sorted(seen):
        judge = path.with_name(path.name.replace(CALIBRATION, TEST))
        if judge != path and judge in seen:
            yield Pair(_below(path, folder), path, judge)
        elif path.with_name(path.name.replace(TEST, CALIBRATION)) in seen - {path}:
            continue  # the test traces of a pair
        elif path.is_dir() or _may_hold_traces(path):
            yield Pair(_below(path, folder), path, None)


def _below(path: Path, folder: Path) -> str:
    parts = [*path.relative_to(folder).parent.parts, _bare(path)]
    return "/".join(part for part in parts if part) or folder.resolve().name


def _may_hold_traces(path: Path) -> bool:
    """False for an archive without traces; a damaged one is left to the reader, which reports it."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {"logits.npy", "labels.npy"} <= set(archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return True


def _stored(folder: Path, home: str | None, known: Collection[str]) -> Iterator[Pair]:
    """The traces of a reproduction in the store of its home, except for settings already ``known``."""
    if not (folder / RESULTS).is_file():
        return
    store = store_of(folder, home)
    for row in read(RunResult, folder / RESULTS).finished:
        if row.name in known:
            continue
        keys = row.artefacts
        found = [store.get(keys[stage]) for stage in ("collect_calibration", "collect_test") if stage in keys]
        there = [artefact.folder for artefact in found if artefact is not None]
        if len(there) == 2:
            yield Pair(row.name, *there)
        else:
            _log.warning("%s: its traces are not in %s: run `dynconf reproduce` again.", row.name, store.root)


def store_of(run: Path, home: str | None) -> Store:
    """The store of a run's artefacts, in the home that contains the run's folder unless another home is given."""
    own = run.resolve().parent.parent  # home/results/run
    where = own if home is None and (own / "artefacts").is_dir() else home_folder(home)
    return Store(where / "artefacts")
