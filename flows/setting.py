"""The flow ``setting``: all stages of one setting, and its entry in the results."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, runtime_checkable
from uuid import UUID

from prefect import State, flow
from prefect.context import FlowRunContext
from prefect.logging import get_run_logger
from prefect.states import Cancelled

from dynconf_core.experiment.job import Handle, Job, RunContext
from dynconf_core.experiment.plan import Plan
from dynconf_core.experiment.request import CheckedRequest, Request, checked
from dynconf_core.experiment.stages import Stage, code_fingerprint, job, stages_of
from dynconf_core.results.rows import completed, failed
from dynconf_core.results.types import AnySetting, FailedSetting
from dynconf_core.schemes.field import Value
from dynconf_flows.parent_run import ParentRun
from dynconf_flows.prefect_runs import owned
from dynconf_flows.requested import run_title
from dynconf_flows.run_result import run_result
from dynconf_tasks import interruption
from dynconf_tasks.parameters import Duration, Memory, Overrides, ProfileName, Seed, SettingName, values_of
from dynconf_tasks.reconcile import at_work
from dynconf_tasks.track import track
from dynconf_tasks.tracking.tracker import TrackingUnavailable


@dataclass(frozen=True)
class SettingRun:
    """A setting's entry in the results, the reason if it could not be logged to MLflow, and whether it was interrupted."""

    row: AnySetting
    tracking_error: str | None = None
    interrupted: bool = False


class SettingFailed(RuntimeError):
    """A stage of a setting failed; ``run`` holds the setting's entry in the results."""

    def __init__(self, run: SettingRun) -> None:
        super().__init__(f"{run.row.name}: {run.row.error}")
        self.run = run


@runtime_checkable
class Observer(Protocol):
    """Learns of a setting's progress as it runs, so that nothing is forgotten if its process dies."""

    def began(self, flow_run: UUID) -> None:
        """Called at the start with the flow run's id."""

    def made(self, handle: Handle) -> None:
        """Called after every finished stage."""


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
    stage_timeout: Duration | None = None,
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
        stage_timeout: the longest that a stage may run, such as 90s, 30m or 2h; default: any time.

    Returns:
        the setting's entry in results.json.

    Raises:
        InputError: if the request cannot work.
        SettingFailed: if a stage failed, or was not done in time.
    """
    checkpoints = {name: checkpoint} if checkpoint else {}
    request = checked(
        Request(profile, (name,), values_of(overrides), seed, device, home, data, checkpoints, memory, stage_timeout)
    )
    with at_work(request.context.home, f"setting {name}, profile {profile}"):
        return _run_alone(request, parent_run, track_run)


def _run_alone(request: CheckedRequest, parent_run: str | None, track_run: bool) -> SettingRun:
    """Run the one setting of a request, and end the MLflow run that was found or created for it."""
    (plan,) = request.plans
    profile, seed, identity = plan.profile, plan.seed, request.identity()
    command = f"flow setting, profile {profile}"
    own = None
    if track_run and parent_run is None:
        own = ParentRun.started(request.context.home, profile, seed, identity, run_title(request), command=command)
    parent = own.id if own is not None else parent_run if track_run else None
    row: AnySetting = failed(plan, {}, interruption.Interrupted())
    error = own.error if own is not None else None
    killed = True
    try:
        with owned():
            if request.request.stage_timeout is None:
                found = run_setting(plan, request.context, request.checkpoint(plan), identity, parent)
            else:
                found = _run_in_time(request, parent)
        row, error, killed = found.row, found.tracking_error or error, found.interrupted
        return SettingRun(row, error)
    except SettingFailed as failure:
        row, error, killed = failure.run.row, failure.run.tracking_error or error, False
        raise
    finally:
        if own is not None:
            own.finish(run_result(request, plan.setting, [row], command, error), killed)


def _run_in_time(request: CheckedRequest, parent: str | None) -> SettingRun:
    """Run the one setting of a request as a subflow in a process of its own, which is killed if a stage takes too long."""
    from dynconf_flows.workers.messages import Assignment
    from dynconf_flows.workers.pool import LocalWorkers, run_one  # which needs this module

    (plan,) = request.plans
    request.context.prepare()
    assignment = Assignment(plan, request.context, request.checkpoint(plan), request.identity(), parent)
    with LocalWorkers(request.context.home, 1, request.request.stage_seconds()) as workers:
        run, signalled = run_one(workers, assignment)
    if signalled is not None:
        raise signalled
    if isinstance(run.row, FailedSetting) and not run.interrupted:
        raise SettingFailed(run)
    return run


def run_setting(
    plan: Plan,
    context: RunContext,
    checkpoint: Path | None,
    identity: Mapping[str, Value],
    parent_run: str | None = None,
    point: Mapping[str, Value] | None = None,
    observer: Observer | None = None,
) -> SettingRun:
    """Run a checked plan.

    Args:
        plan: the setting's plan.
        context: the environment of the run.
        checkpoint: a file whose weights are used instead of training.
        identity: what identifies its reproduction in MLflow.
        parent_run: the MLflow run under which it is logged; None does not log it.
        point: the values of the swept fields, if it is a point of a sweep.
        observer: learns of the flow run and of every finished stage.

    Returns:
        the setting's entry in results.json; if the run was interrupted, that of a failed setting.

    Raises:
        SettingFailed: if a stage failed.
    """
    context.prepare()
    running = FlowRunContext.get()
    if observer is not None and running is not None and running.flow_run is not None:
        observer.began(running.flow_run.id)
    done: dict[str, Handle] = {}
    row: AnySetting
    try:
        _run_stages(job(plan, context, checkpoint), done, observer)
        row = completed(plan, done, context)
    except Exception as error:
        if interruption.interrupted():  # it is not logged: a rerun does that
            return SettingRun(failed(plan, done, interruption.Interrupted()), interrupted=True)
        row = failed(plan, done, error)
    tracking_error = None
    if parent_run is not None:
        try:
            track(plan, row, done.get("evaluate"), context.home, identity, parent_run, point)
        except TrackingUnavailable as error:
            get_run_logger().warning("%s", error)
            tracking_error = str(error)
    run = SettingRun(row, tracking_error)
    if isinstance(row, FailedSetting):
        raise SettingFailed(run)
    return run


def _subflow(
    plan: Plan,
    context: RunContext,
    checkpoint: Path | None,
    identity: Mapping[str, Value],
    parent_run: str | None = None,
    point: Mapping[str, Value] | None = None,
    observer: Observer | None = None,
) -> SettingRun | State[SettingRun]:
    """``run_setting``, cancelled in Prefect if it was interrupted."""
    run = run_setting(plan, context, checkpoint, identity, parent_run, point, observer)
    return Cancelled(message=str(interruption.Interrupted()), data=run) if run.interrupted else run


planned_setting = flow(name="setting", flow_run_name="{plan.setting}", validate_parameters=False, persist_result=False)(
    _subflow
)
"""The subflow of flows that have checked their request; call it with ``return_state=True`` and read the state by ``run_of``."""


def run_of(state: State[Any], plan: Plan) -> SettingRun:
    """The setting's entry, whether it finished, failed or was interrupted."""
    found = state.result(raise_on_failure=False)
    if isinstance(found, SettingRun):
        return found
    if isinstance(found, SettingFailed):
        return found.run
    return SettingRun(failed(plan, {}, found if isinstance(found, Exception) else RuntimeError(str(found))))


def _run_stages(given: Job, done: dict[str, Handle], observer: Observer | None) -> None:
    """Run all stages in order; ``done`` collects the finished ones, even if one fails."""
    stages = stages_of(given.plan)
    for stage in stages:
        code_fingerprint(stage.modules(given.plan))  # of the code as it is now, not as it may be when the stage starts
    for stage in stages:
        interruption.check()
        done[stage.name] = _run(stage, given, {role: done[name] for role, name in stage.inputs.items()})
        if observer is not None:
            observer.made(done[stage.name])


def _run(stage: Stage, given: Job, inputs: dict[str, Handle]) -> Handle:
    """Run the task of a stage; if the task returns a state (``Cached``), its result is the handle."""
    module, _, function = stage.task.partition(":")
    returned = getattr(import_module(module), function)(given, inputs)
    found: Handle = returned.result() if isinstance(returned, State) else returned
    return found
