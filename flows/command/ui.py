"""``dynconf ui``: MLflow's user interface on the runs of a home."""

import os
import socket
import sys
from typing import Annotated

import typer

from dynconf_core.errors import InputError
from dynconf_core.experiment.request import home_folder
from dynconf_flows.command.options import Home
from dynconf_flows.command.server import configure
from dynconf_flows.command.terminal import Terminal

LOOPBACK = "127.0.0.1"
RUNS = "#/experiments?workflowType=machine_learning"
"""The page for training runs; by default the UI opens on one for language models, which does not show them."""


def ui(
    home: Home = None,
    host: Annotated[str, typer.Option(help="Address to serve on; 0.0.0.0 serves the network, without a password.")] = LOOPBACK,
    port: Annotated[int, typer.Option(help="Port.", min=1, max=65535)] = 5000,
) -> None:
    """Serve the MLflow UI for the runs of the home until Ctrl-C."""
    folder = home_folder(home)
    database = folder / "mlflow.db"
    if not os.environ.get("MLFLOW_TRACKING_URI") and not database.is_file():
        raise InputError(f"{database} does not exist: run `dynconf reproduce` first, or name another --home.")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise InputError(f"--host {host}: {error.strerror}; give an address of this machine, such as {LOOPBACK}.") from None
    family, _, _, _, address = found[0]
    with socket.socket(family) as probe:
        if probe.connect_ex(address) == 0:
            raise InputError(f"port {port} is in use: choose another with --port.")
    place = f"http://{f'[{host}]' if ':' in host else host}:{port}/{RUNS}"
    Terminal().print(f"MLflow UI, ready in a few seconds (Ctrl-C stops it):\n{place}", soft_wrap=True)
    configure(folder)
    from dynconf_tasks.tracking.database import prepare, tracking_uri

    if not os.environ.get("MLFLOW_TRACKING_URI"):
        prepare(folder, lambda holder: None)
        os.chdir(folder)  # uvicorn, which MLflow starts, imports from the current folder, which may hold anything
    environment = {
        **os.environ,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "PYTHONSAFEPATH": "1",
    }
    command = [sys.executable, "-P", "-m", "mlflow", "ui", "--host", host, "--port", str(port)]
    os.execve(sys.executable, [*command, "--backend-store-uri", tracking_uri(folder)], environment)
