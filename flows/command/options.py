"""Options and arguments that several commands share: their declarations, their parsing, and printing as JSON."""

import json
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from dynconf_core.errors import InputError
from dynconf_core.experiment.overrides import by_name, parse
from dynconf_core.schemes.field import Value
from dynconf_flows.command.completion import field_names, profile_names, setting_names

PLACES, SHARING, OUTPUT = "Where and on what", "Together with others", "Output"
"""Titles of the groups of options in the help."""

Home = Annotated[
    str | None,
    typer.Option(
        help="Folder for artefacts, results and tracking [default: $DYNCONF_HOME or .dynconf].", rich_help_panel=PLACES
    ),
]
Data = Annotated[
    str | None, typer.Option(help="Folder of the data sets [default: $DYNCONF_DATA or HOME/data].", rich_help_panel=PLACES)
]
ProfileOption = Annotated[
    str,
    typer.Option(
        metavar="NAME", help="Scale of the run: smoke, quick or paper; see `dynconf settings`.", autocompletion=profile_names
    ),
]
SettingArgument = Annotated[
    str,
    typer.Argument(help="The setting, see `dynconf settings`, or package.module:SETTING.", autocompletion=setting_names),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="Override a field, e.g. time_steps=16; repeatable.",
        autocompletion=field_names,
    ),
]
Seed = Annotated[int, typer.Option(help="Seed of weights, shuffling, augmentation and search.")]
Checkpoint = Annotated[
    list[str] | None, typer.Option(metavar="SETTING=PATH", help="The checkpoint that the run was given, if any.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.", rich_help_panel=PLACES)]
Memory = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE", help="Memory limit for simulation on a CPU, e.g. 8GiB [default: none].", rich_help_panel=PLACES
    ),
]
StageTimeout = Annotated[
    str | None,
    typer.Option(
        metavar="DURATION",
        help="The longest that a stage may run, e.g. 90s, 30m or 2h [default: any time].",
        rich_help_panel=PLACES,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        help="Number of settings that run at the same time, each in a process; 0 runs them in this one, e.g. for a debugger "
        "[default: the profile's].",
        min=0,
        rich_help_panel=PLACES,
    ),
]
Join = Annotated[
    bool,
    typer.Option(
        "--join",
        help="Take part in what another shell or machine began; what failed there is not tried again.",
        rich_help_panel=SHARING,
    ),
]
AllowOtherCode = Annotated[
    bool,
    typer.Option(
        "--allow-other-code", help="Take part even if the others run another version of dynconf.", rich_help_panel=SHARING
    ),
]
Dask = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="Compute on a Dask cluster; the address of its scheduler.", rich_help_panel=SHARING),
]
Resources = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=AMOUNT", help="What a setting takes of a Dask worker, e.g. GPU=1; repeatable.", rich_help_panel=SHARING
    ),
]
NoFixedPoint = Annotated[
    bool, typer.Option("--no-fixed-point", help="Do not round the SNN's weights; results then depend on batch and device.")
]
Verbose = Annotated[
    bool,
    typer.Option("--verbose", help="Print all notes below the table, and the paper's figures.", rich_help_panel=OUTPUT),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks and Prefect's log.", rich_help_panel=OUTPUT)]
AsJson = Annotated[bool, typer.Option("--json", help="Print only JSON.", rich_help_panel=OUTPUT)]


def on_own_data(settings: list[str] | None, dataset: str | None) -> tuple[str, ...]:
    """The settings of ``--setting``, on the data of ``--dataset`` if it is given.

    Raises:
        InputError: for ``--dataset`` alone.
    """
    if dataset is not None and not settings:
        raise InputError(f"--dataset {dataset}: name the settings to run on it too, such as --setting cifar10-resnet18-qcfs.")
    return tuple(name if dataset is None else f"{dataset}@{name}" for name in settings or ())


def resources_of(texts: list[str] | None, dask: str | None) -> dict[str, float]:
    """The resources of ``--resources NAME=AMOUNT``.

    Raises:
        InputError: for a text of another form, or without ``--dask``.
    """
    if texts and dask is None:
        raise InputError(f"--resources {texts[0]} applies to a Dask cluster only: give --dask ADDRESS too.")
    found: dict[str, float] = {}
    for text in texts or []:
        name, equals, amount = text.partition("=")
        try:
            found[name.strip()] = float(amount)
        except ValueError:
            equals = ""
        if not equals or not name.strip() or found[name.strip()] <= 0:
            raise InputError(f"--resources {text}: write NAME=AMOUNT, such as GPU=1.")
    return found


def check_sharing(dask: str | None, resources: Mapping[str, float], workers: int | None) -> None:
    """Check what processes share their work by, before anything starts.

    Raises:
        InputError: for heartbeats that cannot work, ``--workers 0`` with Dask, or a Dask cluster that does not answer or lacks
            the resources.
    """
    from dynconf_tasks.study.storage import heartbeat

    heartbeat()
    if dask is not None:
        if workers == 0:
            raise InputError("--workers 0 runs the settings in this process, --dask on other machines: give one of the two.")
        from dynconf_flows.workers.on_dask import offered

        offered(dask, resources)


def print_json(content: Mapping[str, Any]) -> None:
    """Print ``content`` as JSON."""
    print(json.dumps(content, indent=1, allow_nan=False))


def overrides_of(assignments: list[str] | None, no_fixed_point: bool) -> dict[str, Value]:
    """The overrides given by ``--set`` and ``--no-fixed-point``.

    Raises:
        InputError: for an assignment that is malformed or given twice.
    """
    overrides: dict[str, Value] = {**parse(assignments or [])}
    if not no_fixed_point:
        return overrides
    if "fixed_point" in overrides:
        raise InputError(
            f"--no-fixed-point and --set fixed_point={str(overrides['fixed_point']).lower()} are given: give one of them."
        )
    return {**overrides, "fixed_point": False}


def with_initial_weights(overrides: dict[str, Value], path: str | None) -> dict[str, Value]:
    """The overrides with the one that ``--initial-weights`` stands for.

    Raises:
        InputError: if ``--set`` names another file.
    """
    if path is None:
        return overrides
    if "initial_weights" in overrides:
        raise InputError(
            f"--initial-weights {path} and --set initial_weights={overrides['initial_weights']} are given: give one of them."
        )
    return {**overrides, "initial_weights": path}


def with_rule(overrides: dict[str, Value], rule: str | None) -> dict[str, Value]:
    """The overrides with the one that ``--rule`` stands for.

    Raises:
        InputError: if ``--set rule=...`` is given too.
    """
    if rule is None:
        return overrides
    if "rule" in overrides:
        raise InputError(f"--rule {rule} and --set rule={overrides['rule']} are given: give one of them.")
    return {**overrides, "rule": rule}


def seed_numbers(seed: int | None, seeds: str | None) -> list[int]:
    """The distinct seeds of ``--seed`` or ``--seeds``; 0 if neither is given.

    Raises:
        InputError: if both are given, or ``seeds`` is not a list of whole numbers.
    """
    if seeds is None:
        return [seed or 0]
    if seed is not None:
        raise InputError(f"--seed {seed} and --seeds {seeds} are given: give one of them.")
    try:
        return list(dict.fromkeys(int(text) for text in seeds.split(",")))
    except ValueError:
        raise InputError(f"--seeds {seeds}: give whole numbers, such as 0,1,2.") from None


def named_texts(texts: list[str] | None, option: str, form: str) -> dict[str, str]:
    """The values of a repeatable ``option NAME=TEXT`` by name; ``form`` shows the syntax in errors.

    Raises:
        InputError: for a value that is malformed or given twice.
    """
    named = by_name(texts or (), option, form)
    for name, text in named.items():
        if not text:
            raise InputError(f"{option} {name}=: write {form}.")
    return named


def checkpoint_files(texts: list[str] | None, seed: int, several: bool = False) -> dict[str, str]:
    """The files of ``--checkpoint SETTING=PATH``, with ``{seed}`` in a path replaced by ``seed``.

    Raises:
        InputError: for a malformed value, or a path without ``{seed}`` if there are ``several`` seeds.
    """
    checkpoints = named_texts(texts, "--checkpoint", "SETTING=PATH")
    for name, path in checkpoints.items():
        if several and "{seed}" not in path:
            raise InputError(
                f"--checkpoint {name}={path}: one file for several seeds; write {{seed}} where their file names differ."
            )
    return {name: path.replace("{seed}", str(seed)) for name, path in checkpoints.items()}
