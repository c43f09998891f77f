"""``dynconf sweep``: a grid or an Optuna study over the fields of settings."""

import shlex
import sys
from contextlib import ExitStack
from typing import Annotated

import typer

from dynconf_core.errors import InputError
from dynconf_core.experiment.request import Request, home_folder
from dynconf_flows.command.completion import setting_names
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
    Seed,
    Set,
    StageTimeout,
    Workers,
    check_sharing,
    named_texts,
    overrides_of,
    print_json,
    resources_of,
)
from dynconf_flows.command.places import print_places
from dynconf_flows.command.session import FAILED, started
from dynconf_flows.command.terminal import Terminal
from dynconf_tasks import interruption


def sweep(
    setting: Annotated[
        list[str],
        typer.Option(
            metavar="NAME",
            help="A setting, see `dynconf settings`, or package.module:SETTING; repeatable.",
            autocompletion=setting_names,
        ),
    ],
    grid: Annotated[
        list[str] | None, typer.Option(metavar="FIELD=A,B,C", help="Values of a field or of seed; every combination runs.")
    ] = None,
    study: Annotated[
        list[str] | None,
        typer.Option(metavar="FIELD=LOW..HIGH", help="A range, or a list of values, from which Optuna chooses."),
    ] = None,
    trials: Annotated[int | None, typer.Option(help="Number of points of a study [default: 20].", min=1)] = None,
    profile: ProfileOption = "smoke",
    overrides: Set = None,
    seed: Seed = 0,
    device: Device = "auto",
    home: Home = None,
    data: Data = None,
    memory: Memory = None,
    stage_timeout: StageTimeout = None,
    workers: Workers = None,
    join: Join = False,
    allow_other_code: AllowOtherCode = False,
    dask: Dask = None,
    resources: Resources = None,
    no_fixed_point: NoFixedPoint = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Run a grid or an Optuna study over the fields of settings.

    Shows the Pareto front of accuracy against mean steps, chosen on the calibration split.
    """
    from dynconf_core.experiment.points import checked_sweep

    if trials is not None and not study:
        raise InputError(f"--trials {trials} applies to a study only: a grid runs every combination of its values.")
    folder, taken = home_folder(home), resources_of(resources, dask)
    values = overrides_of(overrides, no_fixed_point)
    request = Request(
        profile,
        tuple(setting),
        values,
        seed,
        device,
        home,
        data,
        memory=memory,
        stage_timeout=stage_timeout,
        workers=workers,
    )
    grids = named_texts(grid, "--grid", "FIELD=VALUES, such as --grid time_steps=8,16,32")
    studies = named_texts(study, "--study", "FIELD=VALUES, such as --study alpha=0.5..8")
    with ExitStack() as stack:
        with starting(Terminal(stderr=True, quiet=as_json)) as say:
            say("checking the request and the data sets")
            swept = checked_sweep(request, grids, studies, trials or 20)
            check_sharing(dask, taken, workers)
            session = stack.enter_context(started(say, folder, debug))
        from dynconf_flows.sweep import checked_sweeping, result_of
        from dynconf_flows.taking_part import Part
        from dynconf_tasks.reconcile import at_work

        part = Part(join, allow_other_code, dask=dask, resources=taken)
        command = shlex.join(["dynconf", *sys.argv[1:]])
        with at_work(folder, command):
            state = session.run(lambda: checked_sweeping(swept, part, command, return_state=True), as_json, "point")
    result = result_of(state)
    if as_json:
        from dynconf_core.results.records import to_json

        print_json(to_json(result))
    else:
        from dynconf_flows.command.tables import sweep_table

        console = Terminal()
        console.print(sweep_table(result))
        print_places(console, [folder / "sweeps" / result.run], folder)
    if result.tracking_error:
        Terminal(stderr=True).print(f"Not logged to MLflow: {result.tracking_error}", soft_wrap=True)
    if interruption.interrupted():
        raise typer.Exit(interruption.exit_code())
    if result.failed:
        raise typer.Exit(FAILED)
