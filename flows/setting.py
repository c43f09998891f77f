"""The flow ``setting``: all stages of one setting, and its entry in the results."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from prefect import State, flow
from prefect.logging import get_run_logger

from dynconf_core.experiment.job import Handle, Job, RunContext
from dynconf_core.experiment.plan import Plan
from dynconf_core.experiment.request import Request, checked
from dynconf_core.experiment.stages import STAGES, Stage, code_fingerprint, job
from dynconf_core.results.rows import completed, failed
from dynconf_core.results.types import AnySetting, FailedSetting
from dynconf_core.schemes.field import Value
from dynconf_tasks.parameters import Memory, Overrides, ProfileName, Seed, SettingName, values_of
from dynconf_tasks.reconcile import at_work
from dynconf_tasks.track import TrackingUnavailable, track


@dataclass(frozen=True)
class SettingRun:
    """A setting's entry in the results, and the reason if it could not be logged to MLflow."""

    row: AnySetting
    tracking_error: str | None = None


class SettingFailed(RuntimeError):
    """A stage of a setting failed; ``run`` holds the setting's entry in the results."""

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
        name: a setting that `dynconf settings` lists, or package.module:SETTING.
        profile: scale of the run: smoke (digits), quick (CIFAR-10, Imagenette, reduced) or paper.
        overrides: fields whose values are to differ from the profile's, such as time_steps.
        seed: seed of weights, shuffling, augmentation and search.
        device: auto, cpu, cuda or cuda:N.
        home: folder of artefacts and tracking; default DYNCONF_HOME or .dynconf.
        data: folder of the data sets; default DYNCONF_DATA or data in the home.
        checkpoint: a file whose weights are used instead of training.
        parent_run: the MLflow run under which this one is logged; default: found or created.
        track_run: whether to log to MLflow.
        memory: memory limit for simulation on a CPU, such as 8GiB; default: none.

    Returns:
        the setting's entry in results.json.

    Raises:
        InputError: if the request cannot work.
        SettingFailed: if a stage failed.
    """
    checkpoints = {name: checkpoint} if checkpoint else {}
    request = checked(Request(profile, (name,), values_of(overrides), seed, device, home, data, checkpoints, memory))
    (plan,) = request.plans
    with at_work(request.context.home, f"setting {name}, profile {profile}"):
        return run_setting(plan, request.context, request.checkpoint(plan), request.identity(), parent_run, track_run)


def run_setting(
    plan: Plan,
    context: RunContext,
    checkpoint: Path | None,
    identity: Mapping[str, Value],
    parent_run: str | None = None,
    track_run: bool = True,
) -> SettingRun:
    """Run a checked plan; see ``setting``.

    Args:
        plan: the setting's plan.
        context: the environment of the run.
        checkpoint: a file whose weights are used instead of training.
        identity: what identifies its reproduction in MLflow.
        parent_run, track_run: see ``setting``.
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
"""The subflow of flows that have checked their request."""


def _run_stages(given: Job, done: dict[str, Handle]) -> None:
    """Run all stages in order; ``done`` collects the finished ones, even if one fails."""
    for stage in STAGES:
        code_fingerprint(stage.modules(given.plan))  # of the code as it is now, not as it may be when the stage starts
    for stage in STAGES:
        done[stage.name] = _run(stage, given, {role: done[name] for role, name in stage.inputs.items()})


def _run(stage: Stage, given: Job, inputs: dict[str, Handle]) -> Handle:
    """Run the task of a stage; if the task returns a state (``Cached``), its result is the handle."""
    module, _, function = stage.task.partition(":")
    returned = getattr(import_module(module), function)(given, inputs)
    found: Handle = returned.result() if isinstance(returned, State) else returned
    return found
