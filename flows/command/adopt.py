"""``dynconf adopt``: take over artefacts that an earlier version of the code made, instead of making them again."""

from typing import Annotated

import typer

from dynconf_core.errors import InputError
from dynconf_core.experiment import stages as declared
from dynconf_core.experiment.request import Request, home_folder
from dynconf_core.results.records import to_json
from dynconf_core.store.artefacts import Artefact, Store
from dynconf_core.store.claim import claim
from dynconf_core.store.keys import StageKey
from dynconf_flows.command.completion import stage_names
from dynconf_flows.command.explain import Explained, explained, followed
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


def adopt(
    setting: SettingArgument,
    stage: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STAGE",
            help="A stage whose artefact may be taken over; repeatable [default: all].",
            autocompletion=stage_names,
        ),
    ] = None,
    profile: ProfileOption = "smoke",
    overrides: Set = None,
    seed: Seed = 0,
    device: Device = "auto",
    home: Home = None,
    data: Data = None,
    checkpoint: Checkpoint = None,
    memory: Memory = None,
    no_fixed_point: NoFixedPoint = False,
    as_json: AsJson = False,
) -> None:
    """Take over artefacts that other code made.

    For upgrades that change no result of the stage. Manifests and results say what was adopted.
    """
    configure(home_folder(home))
    files = checkpoint_files(checkpoint, seed)
    values = overrides_of(overrides, no_fixed_point)
    stages = adopted(Request(profile, (setting,), values, seed, device, home, data, files, memory), stage)
    if as_json:
        print_json(to_json({"setting": setting, "stages": stages}))
        return
    for one in stages:
        Terminal().print(f"{one.stage:<20} {one.outcome:<8} {one.reason}")


def adopted(request: Request, stages: list[str] | None = None) -> list[Explained]:
    """Take over what can be taken over for a request of one setting, stage by stage.

    Args:
        request: as for ``explain``.
        stages: the stages whose artefacts may be taken over; None for all.

    Returns:
        what ``explain`` says afterwards, with the outcome "adopted" for the stages that were taken over now.

    Raises:
        InputError: for an unknown stage.
    """
    known = declared.stage_names()
    for name in stages or ():
        if name not in known:
            raise InputError(f"--stage {name} is unknown: choose among {', '.join(known)}.")
    home = home_folder(request.home)
    store = Store(home / "artefacts")
    taken: set[str] = set()

    def take(key: StageKey) -> Artefact | None:
        if stages is not None and key.stage not in stages:
            return None
        said: list[str] = []

        def waiting(who: str) -> None:
            if not said:
                said.append(who)
                Terminal(stderr=True).print(f"{key.stage} waits for {who}")

        with claim(home, key.key, f"{request.settings[0]} · adopt {key.stage}", waiting):
            found, old = store.get(key), store.of_other_code(key)
            if found is not None or old is None:
                return found
            taken.add(key.stage)
            return store.adopt(old, key)

    followed(request, take)
    return [
        Explained(one.stage, "adopted", one.reason.removesuffix(", adopted")) if one.stage in taken else one
        for one in explained(request)
    ]
