"""The command ``dynconf``: a thin layer over the flows that needs no knowledge of Prefect.

Heavy packages are imported inside the commands, so that ``dynconf --help`` is fast.
"""

import logging
import os
import sys
from typing import Annotated

import typer

from dynconf_core.errors import InputError
from dynconf_core.files import NotWritten
from dynconf_flows.command.adopt import adopt
from dynconf_flows.command.analyse import analyse
from dynconf_flows.command.compare import compare
from dynconf_flows.command.convert import convert
from dynconf_flows.command.data import fetch
from dynconf_flows.command.deploy import deploy
from dynconf_flows.command.doctor import doctor
from dynconf_flows.command.entry import UNUSABLE, missing_extra
from dynconf_flows.command.explain import explain
from dynconf_flows.command.export import export
from dynconf_flows.command.export_nir import export_nir
from dynconf_flows.command.gc import gc
from dynconf_flows.command.help import Command, Group
from dynconf_flows.command.reconcile import reconcile
from dynconf_flows.command.register import register
from dynconf_flows.command.report import report
from dynconf_flows.command.reproduce import reproduce
from dynconf_flows.command.resend import resend
from dynconf_flows.command.server import no_space
from dynconf_flows.command.session import FAILED
from dynconf_flows.command.settings import settings
from dynconf_flows.command.signals import handled, leave
from dynconf_flows.command.status import status
from dynconf_flows.command.sweep import sweep
from dynconf_flows.command.terminal import Terminal, flush, labelled, prepare
from dynconf_flows.command.traces import traces
from dynconf_flows.command.ui import ui
from dynconf_flows.command.verify import verify
from dynconf_tasks.interruption import interrupted

ABOUT = "Dynamic Confidence for spiking neural networks: reproduce the paper, convert networks, and analyse exit rules."

app = typer.Typer(
    help=ABOUT,
    no_args_is_help=True,
    cls=Group,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Download data sets.", no_args_is_help=True, cls=Group, rich_markup_mode=None)
for command in (
    reproduce,
    settings,
    traces,
    report,
    export,
    explain,
    adopt,
    sweep,
    convert,
    export_nir,
    analyse,
    compare,
    resend,
    ui,
    register,
    status,
    doctor,
    reconcile,
    gc,
    verify,
    deploy,
):
    app.command(cls=Command)(command)
app.add_typer(data_app, name="data")
data_app.command(cls=Command)(fetch)


@app.callback(invoke_without_command=True, help=ABOUT)
def version(show: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Print the version if asked to."""
    if show:
        from importlib.metadata import version as installed

        print(installed("dynconf"))
        raise typer.Exit


def main() -> None:
    """Run the command, without tracebacks unless ``--debug`` is given."""
    prepare()
    logging.raiseExceptions = "--debug" in sys.argv  # what Prefect could not log is not worth lines on the screen
    try:
        try:
            with handled():
                app()
        finally:
            flush()
    except InputError as error:
        if "--debug" in sys.argv:
            raise
        Terminal(stderr=True).print(labelled("error:", "red", str(error)), soft_wrap=True)
        sys.exit(UNUSABLE)
    except Exception as error:
        if "--debug" in sys.argv or (isinstance(error, ModuleNotFoundError) and missing_extra(error)):
            raise
        known = str(error) if isinstance(error, NotWritten) else no_space()
        reason = known or f"{' '.join(str(error).split()) or type(error).__name__} (--debug shows where)"
        Terminal(stderr=True).print(labelled("failed:", "red", reason), soft_wrap=True)
        sys.exit(FAILED)
    finally:
        if interrupted():
            leave()


if __name__ == "__main__":
    os.environ["PYTHONSAFEPATH"] = "1"  # as in ``entry``
    main()
