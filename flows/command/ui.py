"""``dynconf ui``: MLflow's user interface on the runs of a home."""

import os
import socket
import sys
from typing import Annotated

import typer
from rich.console import Console

from dynconf_core.errors import InputError
from dynconf_core.experiment.request import home_folder
from dynconf_flows.command.options import Home
from dynconf_flows.command.server import configure

RUNS = "#/experiments?workflowType=machine_learning"
"""The page for training runs; by default the UI opens on one for language models, which does not show them."""


def ui(
    home: Home = None,
    port: Annotated[int, typer.Option(help="Port on the loopback interface.", min=1, max=65535)] = 5000,
) -> None:
    """Serve the MLflow UI for the runs of the home until Ctrl-C."""
    folder = home_folder(home)
    database = folder / "mlflow.db"
    if not os.environ.get("MLFLOW_TRACKING_URI") and not database.is_file():
        raise InputError(f"{database} does not exist: run `dynconf reproduce` first, or name another --home.")
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise InputError(f"port {port} is in use: choose another with --port.")
    place = f"http://127.0.0.1:{port}/{RUNS}"
    Console().print(f"MLflow UI, ready in a few seconds (Ctrl-C stops it):\n{place}", highlight=False, soft_wrap=True)
    configure(folder)
    from dynconf_tasks.mlflow_database import tracking_uri

    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    command = [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(port)]
    os.execve(sys.executable, [*command, "--backend-store-uri", tracking_uri(folder)], environment)
