"""Writing ``report.html`` into a folder of results, and telling whether the one that is there is still right."""

from __future__ import annotations

import hashlib
import logging
from contextlib import suppress
from pathlib import Path

from dynconf_core.errors import InputError
from dynconf_core.evaluation.analysis import Analysis
from dynconf_core.evaluation.curves import curves_of
from dynconf_core.evaluation.record import AnalysisRecord
from dynconf_core.experiment.request import data_folder
from dynconf_core.files import write_text
from dynconf_core.report.content import Report
from dynconf_core.results.analysis_folder import RECORD
from dynconf_core.results.files import REPORT, RESULTS
from dynconf_core.results.records import from_json, read
from dynconf_core.results.trace_pairs import store_of
from dynconf_core.results.types import RunResult, SweepResult
from dynconf_core.store.artefacts import Store
from dynconf_core.strict_json import read_json
from dynconf_core.traces.schema import Traces

HEAD = 4096
"""Bytes at the beginning of a report among which its digest stands."""
DRAWN = ("convert", "evaluate")
"""Stages whose artefacts a report shows."""
_log = logging.getLogger(__name__)


def write_report(
    folder: Path,
    home: str | None = None,
    data: Path | None = None,
    out: Path | None = None,
    compute: bool = False,
) -> Path:
    """Write the report of a folder that holds ``results.json`` or ``analysis.json``, unless an equal one is there.

    Args:
        folder: the folder of a reproduction, a sweep or an analysis.
        home: the home of a reproduction's artefacts, if not the one that contains its folder.
        data: the folder of the data sets; by default that of the home.
        out: the file; by default ``report.html`` in the folder.
        compute: whether curves that nobody kept are computed from traces, which may take minutes.

    Returns:
        the file.

    Raises:
        InputError: if there are no such results, or a library is not installed.
        NotWritten: if the file cannot be written.
    """
    target, store = out or folder / REPORT, store_of(folder, home)
    inputs = _inputs(folder, store)
    if not compute and inputs == written_from(target):
        return target
    return written_report(_report(folder, store, data or data_folder(None, store.root.parent), compute), target, inputs)


def written_report(report: Report, target: Path, inputs: str = "") -> Path:
    """Write a report; ``inputs`` is a digest of what it was made from, by which it is known as current.

    Raises:
        InputError: if a library that reports need is not installed.
        NotWritten: if the file cannot be written.
    """
    from dynconf_core.report.render import html

    write_text(target, html(report, inputs))
    return target


def write_quietly(folder: Path, home: Path, data: Path | None = None) -> Path | None:
    """Write the report of results that stand there already; if it fails, a warning says why, and None is returned."""
    if not (folder / RESULTS).is_file():  # others are still at it, and will write both
        return None
    try:
        return write_report(folder, str(home), data)
    except Exception as error:  # results are never lost for their report
        _give_up(folder, error)
        return None


def write_analysis_report(
    name: str, source: str, analysis: Analysis, test: Traces, folder: Path, command: str = ""
) -> Path | None:
    """Write the report of an analysis beside its files, with all curves; if it fails, a warning says why."""
    from dynconf_core.report.analysis import analysis_report

    try:
        curves = curves_of(test, analysis.rule, analysis.robustness)
        report = analysis_report(name, source, analysis.record, curves, analysis.test_fronts, command, analysis.guarantee)
        return written_report(report, folder / REPORT, _inputs(folder, store_of(folder, None)))
    except Exception as error:
        _give_up(folder, error)
        return None


def _give_up(folder: Path, error: Exception) -> None:
    """Warn, and remove a report of earlier results."""
    _log.warning("The report %s could not be written: %s", folder / REPORT, " ".join(str(error).split()) or repr(error))
    with suppress(OSError):
        (folder / REPORT).unlink(missing_ok=True)


def written_from(report: Path) -> str | None:
    """The digest of what a report was made from; None if there is no report."""
    try:
        with report.open("rb") as stream:
            head = stream.read(HEAD).decode("utf-8", "replace")
    except OSError:
        return None
    _, found, rest = head.partition('<meta name="dynconf-inputs" content="')
    return rest.partition('"')[0] if found else None


def _inputs(folder: Path, store: Store) -> str:
    """Identifies the results, which of their artefacts are there, and the code of reports."""
    found = hashlib.sha256()
    record = _record(folder)
    found.update(record.read_bytes())
    if record.name == RESULTS and folder.parent.name != "sweeps":
        for row in read_json(record).get("settings", []):
            keys = row.get("artefacts", {})
            there = [stage for stage in DRAWN if stage in keys and store.place(stage, str(keys[stage])).is_dir()]
            found.update(f"{row.get('name')} {there}\n".encode())
    for file in sorted(Path(__file__).parent.rglob("*")):
        if file.suffix in (".py", ".j2", ".css", ".js"):
            found.update(file.read_bytes())
    return found.hexdigest()[:32]


def _record(folder: Path) -> Path:
    for name in (RESULTS, RECORD):
        if (folder / name).is_file():
            return folder / name
    raise InputError(
        f"{folder} holds neither {RESULTS} nor {RECORD}: name the folder of a reproduction, a sweep or an analysis."
    )


def _report(folder: Path, store: Store, data: Path, compute: bool) -> Report:
    from dynconf_core.report.sources import Sources, report_command

    record = _record(folder)
    content = read_json(record)
    if record.name == RECORD:
        from dynconf_core.report.analysis import analysis_report

        name = folder.absolute().name
        return analysis_report(name, "", from_json(AnalysisRecord, content, str(record)), None, {}, "")
    if "points" in content:
        from dynconf_core.report.sweep import sweep_report

        return sweep_report(from_json(SweepResult, content, str(record)), report_command(folder, store))
    from dynconf_core.report.reproduction import reproduction

    return reproduction(read(RunResult, record), Sources(folder, store, compute), data)
