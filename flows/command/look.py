"""Commands that look: at the settings, at what the home holds, at the runs; and the one that fetches data."""

import os
import socket
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from dynconf_core.errors import InputError
from dynconf_core.experiment.request import Request, check_writable, data_folder, home_folder
from dynconf_flows.command.arguments import checkpoint_files, with_fixed_point
from dynconf_flows.command.options import (
    AsJson,
    Checkpoint,
    Data,
    Device,
    Home,
    Memory,
    NoFixedPoint,
    ProfileOption,
    Set,
    print_json,
)
from dynconf_flows.command.server import configure

RUNS = "#/experiments?workflowType=machine_learning"
"""The page of MLflow's UI for models that are trained; it opens on one for language models, which shows no runs."""


def settings(as_json: AsJson = False) -> None:
    """List the eight settings, the profiles' values and the paper's figures."""
    from dynconf_core.experiment.settings import PROFILES, SETTINGS, resolve

    if as_json:
        content = {
            name: {
                **{profile: resolve(name, profile).as_dict() for profile in PROFILES},
                "paper": vars(entry.published) if entry.published else None,
            }
            for name, entry in SETTINGS.items()
        }
        print_json({"schema": 2, "settings": content})
        return
    from dynconf_flows.command.tables import profiles_table, settings_table

    console = Console()
    console.print(settings_table())
    console.print(profiles_table())


def fetch(
    name: Annotated[str, typer.Argument(help="cifar10 or imagenette.")],
    data: Data = None,
    home: Home = None,
) -> None:
    """Download a data set, verify it, and say what was done."""
    if name not in ("cifar10", "imagenette"):
        raise InputError(
            f"data set {name!r} cannot be fetched: cifar10 and imagenette can; ImageNet's licence asks for your login."
        )
    console = Console()
    root = data_folder(data, home_folder(home))
    check_writable(root)
    if name == "cifar10":
        from dynconf_core.data.fetch import fetch_cifar10

        fetch_cifar10(root, say=lambda text: console.print(text, highlight=False))
    else:
        from dynconf_core.data.fetch_imagenette import fetch_imagenette

        fetch_imagenette(root, lambda text: console.print(text, highlight=False))


def traces(
    setting: Annotated[str, typer.Argument(help="One of the eight.")],
    split: Annotated[str, typer.Option(help="calibration or test.")],
    out: Annotated[Path, typer.Option(help="The file to write, FILE.npz.")],
    profile: ProfileOption = "smoke",
    overrides: Set = None,
    seed: int = 0,
    device: Device = "auto",
    home: Home = None,
    data: Data = None,
    checkpoint: Checkpoint = None,
    memory: Memory = None,
    no_fixed_point: NoFixedPoint = False,
) -> None:
    """Write a setting's traces from the home in the public format."""
    from dynconf_core.experiment.overrides import parse
    from dynconf_core.traces.schema import Traces

    if out.suffix != ".npz":
        raise InputError(f"--out {out}: name a file that ends in .npz.")
    if split not in ("calibration", "test"):
        raise InputError(f"split={split!r} is unknown: choose calibration or test.")
    values = with_fixed_point(parse(overrides or []), no_fixed_point)
    request = _request(setting, profile, values, seed, device, home, data, checkpoint, memory)
    from dynconf_flows.command.explain import finished

    found = finished(request).get(f"collect_{split}")
    if found is None:
        raise InputError(
            f"{request.home} holds no {split} traces of {setting} as asked for: run `dynconf reproduce` with the same options."
        )
    written = Traces.load(found.folder).save(out)
    Console().print(f"{written}: {split} traces of {setting}, profile {profile}", highlight=False)


def export(
    out: Annotated[Path, typer.Option(help="The folder to write, such as results/2026-11-25-epyc.")],
    run: Annotated[Path | None, typer.Argument(help="The run's folder [default: the newest of the home].")] = None,
    traces: Annotated[bool, typer.Option(help="Compressed traces, nearly all of the folder's size.")] = True,
    home: Home = None,
) -> None:
    """Make a folder of a run that can be published: table, JSON, pictures, training records and compressed traces."""
    configure(home_folder(home))
    from dynconf_core.results.export import export as exported

    files = exported(run, out, home, traces)
    size = sum(path.stat().st_size for path in files) / 1e6
    Console().print(f"{out}: {len(files)} files, {size:.1f} MB", highlight=False, soft_wrap=True)


def explain(
    setting: Annotated[str, typer.Argument(help="One of the eight.")],
    profile: ProfileOption = "smoke",
    overrides: Set = None,
    seed: int = 0,
    device: Device = "auto",
    home: Home = None,
    data: Data = None,
    checkpoint: Checkpoint = None,
    memory: Memory = None,
    no_fixed_point: NoFixedPoint = False,
    as_json: AsJson = False,
) -> None:
    """Say for every stage of a setting whether its artefact is there, and if not, which part of its key differs."""
    from dynconf_core.experiment.overrides import parse

    values = with_fixed_point(parse(overrides or []), no_fixed_point)
    request = _request(setting, profile, values, seed, device, home, data, checkpoint, memory)
    from dynconf_flows.command.explain import explained

    lines = explained(request)
    if as_json:
        print_json({"schema": 2, "setting": setting, "stages": lines})
        return
    for line in lines:
        Console().print(f"{line['stage']:<20} {line['outcome']:<5} {line['reason']}", highlight=False)


def _request(
    setting: str,
    profile: str,
    values: dict[str, Any],
    seed: int,
    device: str,
    home: str | None,
    data: str | None,
    checkpoint: list[str] | None,
    memory: str | None,
) -> Request:
    """What a run of one setting was asked for, its home set up."""
    folder = home_folder(home)
    files = checkpoint_files(checkpoint, seed)
    configure(folder)
    return Request(profile, (setting,), values, seed, device, str(folder), str(data_folder(data, folder)), files, memory)


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
