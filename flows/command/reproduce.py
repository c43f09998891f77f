"""``dynconf reproduce``: run the settings, from training to the table of results."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dynconf_core.experiment.request import CheckedRequest, Request, checked, home_folder
from dynconf_core.results.run_names import titled
from dynconf_flows.command.completion import rule_names, setting_names
from dynconf_flows.command.display import starting
from dynconf_flows.command.options import (
    AllowOtherCode,
    AsJson,
    Dask,
    Data,
    Debug,
    Device,
    Home,
    Join,
    Memory,
    NoFixedPoint,
    ProfileOption,
    Resources,
    Set,
    StageTimeout,
    Verbose,
    Workers,
    check_sharing,
    checkpoint_files,
    on_own_data,
    overrides_of,
    print_json,
    resources_of,
    seed_numbers,
    with_initial_weights,
    with_rule,
)
from dynconf_flows.command.places import print_places
from dynconf_flows.command.session import FAILED, Session, started
from dynconf_flows.command.terminal import Terminal
from dynconf_tasks import interruption

if TYPE_CHECKING:
    from dynconf_core.results.types import RunResult
    from dynconf_flows.taking_part import Part


def reproduce(
    profile: ProfileOption = "smoke",
    setting: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A setting, see `dynconf settings`, or package.module:SETTING; repeatable [default: the eight].",
            autocompletion=setting_names,
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="Run the settings named on data of your own: a folder of images by class, an .npz or a folder of idx files.",
        ),
    ] = None,
    overrides: Set = None,
    rule: Annotated[
        str | None,
        typer.Option(
            metavar="MEASURE",
            help="Measure of the rule: a name, best, or package.module:Class; the same as --set rule=.",
            autocompletion=rule_names,
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of weights, shuffling, augmentation and search [default: 0].")] = None,
    seeds: Annotated[str | None, typer.Option(help="Several seeds, e.g. 0,1,2; adds means and standard deviations.")] = None,
    device: Device = "auto",
    home: Home = None,
    data: Data = None,
    checkpoint: Annotated[
        list[str] | None,
        typer.Option(metavar="SETTING=PATH", help="Use these weights instead of training; {seed} in PATH stands for the seed."),
    ] = None,
    initial_weights: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="Start the training from these weights, such as those of a ReLU network; the same as --set initial_weights=.",
        ),
    ] = None,
    memory: Memory = None,
    stage_timeout: StageTimeout = None,
    workers: Workers = None,
    join: Join = False,
    allow_other_code: AllowOtherCode = False,
    dask: Dask = None,
    resources: Resources = None,
    no_fixed_point: NoFixedPoint = False,
    verbose: Verbose = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Run the paper's settings, from training to evaluation.

    Trains, converts and simulates all eight settings or those named, chooses their exit rules and evaluates them.
    """
    numbers = seed_numbers(seed, seeds)
    values = with_initial_weights(with_rule(overrides_of(overrides, no_fixed_point), rule), initial_weights)
    folder, taken = home_folder(home), resources_of(resources, dask)
    named = on_own_data(setting, dataset)
    requests = [
        Request(
            profile,
            named,
            values,
            number,
            device,
            home,
            data,
            checkpoint_files(checkpoint, number, several=len(numbers) > 1),
            memory,
            stage_timeout,
            workers,
        )
        for number in numbers
    ]
    console = Terminal(stderr=True, quiet=as_json)
    with ExitStack() as stack:
        with starting(console) as say:
            say("checking the request and the data sets")
            asked = [checked(request) for request in requests]
            check_sharing(dask, taken, workers)
        session: Session | None = None
        results = []
        for one in asked:
            if interruption.interrupted():
                break
            console.print(_heading(one), soft_wrap=True)
            with starting(console) as say:
                result = None if join else _from_store(one, say)
                if result is None and session is None:
                    session = stack.enter_context(started(say, folder, debug))
            if result is None:
                assert session is not None
                from dynconf_flows.taking_part import Part

                result = _run(session, one, Part(join, allow_other_code, dask=dask, resources=taken), as_json)
            results.append(result)
        if 1 < len(results) == len(asked):
            from dynconf_flows.parent_run import track_over_seeds

            track_over_seeds(folder, asked, results)
    _report(results, as_json, folder, verbose)


def _heading(asked: CheckedRequest) -> str:
    """What is reproduced and where, on a line."""
    count = len(asked.plans)
    title = titled(asked.request.profile, asked.request.seed, asked.overrides)
    return f"{count} setting{'s'[: count > 1]}, profile {title}, home {asked.context.home}"


def _from_store(asked: CheckedRequest, say: Callable[[str], None]) -> RunResult | None:
    """The result if nothing is left to do."""
    from dynconf_flows.from_store import result_from_store

    say("looking at what the home holds")
    return result_from_store(asked, _command())


def _run(session: Session, asked: CheckedRequest, part: Part, quiet: bool) -> RunResult:
    from dynconf_flows.reproduce import checked_reproduction, result_of
    from dynconf_tasks.reconcile import at_work

    command = _command()
    with at_work(asked.context.home, command):
        return result_of(session.run(lambda: checked_reproduction(asked, command, part, return_state=True), quiet))


def _command() -> str:
    return shlex.join(["dynconf", *sys.argv[1:]])


def _report(results: list[RunResult], as_json: bool, home: Path, verbose: bool) -> None:
    """Print tables and where the results are, then exit with the right code."""
    from dynconf_core.results.files import over_seeds, write_over_seeds
    from dynconf_core.results.records import to_json
    from dynconf_flows.command.tables import results_table, seeds_table

    notes = Terminal(stderr=True)
    console = Terminal(width=max(80, Terminal().width))  # narrower tables would truncate figures
    if len(results) > 1:
        write_over_seeds(home, results)
    if as_json:
        print_json(
            to_json(results[0])
            if len(results) == 1
            else to_json({"seeds": [to_json(result) for result in results], "over_seeds": over_seeds(results).settings})
        )
    else:
        for result in results:
            console.print(results_table(result, console.width, verbose))
        if len(results) > 1:
            console.print(seeds_table(results))
    for result in results:
        if result.tracking_error:
            notes.print(f"Not logged to MLflow: {result.tracking_error}", soft_wrap=True)
    if results and not as_json:
        print_places(console, [home / "results" / result.run for result in results], home)
    if interruption.interrupted():
        raise typer.Exit(interruption.exit_code())
    if any(result.failed for result in results):
        raise typer.Exit(FAILED)
