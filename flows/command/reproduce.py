"""``dynconf reproduce``: the settings, from training to the table."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from dynconf_core.experiment.request import CheckedRequest, Request, checked, data_folder, home_folder
from dynconf_flows.command.arguments import checkpoint_files, seed_numbers, with_fixed_point
from dynconf_flows.command.options import (
    AsJson,
    Data,
    Debug,
    Device,
    Home,
    Memory,
    NoFixedPoint,
    ProfileOption,
    Set,
    print_json,
)
from dynconf_flows.command.session import FAILED, INTERRUPTED, Session
from dynconf_tasks import interruption


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
        list[str] | None,
        typer.Option(metavar="SETTING=PATH", help="Take these weights instead of training; {seed} in PATH is the seed."),
    ] = None,
    memory: Memory = None,
    no_fixed_point: NoFixedPoint = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Run the paper's eight settings, or those named: train, convert, simulate, choose the exit rule, judge it."""
    from dynconf_core.experiment.overrides import parse

    numbers = seed_numbers(seed, seeds)
    values = with_fixed_point(parse(overrides or []), no_fixed_point)
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
            checkpoint_files(checkpoint, number, several=len(numbers) > 1),
            memory,
        )
        for number in numbers
    ]
    asked = [checked(request) for request in requests]
    with Session(folder, debug) as session:
        documents = [document for one in asked if (document := _reproduced(session, one, as_json)) is not None]
    _report(documents, as_json, folder)


def _reproduced(session: Session, asked: CheckedRequest, quiet: bool) -> dict[str, Any] | None:
    if interruption.interrupted():
        return None
    console = Console(stderr=True, quiet=quiet)
    count, request = len(asked.plans), asked.request
    console.print(
        f"{count} setting{'s'[: count > 1]}, profile {request.profile}, seed {request.seed}, home {request.home}",
        highlight=False,
    )
    from dynconf_flows.reproduce import checked_reproduction  # torch and Prefect are imported while the server comes up

    session.ready()
    return session.run(lambda: checked_reproduction(asked, shlex.join(["dynconf", *sys.argv[1:]])), quiet)


def _report(documents: list[dict[str, Any]], as_json: bool, home: Path) -> None:
    """Tables and places, then the exit code."""
    from dynconf_core.results.files import over_seeds, write_over_seeds
    from dynconf_flows.command.tables import results_table, seeds_table

    notes = Console(stderr=True)
    console = Console(width=max(80, Console().width))  # narrower, figures would be cut
    if len(documents) > 1:
        write_over_seeds(home, documents)
    if as_json:
        print_json(
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
