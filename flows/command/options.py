"""Options that several commands share, and how they print JSON."""

from typing import Annotated, Any

import typer

Home = Annotated[
    str | None, typer.Option(help="Folder of artefacts, results and tracking [default: $DYNCONF_HOME or .dynconf].")
]
Data = Annotated[str | None, typer.Option(help="Folder of the data sets [default: $DYNCONF_DATA or HOME/data].")]
ProfileOption = Annotated[str, typer.Option(help="How much is run: smoke, quick or paper; see `dynconf settings`.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Override a field, such as time_steps=16.")]
Checkpoint = Annotated[
    list[str] | None, typer.Option(metavar="SETTING=PATH", help="The weights that the run was given, if it was given any.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Memory = Annotated[
    str | None, typer.Option(metavar="SIZE", help="What simulation on a CPU may take, such as 8GiB [default: no bound].")
]
NoFixedPoint = Annotated[
    bool, typer.Option("--no-fixed-point", help="Leave the SNN's weights unrounded: figures then depend on batch and device.")
]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks and Prefect's log.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]


def print_json(content: dict[str, Any]) -> None:
    """Print it and nothing else."""
    import json

    print(json.dumps(content, indent=1, allow_nan=False))
