"""Commands around the runs: the settings that there are, the data sets, a run to publish, the runs in MLflow."""

import os
import socket
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from dynconf_core.data.dataset import DATASETS, FETCHERS
from dynconf_core.errors import InputError
from dynconf_core.experiment.request import check_writable, data_folder, home_folder
from dynconf_flows.command.options import (
    AsJson,
    Data,
    Home,
    print_json,
)
from dynconf_flows.command.server import configure

RUNS = "#/experiments?workflowType=machine_learning"
"""The page of MLflow's UI for models that are trained; it opens on one for language models, which shows no runs."""


def settings(as_json: AsJson = False) -> None:
    """List the settings, the profiles' values and the paper's figures: the eight, further ones and those of packages."""
    if as_json:
        from dynconf_core.experiment.settings import names

        print_json({"schema": 2, "settings": {name: _as_json(name) for name in names()}})
        return
    from dynconf_flows.command.tables import profiles_table, settings_table

    console = Console()
    console.print(settings_table())
    console.print(profiles_table())


def _as_json(name: str) -> dict[str, Any]:
    """A setting's plans, in those profiles that have one, and the paper's figures; or why it cannot be used."""
    from dynconf_core.experiment.profiles import plans
    from dynconf_core.experiment.settings import setting

    try:
        published = setting(name).published
        found = {profile: plan.as_dict() for profile, plan in plans(name).items()}
    except InputError as error:
        return {"error": str(error)}
    return {**found, "paper": vars(published) if published else None}


def fetch(
    name: Annotated[str, typer.Argument(help="cifar10 or imagenette.")],
    data: Data = None,
    home: Home = None,
) -> None:
    """Download a data set, verify it, and say what was done."""
    if name in DATASETS.names() and name not in FETCHERS.names():
        raise InputError(
            f"data set {name!r} cannot be fetched: {', '.join(FETCHERS.names())} can. Of the others, digits come with "
            "scikit-learn, and ImageNet's licence asks for your login."
        )
    fetch_it = FETCHERS.get(name)
    console = Console()
    root = data_folder(data, home_folder(home))
    check_writable(root)
    fetch_it(root, say=lambda text: console.print(text, highlight=False))


def export(
    out: Annotated[Path, typer.Option(help="The folder to write, such as results/2026-11-25-epyc.")],
    run: Annotated[Path | None, typer.Argument(help="The run's folder [default: the newest of the home].")] = None,
    traces: Annotated[bool, typer.Option(help="Compressed traces, nearly all of the folder's size.")] = True,
    rule: Annotated[str | None, typer.Option(help="The rule's measure where it is one's own: package.module:Class.")] = None,
    home: Home = None,
) -> None:
    """Make a folder of a run that can be published: table, JSON, pictures, training records and compressed traces."""
    configure(home_folder(home))
    from dynconf_core.results.export import export as exported

    files = exported(run, out, home, traces, rule)
    size = sum(path.stat().st_size for path in files) / 1e6
    Console().print(f"{out}: {len(files)} files, {size:.1f} MB", highlight=False, soft_wrap=True)


def ui(
    home: Home = None,
    port: Annotated[int, typer.Option(help="Of the loopback interface.", min=1, max=65535)] = 5000,
) -> None:
    """Open the MLflow UI on the home's runs; Ctrl-C ends it."""
    folder = home_folder(home)
    database = folder / "mlflow.db"
    if not os.environ.get("MLFLOW_TRACKING_URI") and not database.is_file():
        raise InputError(f"{database} does not exist: run `dynconf reproduce` first, or name another --home.")
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise InputError(f"port {port} is taken: name another with --port.")
    place = f"http://127.0.0.1:{port}/{RUNS}"
    Console().print(f"MLflow UI, up in some seconds (Ctrl-C ends it):\n{place}", highlight=False, soft_wrap=True)
    configure(folder)
    from dynconf_tasks.track import tracking_uri

    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    command = [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(port)]
    os.execve(sys.executable, [*command, "--backend-store-uri", tracking_uri(folder)], environment)
