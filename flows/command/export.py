"""``dynconf export``: a run as a folder for publication."""

from pathlib import Path
from typing import Annotated

import typer

from dynconf_core.experiment.request import home_folder
from dynconf_flows.command.options import Home
from dynconf_flows.command.server import configure
from dynconf_flows.command.terminal import Terminal


def export(
    out: Annotated[Path, typer.Option(help="The folder to write, e.g. results/2026-11-25-epyc.")],
    run: Annotated[Path | None, typer.Argument(help="The run's folder [default: the newest run of the home].")] = None,
    traces: Annotated[bool, typer.Option(help="Include compressed traces, which take up most of the folder.")] = True,
    rule: Annotated[str | None, typer.Option(help="The rule's measure if it is your own: package.module:Class.")] = None,
    home: Home = None,
) -> None:
    """Export a run as a folder for publication.

    It holds the table, JSON, report, figures, training records and compressed traces.
    """
    configure(home_folder(home))
    from dynconf_core.report.writing import write_report
    from dynconf_core.results.export import export as exported

    files = [*exported(run, out, home, traces, rule), write_report(out, home)]
    size = sum(path.stat().st_size for path in files) / 1e6
    Terminal().print(f"{out}: {len(files)} files, {size:.1f} MB", soft_wrap=True)
