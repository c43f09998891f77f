"""The flow ``setting``: one setting from its ANN to its row of the results."""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import torch
from prefect import flow
from prefect.logging import get_run_logger
from prefect.states import State

from dynconf_core.data.load import data_set
from dynconf_core.experiment.plan import Plan
from dynconf_core.experiment.request import Request, checked, data_folder, home_folder, identity
from dynconf_core.experiment.settings import PROFILES, SETTINGS, paper_time_steps
from dynconf_core.memory import keep_freed_memory
from dynconf_core.results.rows import STAGES, completed, failed
from dynconf_core.results.types import AnySetting, FailedSetting
from dynconf_tasks.collect import collect
from dynconf_tasks.convert import convert
from dynconf_tasks.evaluate import evaluate
from dynconf_tasks.parameters import Memory, Overrides, ProfileName, Seed, SettingName
from dynconf_tasks.search import search
from dynconf_tasks.stage import Handle, Workplace, code_fingerprint
from dynconf_tasks.track import TrackingUnavailable, track
from dynconf_tasks.train import train

MODULES = tuple(import_module(f"dynconf_tasks.{name}") for name in ("train", "convert", "collect", "search", "evaluate"))


@dataclass(frozen=True)
class SettingRun:
    """A setting's entry in the results, and why it is not in MLflow, if it is not."""

    row: AnySetting
    tracking_error: str | None = None


class SettingFailed(RuntimeError):
    """A setting that raised midway; ``run`` holds its entry in the results."""

    def __init__(self, run: SettingRun) -> None:
        super().__init__(f"{run.row.name}: {run.row.error}")
        self.run = run


@flow(name="setting", flow_run_name="{name}", persist_result=False)
def setting(
    name: SettingName = "cifar10-resnet18-qcfs",
    profile: ProfileName = "smoke",
    overrides: Overrides | None = None,
    seed: Seed = 0,
    device: str = "auto",
    home: str | None = None,
    data: str | None = None,
    checkpoint: str | None = None,
    parent_run: str | None = None,
    track_run: bool = True,
    memory: Memory | None = None,
) -> SettingRun:
    """Train, convert, collect, search, evaluate and track one setting.

    Args:
        name: one of the settings that `dynconf settings` lists.
        profile: how much of it is run: smoke (digits), quick (CIFAR-10, Imagenette, reduced) or paper.
        overrides: fields whose value is to differ from the profile's, such as time_steps.
        seed: of weights, shuffling, augmentation and search.
        device: auto, cpu, cuda or cuda:N.
        home: folder of artefacts and tracking; default DYNCONF_HOME or .dynconf.
        data: folder of the data sets; default DYNCONF_DATA or data in the home.
        checkpoint: a file whose weights are taken instead of training.
        parent_run: the MLflow run under which this one is logged; found or made by default.
        track_run: whether it is logged to MLflow.
        memory: what simulation on a CPU may take, such as 8GiB; no bound by default.

    Returns:
        the setting's entry in results.json.

    Raises:
        InputError: where the request cannot work.
        SettingFailed: where a stage raised.
    """
    checkpoints = {name: checkpoint} if checkpoint else {}
    request = Request(profile, (name,), overrides or {}, seed, device, home, data, checkpoints, memory)
    (plan,) = checked(request)
    keep_freed_memory()
    threads = PROFILES[profile].threads
    if threads is not None:
        torch.set_num_threads(threads)
    where = home_folder(home)
    work = Workplace(where, data_folder(data, where), device, request.memory_share())
    done: dict[str, Handle] = {}
    row: AnySetting
    try:
        _run_stages(plan, work, Path(checkpoint) if checkpoint else None, done)
        row = completed(plan, SETTINGS[name], done)
    except Exception as error:
        row = failed(plan, done, error)
    tracking_error = None
    if track_run:
        try:
            track(plan, row, done.get("evaluate"), work, identity(request), parent_run)
        except TrackingUnavailable as error:
            get_run_logger().warning("%s", error)
            tracking_error = str(error)
    run = SettingRun(row, tracking_error)
    if isinstance(row, FailedSetting):
        raise SettingFailed(run)
    return run


def _run_stages(plan: Plan, work: Workplace, checkpoint: Path | None, done: dict[str, Handle]) -> None:
    """The stages in the order of the data; ``done`` holds those that are finished, also when one raises."""
    for files in {module.code(plan) for module in MODULES}:
        code_fingerprint(files)  # of the code as it is now, not as it may be when a stage begins
    data_digest = data_set(plan.data.name).digest(work.data)
    done["train"] = _handle(train(plan, work, data_digest, checkpoint))
    done["convert"] = _handle(convert(plan, work, done["train"]))
    for split in ("calibration", "test"):
        done[f"collect_{split}"] = _handle(collect(plan, work, data_digest, split, done["train"], done["convert"]))
    done["search"] = _handle(search(plan, work, done["collect_calibration"]))
    judged = evaluate(
        plan,
        work,
        paper_time_steps(plan.setting),
        done["search"],
        done["collect_calibration"],
        done["collect_test"],
    )
    done["evaluate"] = _handle(judged)
    assert tuple(done) == STAGES


def _handle(returned: State[Handle] | Handle) -> Handle:
    """What a task found or made: a state that the task itself chose (``Cached``) comes back as it is, the handle in it."""
    return returned.result() if isinstance(returned, State) else returned
