"""Putting settings' models into MLflow's registry: which results are meant, and one version for each content.

What is registered is a logged model of the setting's run, made here if the run has none. A version is found again by the digest
of its content, so that registering the same twice adds nothing.
"""

import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dynconf_core.errors import InputError
from dynconf_core.results.files import LATEST, RESULTS
from dynconf_core.results.records import read
from dynconf_core.results.types import FailedPoint, FailedSetting, RunResult, SettingResult, SweepPoint, SweepResult
from dynconf_core.schemes.field import Value, as_written
from dynconf_core.store.artefacts import Store
from dynconf_core.store.claim import claim
from dynconf_tasks.serving.logged_model import MODEL_DIGEST, Served, logged_model, served
from dynconf_tasks.tracking.family import ARTEFACT, PARENT, recorded
from dynconf_tasks.tracking.runs import Runs
from dynconf_tasks.tracking.tags import SETTING
from dynconf_tasks.tracking.views import OF_PROFILES

PREFIX = "dynconf-"
IDENTIFIER = re.compile(r"[0-9a-f]{32}")
"""The id of a run in MLflow."""
ROOMS: dict[str, type[RunResult] | type[SweepResult]] = {"results": RunResult, "sweeps": SweepResult}
Finished = SettingResult | SweepPoint


@dataclass(frozen=True)
class Registered:
    """A model in the registry.

    Attributes:
        setting: the setting's name.
        name, version: of the model.
        alias: the alias that it was given; None if none.
        new: whether the version was made now.
        run: the name of the reproduction or sweep that it comes from.
        seed: of its training.
        overrides: the fields that were set for it, with their values.
        figures: accuracy and mean steps with early exit, in words.
    """

    setting: str
    name: str
    version: str
    alias: str | None
    new: bool
    run: str
    seed: int
    overrides: Mapping[str, Value]
    figures: str

    @property
    def uri(self) -> str:
        """What MLflow's commands call it."""
        return f"models:/{self.name}{f'@{self.alias}' if self.alias else f'/{self.version}'}"


def register(
    home: Path, data: Path, run: str, settings: Sequence[str] = (), name: str | None = None, alias: str | None = None
) -> list[Registered]:
    """Put the models of a run's finished settings into the registry.

    Args:
        home: the home with the artefacts.
        data: the folder of the data sets, for the names of classes; it need not exist.
        run: "latest", a reproduction by its name or folder, or the id of a run in MLflow: of a reproduction, a sweep, a
            setting or a point.
        settings: those to register; empty for all.
        name: the model's name, by default ``dynconf-SETTING``; for one setting only.
        alias: the alias to give to each.

    Raises:
        InputError: if there is no such run, setting or artefact, or MLflow takes no such name or alias.
    """
    runs = Runs(home, lambda holder: None)
    folder, result, rows = _rows(home, run, runs)
    chosen = _chosen(rows, settings, run)
    if name is not None and len(chosen) > 1:
        raise InputError(f"--name {name} is the name of one model, but {len(chosen)} are to be registered: add --setting.")
    store = Store(folder.parent.parent / "artefacts")
    made = []
    for row in chosen:
        setting = _setting(row)
        model = served(setting, row.artefacts, store, data)
        called = name or f"{PREFIX}{setting.replace(':', '-').replace('/', '-')}"
        _check(called, alias)
        overrides = {**result.overrides, **(row.values if isinstance(row, SweepPoint) else {})}
        seed = int(model.facts.origin["seed"])
        overrides.pop("seed", None)  # of a sweep over seeds
        with claim(home, f"register-{setting.replace(':', '-')}", f"registering {called}"):
            version, new = _version(runs, called, model, f"dynconf-{result.profile}", row, overrides)
            if alias is not None:
                runs.client.set_registered_model_alias(called, alias, version)
        made.append(Registered(setting, called, version, alias, new, result.run, seed, overrides, figures(model, row)))
    return made


def serve_command(uri: str, tracking: str, port: int = 5001) -> str:
    """The command that serves a model on the loopback interface, for a shell.

    MLflow starts a program called ``uvicorn``: where the shell would not find the one that is installed beside this Python, the
    command says where it is.
    """
    beside = Path(sys.executable).parent
    found = shutil.which("uvicorn")
    elsewhere = (beside / "uvicorn").is_file() and (found is None or Path(found).parent != beside)
    path = f"PATH={shlex.quote(str(beside))}:$PATH " if elsewhere else ""
    serve = f"mlflow models serve -m {shlex.quote(uri)} --env-manager local --host 127.0.0.1 --port {port}"
    return f"{path}MLFLOW_TRACKING_URI={shlex.quote(tracking)} {serve}"


def figures(model: Served, row: Finished) -> str:
    """Accuracy and mean steps with early exit, in words."""
    exits = (row.exit.accuracy, row.exit.mean_steps) if isinstance(row, SettingResult) else (row.accuracy, row.mean_steps)
    return f"{100 * exits[0]:.2f} % with {exits[1]:.2f} of {model.facts.time_steps} time steps on the test images"


def description(model: Served, row: Finished, overrides: Mapping[str, Value]) -> str:
    """What a person reads of a version: the figures first, then what stands in for what, and the overrides."""
    origin, (channels, height, width) = model.facts.origin, model.shape
    found = [f"{figures(model, row)}."]
    if origin["profile"] != "paper":
        stand_in = f", {origin['dataset']} instead of {origin['stands_in_for']}" if origin["stands_in_for"] else ""
        part = f", {origin['width']:g} of full width" if origin["width"] != 1 else ""
        found.append(f"**A stand-in, not the paper's network**: profile {origin['profile']}{stand_in}{part}.")
    if overrides:
        found.append(f"With overrides: {', '.join(f'{name}={as_written(value)}' for name, value in overrides.items())}.")
    found.append(
        f"Takes uint8 images of {height} x {width} pixels{'' if channels == 3 else f' and {channels} channels'} as a file "
        f"holds them, not normalised. Seed {origin['seed']}."
    )
    return "\n\n".join(found)


def _version(
    runs: Runs, name: str, model: Served, experiment: str, row: Finished, overrides: Mapping[str, Value]
) -> tuple[str, bool]:
    """The version with this content, and whether it was made now."""
    client = runs.client
    versions = client.search_model_versions(f"name = '{name}'", max_results=1000)
    digest = model.digest
    found = next((one for one in versions if one.tags.get(MODEL_DIGEST) == digest), None)
    if found is not None:
        return str(found.version), False
    place = runs.experiment(experiment, OF_PROFILES)
    logged = [one for one in runs.find(place, SETTING, model.setting) if _evaluation(one) == row.artefacts["evaluate"]]
    run = next((one.info.run_id for one in logged if one.info.status == "FINISHED"), None)
    identifier = logged_model(client, place, run, model)
    if not versions:
        _made(client, name, model)
    tags, text = {**model.tags, MODEL_DIGEST: digest}, description(model, row, overrides)
    with _looked_up_at(runs.uri):
        made = client.create_model_version(name, f"models:/{identifier}", run, tags, description=text, model_id=identifier)
    return str(made.version), True


@contextmanager
def _looked_up_at(uri: str) -> Iterator[None]:
    """Let MLflow's registry find logged models: it looks where the environment says, not where its own client does."""
    before = os.environ.get("MLFLOW_TRACKING_URI")
    os.environ["MLFLOW_TRACKING_URI"] = uri
    try:
        yield
    finally:
        if before is None:
            del os.environ["MLFLOW_TRACKING_URI"]
        else:
            os.environ["MLFLOW_TRACKING_URI"] = before


def _made(client: Any, name: str, model: Served) -> None:
    """Make the registered model, unless it is there already."""
    from mlflow.exceptions import MlflowException

    text = f"A spiking network that ends each inference once it is confident: the setting {model.setting} of dynconf."
    with suppress(MlflowException):  # there already, without a version
        client.create_registered_model(name, description=text)


def _check(name: str, alias: str | None) -> None:
    """Raise ``InputError`` for a name or an alias that MLflow does not take."""
    if not name.strip() or re.search(r"[:/'\"]", name):
        raise InputError(f"--name {name!r}: a model's name holds no quotes, no colon and no slash.")
    if alias is not None and (not re.fullmatch(r"[\w-]{1,255}", alias) or re.fullmatch(r"(?i)latest|v\d+", alias)):
        raise InputError(f"--alias {alias!r}: write letters, digits, - and _; MLflow keeps latest, v1, v2 and so on to itself.")


def _chosen(rows: Sequence[Finished | FailedSetting | FailedPoint], settings: Sequence[str], run: str) -> list[Finished]:
    """The finished rows of the settings that were asked for."""
    there = list(dict.fromkeys(map(_setting, rows)))
    for name in settings:
        if name not in there:
            raise InputError(f"{run} has no setting {name!r}: choose from {', '.join(there)}.")
    chosen = [row for row in rows if not settings or _setting(row) in settings]
    finished = [row for row in chosen if isinstance(row, Finished)]
    failed = [_setting(row) for row in chosen if not isinstance(row, Finished)]
    if failed and (settings or not finished):
        raise InputError(f"{', '.join(failed)} of {run} did not finish: run `dynconf reproduce` again.")
    return finished


def _setting(row: Finished | FailedSetting | FailedPoint) -> str:
    return row.name if isinstance(row, SettingResult | FailedSetting) else row.setting


def _rows(home: Path, run: str, runs: Runs) -> tuple[Path, RunResult | SweepResult, list[Any]]:
    """The folder, the results and the rows that ``run`` stands for."""
    for given in (Path(run), home / "results" / run):
        folder = given.resolve()
        if (folder / RESULTS).is_file() and folder.parent.name == "results":
            result = read(RunResult, folder / RESULTS)
            return folder, result, list(result.settings)
    if IDENTIFIER.fullmatch(run):
        return _of_mlflow(home, run, runs)
    there = [path.parent.name for path in sorted((home / "results").glob(f"*/{RESULTS}")) if not path.parent.is_symlink()]
    raise InputError(
        f"{run} is no reproduction of {home} and no id of a run in MLflow: choose {LATEST}, or one of "
        f"{', '.join(there) or 'none, as there are none yet'}."
    )


def _of_mlflow(home: Path, run: str, runs: Runs) -> tuple[Path, RunResult | SweepResult, list[Any]]:
    """The rows of a run in MLflow, found in the results of the home by their artefacts."""
    from mlflow.exceptions import MlflowException

    try:
        found = runs.client.get_run(run)
    except MlflowException:
        raise InputError(f"{runs.uri} has no run {run}: give an id that MLflow shows, or {LATEST}.") from None
    family = [found, *runs.find(found.info.experiment_id, PARENT, run)]
    wanted = {key for one in family if (key := _evaluation(one))}
    for room, kind in ROOMS.items():
        for path in sorted((home / room).glob(f"*/{RESULTS}"), reverse=True):
            result = read(kind, path)
            rows = [row for row in _all(result) if row.artefacts.get("evaluate") in wanted]
            if rows:
                return path.parent.resolve(), result, rows
    raise InputError(f"no results in {home} belong to the run {run} of MLflow: name the home that they are in with --home.")


def _evaluation(run: Any) -> str | None:
    """The key of the evaluation that a run in MLflow shows; None if it shows none."""
    found = recorded(run).get(ARTEFACT)
    return None if found is None else str(found)


def _all(result: RunResult | SweepResult) -> Sequence[Any]:
    return result.settings if isinstance(result, RunResult) else result.points
