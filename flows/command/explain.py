"""``dynconf explain`` and ``dynconf traces``: what the home holds of a setting.

A stage's key names the content of its inputs, so stages are asked in the order of the data, as far as they are there.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from dynconf_core.errors import InputError
from dynconf_core.experiment.job import Handle
from dynconf_core.experiment.overrides import parse
from dynconf_core.experiment.request import Request, checked, data_folder, home_folder
from dynconf_core.experiment.stages import STAGES, job
from dynconf_core.store.artefacts import Store
from dynconf_core.store.keys import StageKey
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


def explain(
    setting: Annotated[str, typer.Argument(help="A setting's name, see `dynconf settings`, or package.module:SETTING.")],
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
    values = with_fixed_point(parse(overrides or []), no_fixed_point)
    request = _request(setting, profile, values, seed, device, home, data, checkpoint, memory)
    lines = explained(request)
    if as_json:
        print_json({"schema": 2, "setting": setting, "stages": lines})
        return
    for line in lines:
        Console().print(f"{line['stage']:<20} {line['outcome']:<5} {line['reason']}", highlight=False)


def traces(
    setting: Annotated[str, typer.Argument(help="A setting's name, see `dynconf settings`, or package.module:SETTING.")],
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

    if out.suffix != ".npz":
        raise InputError(f"--out {out}: name a file that ends in .npz.")
    if split not in ("calibration", "test"):
        raise InputError(f"split={split!r} is unknown: choose calibration or test.")
    values = with_fixed_point(parse(overrides or []), no_fixed_point)
    request = _request(setting, profile, values, seed, device, home, data, checkpoint, memory)
    found = finished(request).get(f"collect_{split}")
    if found is None:
        raise InputError(
            f"{request.home} holds no {split} traces of {setting} as asked for: run `dynconf reproduce` with the same options."
        )
    from dynconf_core.traces.schema import Traces

    written = Traces.load(found.folder).save(out)
    Console().print(f"{written}: {split} traces of {setting}, profile {profile}", highlight=False)


def finished(request: Request) -> dict[str, Handle]:
    """The stages of the request's one setting that are in the store, by name."""
    done, _ = _followed(request)
    return done


def explained(request: Request) -> list[dict[str, str]]:
    """For each stage: its name, "hit" or "miss", and why."""
    done, keys = _followed(request)
    store = Store(home_folder(request.home) / "artefacts")
    lines = []
    for name in (stage.name for stage in STAGES):
        if name in done:
            lines.append({"stage": name, "outcome": "hit", "reason": f"artefact {done[name].key[:12]}"})
        elif name not in keys:
            lines.append({"stage": name, "outcome": "miss", "reason": "a stage before it must run first"})
        else:
            lines.append({"stage": name, "outcome": "miss", "reason": _difference(keys[name], store)})
    return lines


def _followed(request: Request) -> tuple[dict[str, Handle], dict[str, StageKey]]:
    """Finished stages, and the keys of all stages whose inputs are finished."""
    asked = checked(request, writes=False)
    (plan,) = asked.plans
    given = job(plan, asked.context, asked.checkpoint(plan))
    store = Store(asked.context.artefacts)
    done: dict[str, Handle] = {}
    keys: dict[str, StageKey] = {}
    for stage in STAGES:
        if any(name not in done for name in stage.inputs.values()):
            continue
        keys[stage.name] = stage.key(given, {role: done[name] for role, name in stage.inputs.items()})
        found = store.get(keys[stage.name])
        if found is not None:
            done[stage.name] = Handle(found.stage, found.key, found.digest, found.folder, "cached")
    return done, keys


def _difference(key: StageKey, store: Store) -> str:
    """How the key differs from the nearest artefact of its stage."""
    others = [manifest["parts"] for manifest in store.manifests(key.stage)]
    if not others:
        return "the store holds no artefact of this stage"
    wanted = _flat(key.parts)
    differences = [_unequal(wanted, _flat(parts)) for parts in others]
    nearest = min(differences, key=len)
    if not nearest:
        return "its artefact is damaged"
    return "differs from the nearest artefact in " + ", ".join(nearest)


def _unequal(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    names = [name for name in dict.fromkeys((*wanted, *found)) if wanted.get(name) != found.get(name)]
    return [f"{name} ({_short(found.get(name))} there, {_short(wanted.get(name))} now)" for name in names]


def _flat(parts: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in parts.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def _short(value: Any) -> str:
    text = str(value)
    return f"{text[:12]}…" if len(text) > 40 else text


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
