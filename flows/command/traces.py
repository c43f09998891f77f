"""``dynconf traces``: write the traces of a setting from the home to a file."""

from pathlib import Path
from typing import Annotated

import typer

from dynconf_core.errors import InputError
from dynconf_core.experiment.request import Request, home_folder
from dynconf_flows.command.explain import followed
from dynconf_flows.command.options import (
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
)
from dynconf_flows.command.server import configure
from dynconf_flows.command.terminal import Terminal


def traces(
    setting: SettingArgument,
    split: Annotated[str, typer.Option(help="calibration or test.")],
    out: Annotated[Path, typer.Option(help="The file to write, FILE.npz.")],
    profile: ProfileOption = "smoke",
    overrides: Set = None,
    seed: Seed = 0,
    device: Device = "auto",
    home: Home = None,
    data: Data = None,
    checkpoint: Checkpoint = None,
    memory: Memory = None,
    no_fixed_point: NoFixedPoint = False,
) -> None:
    """Write the traces of a finished setting to a file."""
    if out.suffix != ".npz":
        raise InputError(f"--out {out}: name a file that ends in .npz.")
    if split not in ("calibration", "test"):
        raise InputError(f"split={split!r} is unknown: choose calibration or test.")
    folder = home_folder(home)
    configure(folder)
    files = checkpoint_files(checkpoint, seed)
    values = overrides_of(overrides, no_fixed_point)
    request = Request(profile, (setting,), values, seed, device, home, data, files, memory)
    found = followed(request).finished.get(f"collect_{split}")
    if found is None:
        raise InputError(
            f"{folder} holds no {split} traces of {setting} for these options: run `dynconf reproduce` with the same options."
        )
    from dynconf_core.traces.schema import Traces

    written = Traces.load(request.context().folder(found)).save(out)
    Terminal().print(f"{written}: {split} traces of {setting}, profile {profile}")
