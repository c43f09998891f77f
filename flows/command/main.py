"""The command ``dynconf``: a thin layer over the flows, for people who have not learnt Prefect yet.

Heavy packages are imported inside the commands, so that ``dynconf --help`` answers at once.
"""

import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from dynconf_core.errors import InputError
from dynconf_flows.command import analyse as analyse_command
from dynconf_flows.command import convert as convert_command
from dynconf_flows.command import explain as explain_commands
from dynconf_flows.command import look as look_commands
from dynconf_flows.command import reproduce as reproduce_command
from dynconf_flows.command import sweep as sweep_command
from dynconf_flows.command.entry import missing_extra
from dynconf_flows.command.session import FAILED, INTERRUPTED

UNUSABLE = 2

app = typer.Typer(
    help="Dynamic Confidence for spiking neural networks: reproduce the paper's settings, judge them, use them.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="The data sets.", no_args_is_help=True)
for command in (
    reproduce_command.reproduce,
    look_commands.settings,
    explain_commands.traces,
    look_commands.export,
    explain_commands.explain,
    sweep_command.sweep,
    convert_command.convert,
    analyse_command.analyse,
    analyse_command.compare,
    look_commands.ui,
):
    app.command()(command)
app.add_typer(data_app, name="data")
data_app.command()(look_commands.fetch)


@app.callback(invoke_without_command=True)
def version(show: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Dynamic Confidence for spiking neural networks: reproduce the paper's settings, judge them, use them."""
    if show:
        from importlib.metadata import version as installed

        print(installed("dynconf"))
        raise typer.Exit


def main() -> None:
    """The command: no traceback for what the user gave, unless ``--debug``."""
    try:
        app()
    except InputError as error:
        if "--debug" in sys.argv:
            raise
        Console(stderr=True, emoji=False).print(f"[red]error:[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(UNUSABLE)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as error:
        if "--debug" in sys.argv or (isinstance(error, ModuleNotFoundError) and missing_extra(error)):
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        Console(stderr=True).print(
            f"[red]failed:[/red] {escape(reason)} (--debug shows where)", highlight=False, soft_wrap=True
        )
        sys.exit(FAILED)


if __name__ == "__main__":
    main()
