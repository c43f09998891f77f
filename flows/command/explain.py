"""``dynconf explain``: which stages of a setting the home holds, and why others are missing.

The key of a stage covers the content of its inputs, so stages are looked up in the order in which they run.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated

import typer

from dynconf_core.experiment.following import FollowedStages, follow
from dynconf_core.experiment.request import Request, checked, home_folder
from dynconf_core.experiment.stages import job
from dynconf_core.home.verification import surface
from dynconf_core.results.records import to_json
from dynconf_core.store.artefacts import Artefact, Store
from dynconf_core.store.keys import StageKey
from dynconf_core.store.manifest import Damaged
from dynconf_flows.command.options import (
    AsJson,
    Checkpoint,
    Data,
    Device,
    Home,
    Memory,
    NoFixedPoint,
    ProfileOption,
    Seed,
    Set,
    SettingArgument,
    checkpoint_files,
    overrides_of,
    print_json,
)
from dynconf_flows.command.server import configure
from dynconf_flows.command.terminal import Terminal


@dataclass(frozen=True)
class Explained:
    """Whether the store holds the artefact of a stage ("hit" or "miss"), and why."""

    stage: str
    outcome: str
    reason: str


def explain(
    setting: SettingArgument,
    profile: ProfileOption = "smoke",
    overrides: Set = None,
    seed: Seed = 0,
    device: Device = "auto",
    home: Home = None,
    data: Data = None,
    checkpoint: Checkpoint = None,
    memory: Memory = None,
    no_fixed_point: NoFixedPoint = False,
    contents: Annotated[
        bool, typer.Option("--contents", help="Read all files, as a run does, instead of comparing their sizes.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show which stages of a setting are in the home.

    For a stage that is not, show what differs in its key from the most similar artefact.
    """
    configure(home_folder(home))
    files = checkpoint_files(checkpoint, seed)
    values = overrides_of(overrides, no_fixed_point)
    stages = explained(Request(profile, (setting,), values, seed, device, home, data, files, memory), contents)
    if as_json:
        print_json(to_json({"setting": setting, "contents": contents, "stages": stages}))
        return
    console = Terminal()
    for one in stages:
        console.print(f"{one.stage:<20} {one.outcome:<5} {one.reason}", soft_wrap=True)
    if not contents and any(one.outcome == "hit" for one in stages):
        console.print("The files have their sizes; --contents also reads what is in them, as every run does.", soft_wrap=True)


def explained(request: Request, contents: bool = True) -> list[Explained]:
    """Look up the stages of a request for one setting; with ``contents``, every file of theirs is read and verified."""
    found = followed(request, contents=contents)
    store = Store(home_folder(request.home) / "artefacts")
    stages = []
    for name in (stage.name for stage in found.stages):
        if name in found.finished:
            done = found.finished[name]
            stages.append(Explained(name, "hit", f"artefact {done.key[:12]}" + ", adopted" * (done.outcome == "adopted")))
        elif name not in found.keys:
            stages.append(Explained(name, "miss", "an earlier stage must run first"))
        else:
            stages.append(Explained(name, "miss", _reason(found.keys[name], store, request.settings[0])))
    return stages


def followed(
    request: Request, otherwise: Callable[[StageKey], Artefact | None] = lambda key: None, contents: bool = True
) -> FollowedStages:
    """Follow the stages of a request for one setting through the store.

    Args:
        request: what is asked for.
        otherwise: called for the key of an artefact that the store does not hold; what it returns is used instead.
        contents: whether to read all files; otherwise, only if a file is missing or has another size.
    """
    asked = checked(request, writes=False)
    (plan,) = asked.plans
    wanted = job(plan, asked.context, asked.checkpoint(plan))
    if not contents:
        found = follow(wanted, verified=False, otherwise=otherwise)
        with suppress(Damaged):
            for one in found.finished.values():
                surface(asked.context.folder(one))
            return found
    return follow(wanted, otherwise=otherwise)


def _reason(key: StageKey, store: Store, setting: str) -> str:
    """Why the store holds no artefact of this key."""
    if store.of_other_code(key) is None:
        return _difference(key, store)
    return (
        "an artefact is there that only differs in the code that made it; if results have not changed, "
        f"`dynconf adopt {setting} --stage {key.stage}` with the same options takes it over"
    )


def _difference(key: StageKey, store: Store) -> str:
    """How the key differs from that of the most similar artefact of its stage."""
    others = [manifest["parts"] for manifest in store.manifests(key.stage)]
    if not others:
        return "the store holds no artefact of this stage"
    wanted = _flat(key.parts)
    differences = [_unequal(wanted, _flat(parts)) for parts in others]
    nearest = min(differences, key=len)
    if not nearest:
        return "its artefact is damaged"
    return "differs from the most similar artefact in " + ", ".join(nearest)


def _unequal(wanted: Mapping[str, object], found: Mapping[str, object]) -> list[str]:
    names = [name for name in dict.fromkeys((*wanted, *found)) if wanted.get(name) != found.get(name)]
    return [f"{name} ({_short(found.get(name))} there, {_short(wanted.get(name))} now)" for name in names]


def _flat(parts: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in parts.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def _short(value: object) -> str:
    text = str(value)
    return f"{text[:12]}…" if len(text) > 40 else text
