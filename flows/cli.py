"""The command ``dynconf``: a thin layer over the flows, for people who have not learnt Prefect yet.

Heavy packages are imported inside the commands, so that ``dynconf --help`` answers at once.
"""

import os
import shlex
import socket
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from dynconf_core.errors import InputError
from flows import interruption
from flows.arguments import named_texts, seed_numbers
from flows.request import Request, check_writable, checked, data_folder, home_folder
from flows.server import configure
from flows.session import INTERRUPTED, Session

FAILED, UNUSABLE = 1, 2

app = typer.Typer(
    help="Dynamic Confidence for spiking neural networks: reproduce the paper's settings, judge them, use them.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="The data sets.", no_args_is_help=True)
app.add_typer(data_app, name="data")

Home = Annotated[
    str | None, typer.Option(help="Folder of artefacts, results and tracking [default: $DYNCONF_HOME or .dynconf].")
]
Data = Annotated[str | None, typer.Option(help="Folder of the data sets [default: $DYNCONF_DATA or HOME/data].")]
ProfileOption = Annotated[str, typer.Option(help="How much is run: smoke, quick or paper; see `dynconf settings`.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Override a field, such as time_steps=16.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks and Prefect's log.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]


@app.callback(invoke_without_command=True)
def version(show: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Dynamic Confidence for spiking neural networks: reproduce the paper's settings, judge them, use them."""
    if show:
        from importlib.metadata import version as installed

        print(installed("dynconf"))
        raise typer.Exit


@app.command()
def reproduce(
    profile: ProfileOption = "smoke",
    setting: Annotated[list[str] | None, typer.Option(help="One of the eight; may be repeated [default: all].")] = None,
    overrides: Set = None,
    seed: Annotated[int | None, typer.Option(help="Of weights, shuffling, augmentation and search.")] = None,
    seeds: Annotated[str | None, typer.Option(help="Several seeds, such as 0,1,2; adds mean and deviation.")] = None,
    device: Device = "auto",
    home: Home = None,
    data: Data = None,
    checkpoint: Annotated[
        list[str] | None, typer.Option(metavar="SETTING=PATH", help="Take these weights instead of training.")
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Run the paper's eight settings, or those named: train, convert, simulate, choose the exit rule, judge it."""
    from dynconf_core.overrides import parse

    numbers = seed_numbers(seed, seeds)
    values = parse(overrides or [])
    folder = home_folder(home)
    requests = [
        Request(
            profile,
            tuple(setting or ()),
            values,
            number,
            device,
            str(folder),
            str(data_folder(data, folder)),
            named_texts(checkpoint, "--checkpoint", "SETTING=PATH"),
        )
        for number in numbers
    ]
    for request in requests:
        checked(request)
    with Session(folder, debug) as session:
        documents = [document for request in requests if (document := _reproduced(session, request, as_json)) is not None]
    _report(documents, as_json, folder)


@app.command()
def settings(as_json: AsJson = False) -> None:
    """List the eight settings, the profiles' values and the paper's figures."""
    from dynconf_core.settings import PROFILES, SETTINGS, resolve

    if as_json:
        content = {
            name: {
                **{profile: resolve(name, profile).as_dict() for profile in PROFILES},
                "paper": vars(entry.published) if entry.published else None,
            }
            for name, entry in SETTINGS.items()
        }
        _print_json({"schema": 1, "settings": content})
        return
    from flows.table import profiles_table, settings_table

    console = Console()
    console.print(settings_table())
    console.print(profiles_table())


@data_app.command("fetch")
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


@app.command()
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
) -> None:
    """Write a setting's traces from the home in the public format."""
    from dynconf_core.overrides import parse
    from dynconf_core.traces import Traces

    if out.suffix != ".npz":
        raise InputError(f"--out {out}: name a file that ends in .npz.")
    if split not in ("calibration", "test"):
        raise InputError(f"split={split!r} is unknown: choose calibration or test.")
    folder = home_folder(home)
    request = Request(profile, (setting,), parse(overrides or []), seed, device, str(folder), str(data_folder(data, folder)))
    configure(folder)
    from flows.explain import finished

    found = finished(request).get(f"collect_{split}")
    if found is None:
        raise InputError(
            f"{folder} holds no {split} traces of {setting} as asked for: run `dynconf reproduce` with the same options."
        )
    written = Traces.load(found.folder).save(out)
    Console().print(f"{written}: {split} traces of {setting}, profile {profile}", highlight=False)


@app.command()
def explain(
    setting: Annotated[str, typer.Argument(help="One of the eight.")],
    profile: ProfileOption = "smoke",
    overrides: Set = None,
    seed: int = 0,
    device: Device = "auto",
    home: Home = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Say for every stage of a setting whether its artefact is there, and if not, which part of its key differs."""
    from dynconf_core.overrides import parse

    folder = home_folder(home)
    request = Request(profile, (setting,), parse(overrides or []), seed, device, str(folder), str(data_folder(data, folder)))
    configure(folder)
    from flows.explain import explained

    lines = explained(request)
    if as_json:
        _print_json({"schema": 1, "setting": setting, "stages": lines})
        return
    for line in lines:
        Console().print(f"{line['stage']:<20} {line['outcome']:<5} {line['reason']}", highlight=False)


@app.command()
def sweep(
    setting: Annotated[list[str], typer.Option(help="One of the eight; may be repeated.")],
    grid: Annotated[
        list[str] | None, typer.Option(metavar="FIELD=A,B,C", help="Values of a field (or of seed); every combination is run.")
    ] = None,
    study: Annotated[
        list[str] | None,
        typer.Option(metavar="FIELD=LOW..HIGH", help="A range, or a list of values, in which Optuna looks."),
    ] = None,
    trials: Annotated[int | None, typer.Option(help="Points of a study [default: 20].", min=1)] = None,
    profile: ProfileOption = "smoke",
    overrides: Set = None,
    seed: int = 0,
    device: Device = "auto",
    home: Home = None,
    data: Data = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Run a grid, or an Optuna study, over settings' fields and show the Pareto front of accuracy against mean steps."""
    from dynconf_core.overrides import parse
    from flows.points import checked_points

    folder = home_folder(home)
    asked = {
        "settings": list(setting),
        "profile": profile,
        "grid": named_texts(grid, "--grid", "FIELD=VALUES, such as --grid time_steps=8,16,32"),
        "study": named_texts(study, "--study", "FIELD=VALUES, such as --study alpha=0.5..8"),
        "trials": trials or 20,
        "overrides": parse(overrides or []),
        "seed": seed,
        "device": device,
        "home": str(folder),
        "data": str(data_folder(data, folder)),
    }
    if trials is not None and not study:
        raise InputError(f"--trials {trials} is for a study: a grid has as many points as its values make.")
    checked_points(asked["settings"], profile, asked["grid"], asked["study"], asked["overrides"], seed)
    checked(Request(profile, tuple(setting), asked["overrides"], seed, device, str(folder), asked["data"]))
    with Session(folder, debug) as session:
        from flows.sweep import sweep as flow

        session.ready()
        document = session.run(lambda: flow(**asked), as_json)
    if document is None:
        raise typer.Exit(INTERRUPTED)
    if as_json:
        _print_json(document)
    else:
        from flows.table import sweep_table

        console = Console()
        console.print(sweep_table(document))
        console.print(f"Results: {document['results']}", highlight=False)
    if interruption.interrupted():
        raise typer.Exit(INTERRUPTED)
    if document["failed"]:
        raise typer.Exit(FAILED)


@app.command()
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
    Console().print(f"MLflow UI on http://127.0.0.1:{port}, up in some seconds (Ctrl-C ends it)", highlight=False)
    configure(folder)
    from tasks.track import tracking_uri

    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    command = [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(port)]
    os.execve(sys.executable, [*command, "--backend-store-uri", tracking_uri(folder)], environment)


def _reproduced(session: Session, request: Request, quiet: bool) -> dict[str, Any] | None:
    if interruption.interrupted():
        return None
    console = Console(stderr=True, quiet=quiet)
    count = len(request.plans())
    console.print(
        f"{count} setting{'s'[: count > 1]}, profile {request.profile}, seed {request.seed}, home {request.home}",
        highlight=False,
    )
    from flows.reproduce import reproduce as flow  # torch and Prefect are imported while the server comes up

    session.ready()
    return session.run(
        lambda: flow(
            profile=request.profile,
            settings=list(request.settings) or None,
            overrides=dict(request.overrides),
            seed=request.seed,
            device=request.device,
            home=request.home,
            data=request.data,
            checkpoints=dict(request.checkpoints),
            command=shlex.join(["dynconf", *sys.argv[1:]]),
        ),
        quiet,
    )


def _report(documents: list[dict[str, Any]], as_json: bool, home: Path) -> None:
    """Tables and places, then the exit code."""
    from flows.results import over_seeds, write_over_seeds
    from flows.table import results_table, seeds_table

    notes = Console(stderr=True)
    console = Console(width=max(80, Console().width))  # narrower, figures would be cut
    if len(documents) > 1:
        write_over_seeds(home, documents)
    if as_json:
        _print_json(
            documents[0] if len(documents) == 1 else {"schema": 1, "seeds": documents, "over_seeds": over_seeds(documents)}
        )
    else:
        for document in documents:
            console.print(results_table(document, console.width))
        if len(documents) > 1:
            console.print(seeds_table(documents))
    for document in documents:
        if document["tracking_error"]:
            notes.print(f"Not logged to MLflow: {document['tracking_error']}", highlight=False)
    if documents and not as_json:
        console.print(f"Results: {home / 'results' / documents[-1]['run']}", highlight=False, soft_wrap=True)
        console.print(f"MLflow:  dynconf ui --home {home}", highlight=False, soft_wrap=True)
    if interruption.interrupted():
        raise typer.Exit(INTERRUPTED)
    if any(row["status"] == "failed" for document in documents for row in document["settings"]):
        raise typer.Exit(FAILED)


def _print_json(content: dict[str, Any]) -> None:
    import json

    print(json.dumps(content, indent=1, allow_nan=False))


def main() -> None:
    """The command: no traceback for what the user gave, unless ``--debug``."""
    try:
        app()
    except InputError as error:
        if "--debug" in sys.argv:
            raise
        Console(stderr=True).print(f"[red]error:[/red] {error}", highlight=False, soft_wrap=True)
        sys.exit(UNUSABLE)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as error:
        if "--debug" in sys.argv:
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        Console(stderr=True).print(f"[red]failed:[/red] {reason} (--debug shows where)", highlight=False, soft_wrap=True)
        sys.exit(FAILED)


if __name__ == "__main__":
    main()
