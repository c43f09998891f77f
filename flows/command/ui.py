"""``dynconf ui``: MLflow's user interface on the runs of a home."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from dynconf_core.errors import InputError
from dynconf_core.experiment.request import home_folder
from dynconf_flows.command.options import Home
from dynconf_flows.command.server import configure
from dynconf_flows.command.terminal import Terminal

LOOPBACK = "127.0.0.1"
EVERYWHERE = {"0.0.0.0": LOOPBACK, "::": "[::1]"}
"""Addresses to serve on that are none to connect to, and those that stand for them."""
FAILED = 1
PATIENCE = 90.0
"""Seconds to wait for the server, which is up in a few."""


def ui(
    home: Home = None,
    host: Annotated[str, typer.Option(help="Address to serve on; 0.0.0.0 serves the network, without a password.")] = LOOPBACK,
    port: Annotated[int, typer.Option(help="Port.", min=1, max=65535)] = 5000,
) -> None:
    """Serve the MLflow UI for the runs of the home.

    It goes on until Ctrl-C, and shows the addresses of its views.
    """
    folder = home_folder(home)
    database = folder / "mlflow.db"
    named = os.environ.get("MLFLOW_TRACKING_URI")
    if not named and not database.is_file():
        raise InputError(f"{database} does not exist: run `dynconf reproduce` first, or name another --home.")
    if named and named.startswith(("http://", "https://")):
        configure(folder)
        _show(folder, named.rstrip("/"), f"MLflow at {named} serves its own UI:")
        return
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise InputError(f"--host {host}: {error.strerror}; give an address of this machine, such as {LOOPBACK}.") from None
    family, _, _, _, address = found[0]
    with socket.socket(family) as probe:
        if probe.connect_ex(address) == 0:
            raise InputError(f"port {port} is in use: choose another with --port.")
    configure(folder)
    from dynconf_tasks.tracking.database import prepare, tracking_uri

    if not named:
        prepare(folder, lambda holder: None)
        os.chdir(folder)  # uvicorn, which MLflow starts, imports from the current folder, which may hold anything
    command, environment = server_command(host, port, tracking_uri(folder))
    shown = f"[{host}]" if ":" in host else host
    raise typer.Exit(
        _serve(command, environment, folder, f"http://{EVERYWHERE.get(host, shown)}:{port}", f"http://{shown}:{port}")
    )


def server_command(host: str, port: int, uri: str) -> tuple[list[str], dict[str, str]]:
    """The command of MLflow's server, and its environment.

    One worker is up sooner than MLflow's four, each of which imports everything, and is enough for one reader.
    """
    command = [sys.executable, "-P", "-m", "mlflow", "ui", "--host", host, "--port", str(port), "--workers", "1"]
    command += ["--uvicorn-opts", "--log-level warning", "--backend-store-uri", uri]
    environment = {
        **os.environ,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "PYTHONSAFEPATH": "1",
        "PYTHONWARNINGS": "ignore",
    }
    return command, environment


def _serve(command: Sequence[str], environment: dict[str, str], home: Path, place: str, shown: str) -> int:
    """Run the server until a signal; returns the exit code if it ends by itself.

    What it says while it starts is shown only if it does not start.
    """
    said: list[str] = []
    up = threading.Event()
    server = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )

    def listen() -> None:
        assert server.stdout is not None
        for line in server.stdout:
            if up.is_set():
                sys.stderr.write(line)
            else:
                said.append(line)

    listening = threading.Thread(target=listen, daemon=True)
    listening.start()
    try:
        Terminal(stderr=True).print("Starting MLflow's UI ...")
        if _answers(server, place):
            up.set()
            _show(home, shown, f"MLflow's UI on {home} (Ctrl-C stops it):")
            server.wait()
            return FAILED
    finally:  # also after a signal
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        server.wait()
    listening.join(1)
    sys.stderr.writelines(said)
    return FAILED


def _answers(server: "subprocess.Popen[str]", place: str) -> bool:
    """Whether the server comes up."""
    until = time.monotonic() + PATIENCE
    while server.poll() is None and time.monotonic() < until:
        with suppress(OSError), urllib.request.urlopen(f"{place}/health", timeout=2):
            return True
        time.sleep(0.1)
    return False


def _show(home: Path, place: str, heading: str) -> None:
    """Print the addresses of the views and of the newest run."""
    from dynconf_tasks.tracking.pages import pages

    console = Terminal()
    console.print(heading, soft_wrap=True)
    found = list(pages(home)) or [("All experiments", "#/experiments?workflowType=machine_learning")]
    width = max(len(title) for title, _ in found)
    for title, address in found:
        console.print(f"  {title:<{width}}  {place}/{address}", soft_wrap=True)
