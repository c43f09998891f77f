"""``dynconf register``: SNNs with their exit rules in MLflow's model registry, ready to be served."""

from typing import Annotated

import typer

from dynconf_core.experiment.request import data_folder, home_folder
from dynconf_core.schemes.field import as_written
from dynconf_flows.command.options import AsJson, Data, Home, print_json
from dynconf_flows.command.server import configure
from dynconf_flows.command.terminal import Terminal


def register(
    run: Annotated[
        str,
        typer.Argument(help="latest, a reproduction by its name or folder, or the id of a run in MLflow."),
    ] = "latest",
    setting: Annotated[
        list[str] | None, typer.Option(help="A setting of the run; repeatable [default: all that finished].")
    ] = None,
    alias: Annotated[str | None, typer.Option(help="An alias to give to the version, such as champion.")] = None,
    name: Annotated[str | None, typer.Option(help="The model's name, for one setting [default: dynconf-SETTING].")] = None,
    home: Home = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Put SNNs with their exit rules into MLflow's registry.

    Prints what was registered (the run, its seed and overrides, and the figures) and how to serve it. Repeating it adds no
    version.
    """
    folder = home_folder(home)
    configure(folder)
    from dynconf_tasks.answering import without_password
    from dynconf_tasks.serving.register import register as registered
    from dynconf_tasks.serving.register import serve_command
    from dynconf_tasks.tracking.database import tracking_uri

    made = registered(folder, data_folder(data, folder), run, setting or [], name, alias)
    tracking = without_password(tracking_uri(folder))
    if as_json:
        entries = [
            {
                "setting": one.setting,
                "name": one.name,
                "version": one.version,
                "alias": one.alias,
                "uri": one.uri,
                "new": one.new,
                "run": one.run,
                "seed": one.seed,
                "overrides": dict(one.overrides),
                "figures": one.figures,
                "serve": serve_command(one.uri, tracking),
            }
            for one in made
        ]
        print_json({"schema": 2, "models": entries})
        return
    console = Terminal()
    for one in made:
        known = "" if one.new else ", which was there already"
        console.print(f"{one.uri}  version {one.version}{known}", soft_wrap=True)
        console.print(f"  {one.figures}", soft_wrap=True)
        console.print(f"  from the run {one.run}, seed {one.seed}", soft_wrap=True)
        if one.overrides:
            values = ", ".join(f"{name}={as_written(value)}" for name, value in one.overrides.items())
            console.print(f"  Note: not the profile's own setting, but with {values}", soft_wrap=True)
    console.print("\nServe one of them on this machine (Ctrl-C stops it):" if len(made) > 1 else "\nServe it on this machine:")
    console.print(serve_command(made[0].uri, tracking), soft_wrap=True)
