"""Requests: what a user wants to run, checked completely before anything starts.

A command line, a deployment's form and a test all make the same request. ``checked`` raises ``InputError``, naming field, value
and remedy, for all errors that can be found within seconds; its result is run without further checks.
"""

import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dynconf_core.data.dataset import DATASETS
from dynconf_core.errors import InputError
from dynconf_core.experiment.effect import check_effect
from dynconf_core.experiment.given import with_given
from dynconf_core.experiment.job import RunContext
from dynconf_core.experiment.overrides import applied, check_used, check_values, typed
from dynconf_core.experiment.plan import Plan
from dynconf_core.experiment.profiles import profile, resolve
from dynconf_core.experiment.settings import SETTINGS
from dynconf_core.experiment.start import check_start
from dynconf_core.experiment.trial import try_out
from dynconf_core.schemes.field import Value
from dynconf_core.store.storage import check_storage
from dynconf_core.wording import counted

HOME, DATA = "DYNCONF_HOME", "DYNCONF_DATA"
ROOMS = ("artefacts", "claims", "results", "sweeps", "work", "prefect")
"""Folders of a home."""
UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
SIZE = rf"^\s*(\d+(?:\.\d+)?|\.\d+)\s*({'|'.join(UNITS)})\s*$"
"""Pattern of a size: a number and a unit."""
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
DURATION = rf"^\s*(\d+(?:\.\d+)?|\.\d+)\s*({'|'.join(SECONDS)})\s*$"
"""Pattern of a duration: a number and a unit."""


def home_folder(given: str | Path | None) -> Path:
    """``--home``, else ``DYNCONF_HOME``, else ``.dynconf`` in the current folder; absolute."""
    return Path(given or os.environ.get(HOME) or ".dynconf").expanduser().absolute()


def data_folder(given: str | Path | None, home: Path) -> Path:
    """``--data``, else ``DYNCONF_DATA``, else ``data`` in the home; absolute."""
    return Path(given or os.environ.get(DATA) or home / "data").expanduser().absolute()


@dataclass(frozen=True)
class Request:
    """The settings to run, and how.

    Attributes:
        profile: "smoke", "quick" or "paper".
        settings: names, or ``package.module:OBJECT``; empty for the paper's eight settings.
        overrides: field to value, as text or as a number.
        seed: seed of weights, shuffling, augmentation and search.
        device, home, data: as on the command line; None for the default.
        checkpoints: by setting, a file whose weights are used instead of training.
        memory: memory that simulation may use, such as "8GiB"; None sets no limit.
        stage_timeout: the longest that a stage may run, such as "2h"; None sets no limit.
        workers: the number of settings that run at the same time, each in a process of its own; None for the profile's, 0 to
            run them in this process, one after the other.
    """

    profile: str = "smoke"
    settings: tuple[str, ...] = ()
    overrides: Mapping[str, Value] = field(default_factory=dict)
    seed: int = 0
    device: str = "auto"
    home: str | None = None
    data: str | None = None
    checkpoints: Mapping[str, str] = field(default_factory=dict)
    memory: str | None = None
    stage_timeout: str | None = None
    workers: int | None = None

    def plans(self) -> list[Plan]:
        """The settings' plans, in the order of the table.

        Raises:
            InputError: for an unknown profile, setting or field, a value that cannot work, or a field that none of the
                settings has.
        """
        plans = [resolve(name, self.profile, self.seed) for name in dict.fromkeys(self.settings) or SETTINGS]
        values = self.values(plans)
        check_used(plans, values)
        named = [plan.setting for plan in plans]
        for name in self.checkpoints:
            if name not in named:
                raise InputError(f"--checkpoint {name}=...: {name} is not among the chosen settings ({', '.join(named)}).")
        for name in named:
            if named.count(name) > 1:
                raise InputError(f"two of the chosen settings are called {name!r}: give one of them another name.")
        plans = [applied(plan, values) for plan in plans]
        given = {name: Path(file) for name, file in self.checkpoints.items()}
        plans = [with_given(plan, given[plan.setting], values) if plan.setting in given else plan for plan in plans]
        for plan in plans:
            check_values(plan)
            if plan.recipe.batch_size > plan.data.train and plan.setting not in self.checkpoints:
                raise InputError(
                    f"batch_size={plan.recipe.batch_size} exceeds the {plan.data.train} training images of "
                    f"{plan.setting} in profile {plan.profile}: choose fewer."
                )
        return plans

    def values(self, plans: Sequence[Plan]) -> dict[str, Value]:
        """The overrides, converted to the types of their fields; ``plans`` may add fields of their schemes."""
        return {name: typed(name, given, plans) for name, given in self.overrides.items()}

    def jobs(self) -> int:
        """The number of settings that run at the same time."""
        if self.workers is not None:
            return max(1, self.workers)
        return max(1, min(profile(self.profile).jobs, os.cpu_count() or 1))

    def memory_share(self) -> int | None:
        """Bytes for each of the settings that run at the same time; None sets no limit.

        Raises:
            InputError: for text that is not a size.
        """
        if self.memory is None:
            return None
        return size_in_bytes(self.memory, "--memory") // self.jobs()

    def stage_seconds(self) -> float | None:
        """Seconds that a stage may run; None sets no limit.

        Raises:
            InputError: for text that is not a duration.
        """
        return None if self.stage_timeout is None else seconds(self.stage_timeout, "--stage-timeout")

    def context(self) -> RunContext:
        """The environment in which the request's stages run."""
        home = home_folder(self.home)
        threads = profile(self.profile).threads
        if threads is None and self.workers:
            threads = max(1, (os.cpu_count() or 1) // self.workers)
        return RunContext(home, data_folder(self.data, home), self.device, self.memory_share(), threads)


@dataclass(frozen=True)
class CheckedRequest:
    """A request that has been checked and resolved.

    Attributes:
        request: as the user gave it.
        plans: one plan per setting.
        overrides: field to value, converted to the fields' types.
        context: the environment of the run.
    """

    request: Request
    plans: tuple[Plan, ...]
    overrides: Mapping[str, Value]
    context: RunContext

    def checkpoint(self, plan: Plan) -> Path | None:
        """The checkpoint given for the plan's setting; None if there is none."""
        given = self.request.checkpoints.get(plan.setting)
        return Path(given) if given else None

    def identity(self) -> dict[str, Value]:
        """What identifies a reproduction in MLflow, besides profile and seed."""
        named = {f"checkpoint {name}": Path(path).name for name, path in self.request.checkpoints.items()}
        return {**self.overrides, **named}


def checked(request: Request, *, writes: bool = True, points: Sequence[Request] = ()) -> CheckedRequest:
    """Resolve a request and check its home, data sets, device and checkpoints.

    Args:
        request: what the user wants to run.
        writes: whether anything will be run and written to the home, which is then created.
        points: the requests that will be run in its place, those of a sweep: a field has to matter at one of them.

    Raises:
        InputError: naming what is missing or wrong, and the remedy.
    """
    plans = request.plans()
    tried = [(found := one.plans(), one.values(found)) for one in points or (request,)]
    check_effect(tried)
    context = request.context()
    if writes:
        check_writable(context.home)
        check_storage()
    check_memory(request)
    request.stage_seconds()
    if request.workers is not None and request.workers < 0:
        raise InputError(f"--workers {request.workers}: give 1 or more, or 0 to run the settings in this process.")
    if request.workers == 0 and request.stage_timeout is not None:
        raise InputError("--stage-timeout ends the process of a stage, but --workers 0 gives it none: give --workers 1.")
    check_data(plans, context.data)
    if request.device not in ("auto", "cpu"):  # these exist everywhere, and the check would import torch
        from dynconf_core.machine import device

        device(request.device)
    check_checkpoints(plans, request.checkpoints)
    check_start([plan for found, _ in tried for plan in found if plan.setting not in request.checkpoints])
    if writes:
        try_out(plans, context.data)
    return CheckedRequest(request, tuple(plans), request.values(plans), context)


def check_writable(home: Path) -> None:
    """Raise ``InputError`` unless files can be created in ``home``."""
    for path in (home, *(home / room for room in ROOMS)):
        if path.exists() and not path.is_dir():
            raise InputError(
                f"{path} is a file, where the home needs a folder: move it away, or name another home with --home or {HOME}."
            )
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=home, prefix=".writable-"):
            pass
    except OSError as error:
        raise InputError(
            f"home {home} cannot be written ({error.strerror}): name another folder with --home or {HOME}."
        ) from None


def check_folder(folder: Path, option: str) -> None:
    """Raise ``InputError`` unless files can be created in ``folder``, which need not exist; ``option`` is named in errors."""
    try:
        nearest = folder.absolute()
        while not nearest.exists():
            nearest = nearest.parent
        if not nearest.is_dir():
            raise InputError(f"{option} {folder}: {nearest} is a file; name a folder.")
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise InputError(f"{option} {folder} cannot be written ({error.strerror}): name another folder.") from None


def check_file(file: Path, option: str) -> None:
    """Raise ``InputError`` unless ``file`` can be created or replaced; ``option`` is named in errors."""
    if file.is_dir():
        raise InputError(f"{option} {file} is a folder; name a file in it.")
    check_folder(file.absolute().parent, option)


def check_memory(request: Request) -> None:
    """Raise ``InputError`` for a memory limit that is not a size, or that torch alone exceeds."""
    share = request.memory_share()
    if share is None:
        return
    from dynconf_core.simulation.footprint import FIXED

    jobs = request.jobs()
    if share <= FIXED:
        raise InputError(
            f"--memory {request.memory} is too little: give more than {jobs * FIXED / 2**20:.0f} MiB for "
            f"{counted(jobs, 'simulation')} at a time."
        )


def check_data(plans: Sequence[Plan], root: Path) -> None:
    """Raise ``InputError`` unless the plans' data sets are complete under ``root``."""
    for name in dict.fromkeys(plan.data.source for plan in plans):
        found = DATASETS.get(name)
        if found.downloaded:
            try:
                found.check(root)
            except (InputError, OSError) as error:
                what = str(error) if isinstance(error, InputError) else f"data set {name!r} cannot be read: {error}."
                raise InputError(f"{what} (The data folder is {root}; --data or {DATA} names another.)") from None


def check_checkpoints(plans: Sequence[Plan], checkpoints: Mapping[str, str]) -> None:
    """Raise ``InputError`` unless the weights of each checkpoint fit the network of their setting."""
    if not checkpoints:
        return
    from dynconf_core.networks.checkpoint import load_checkpoint
    from dynconf_core.schemes.network import described

    for plan in plans:
        if plan.setting in checkpoints:
            load_checkpoint(described(plan.network(), plan.seed), Path(checkpoints[plan.setting]))


def size_in_bytes(text: str, option: str) -> int:
    """The bytes of a size such as 8GiB or 512 MiB, in upper or lower case; ``option`` is named in errors."""
    found = re.match(SIZE, text, re.IGNORECASE | re.ASCII)
    if found is None:
        raise InputError(f"{option} {text}: write a number and a unit ({', '.join(UNITS)}), such as 8GiB.")
    number, unit = found.groups()
    size = int(float(number) * next(factor for name, factor in UNITS.items() if name.lower() == unit.lower()))
    if size < 1:
        raise InputError(f"{option} {text}: give a size above 0, such as 8GiB.")
    return size


def seconds(text: str, option: str) -> float:
    """The seconds of a duration such as 90s, 30m or 2h; ``option`` is named in errors."""
    found = re.match(DURATION, text, re.ASCII)
    if found is None or float(found[1]) == 0:
        raise InputError(f"{option} {text}: write a number above 0 and a unit ({', '.join(SECONDS)}), such as 90s, 30m or 2h.")
    return float(found[1]) * SECONDS[found[2]]
