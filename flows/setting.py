"""The flow ``setting``: one setting from its ANN to its row of the results."""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from prefect import State, flow
from prefect.logging import get_run_logger

from dynconf_core.experiment.context import RunContext
from dynconf_core.experiment.job import Handle, Job
from dynconf_core.experiment.plan import Plan
from dynconf_core.experiment.request import Request, checked
from dynconf_core.experiment.stages import STAGES, Stage, code_fingerprint, job
from dynconf_core.results.rows import completed, failed
from dynconf_core.results.types import AnySetting, FailedSetting
from dynconf_tasks.parameters import Memory, Overrides, ProfileName, Seed, SettingName
from dynconf_tasks.track import TrackingUnavailable, track


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
    request = checked(Request(profile, (name,), overrides or {}, seed, device, home, data, checkpoints, memory))
    (plan,) = request.plans
    return run_setting(plan, request.context, request.checkpoint(plan), request.identity(), parent_run, track_run)


def run_setting(
    plan: Plan,
    context: RunContext,
    checkpoint: Path | None,
    identity: dict[str, Any],
    parent_run: str | None = None,
    track_run: bool = True,
) -> SettingRun:
    """Run a plan that is known to work; see ``setting``.

    Args:
        plan: what is run.
        context: where and with what.
        checkpoint: a file whose weights are taken instead of training.
        identity: what tells its reproduction from another in MLflow.
        parent_run, track_run: of MLflow.
    """
    context.prepare()
    done: dict[str, Handle] = {}
    row: AnySetting
    try:
        _run_stages(job(plan, context, checkpoint), done)
        row = completed(plan, done)
    except Exception as error:
        row = failed(plan, done, error)
    tracking_error = None
    if track_run:
        try:
            track(plan, row, done.get("evaluate"), context.home, identity, parent_run)
        except TrackingUnavailable as error:
            get_run_logger().warning("%s", error)
            tracking_error = str(error)
    run = SettingRun(row, tracking_error)
    if isinstance(row, FailedSetting):
        raise SettingFailed(run)
    return run


planned_setting = flow(name="setting", flow_run_name="{plan.setting}", validate_parameters=False, persist_result=False)(
    run_setting
)
"""A subflow of the flows that have checked their request."""


def _run_stages(given: Job, done: dict[str, Handle]) -> None:
    """The stages in the order of the data; ``done`` holds those that are finished, also when one raises."""
    for stage in STAGES:
        code_fingerprint(stage.modules(given.plan))  # of the code as it is now, not as it may be when the stage begins
    for stage in STAGES:
        done[stage.name] = _run(stage, given, {role: done[name] for role, name in stage.inputs.items()})


def _run(stage: Stage, given: Job, inputs: dict[str, Handle]) -> Handle:
    """A task's state that it chose itself (``Cached``) comes back as it is, the handle in it."""
    module, _, function = stage.task.partition(":")
    returned = getattr(import_module(module), function)(given, inputs)
    found: Handle = returned.result() if isinstance(returned, State) else returned
    return found
