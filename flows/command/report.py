"""``dynconf report``: the report of results, or of traces, as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dynconf_core.errors import InputError
from dynconf_core.experiment.request import check_folder, data_folder, home_folder
from dynconf_flows.command.options import Data, Debug, Home
from dynconf_flows.command.server import configure
from dynconf_flows.command.terminal import Terminal


def report(
    of: Annotated[
        Path | None,
        typer.Argument(
            metavar="[DIR|TRACES]",
            help="A folder of results, a sweep, an analysis, or traces (.npz) [default: the newest run of the home].",
            show_default=False,
        ),
    ] = None,
    test: Annotated[
        Path | None, typer.Option(help="Test traces that belong to TRACES; without them the one set is halved.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The file to write [default: report.html in the folder, NAME-report.html beside traces]."),
    ] = None,
    home: Home = None,
    data: Data = None,
    debug: Debug = False,
) -> None:
    """Write the report of results, or of traces, as one HTML file.

    It opens from disk without a network. Curves that the results do not hold are computed from their traces.
    """
    configure(home_folder(home))
    console = Terminal()
    if out is not None:
        check_folder(out.absolute().parent, "--out")
    from dynconf_core.report.writing import write_report
    from dynconf_core.results.trace_pairs import holds_several

    folder = _run(of, home)
    if not folder.exists():
        raise InputError(f"{folder} does not exist: name a folder of results, or traces (.npz).")
    if holds_several(folder):
        if test is not None:
            raise InputError(f"--test {test} belongs to traces, but {folder} is a folder of results: leave --test out.")
        shown = data_folder(data, home_folder(home)) if data is not None or home is not None else None
        path = write_report(folder, home, shown, out, compute=True)
    else:
        path = _of_traces(folder, test, out)
    console.print(f"Report: {path} ({path.stat().st_size / 1e6:.1f} MB)", soft_wrap=True)


def _run(of: Path | None, home: str | None) -> Path:
    """The folder or file: a name without a folder may be that of a run or sweep of the home."""
    if of is None:
        return home_folder(home) / "results" / "latest"
    places = (of, home_folder(home) / "results" / of, home_folder(home) / of)
    return next((place for place in places if place.exists()), of)


def _of_traces(traces: Path, test: Path | None, out: Path | None) -> Path:
    from dynconf_core.evaluation.analysis import analyse
    from dynconf_core.evaluation.curves import curves_of
    from dynconf_core.report.analysis import analysis_report
    from dynconf_core.report.writing import written_report
    from dynconf_core.results.trace_pairs import pairs
    from dynconf_tasks.analyse import described, loaded

    (pair,) = pairs(traces, test)
    calibration, judge, split = loaded(pair, seed=0)
    found = analyse(calibration, judge, split=split)
    curves = curves_of(judge, found.rule, found.robustness)
    command = " ".join(["dynconf report", str(traces), *(["--test", str(test)] if test else [])])
    report = analysis_report(pair.name, described(judge), found.record, curves, found.test_fronts, command)
    name = traces.name.removesuffix(".npz")
    return written_report(report, out or traces.with_name(f"{name}-report.html"))
