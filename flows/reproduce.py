"""The flow ``reproduce``: the paper's eight settings or some, each as a subflow, and the table of results."""

import contextvars
import os
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.logging import get_run_logger

from dynconf_core.data.dataset import DATASETS
from dynconf_core.experiment.plan import Plan
from dynconf_core.experiment.profiles import PROFILES
from dynconf_core.experiment.request import CheckedRequest, Request, checked
from dynconf_core.experiment.settings import SETTINGS, UNNAMED
from dynconf_core.results.environment import environment
from dynconf_core.results.files import new_run, write_results
from dynconf_core.results.markdown import results_markdown
from dynconf_core.results.rows import failed
from dynconf_core.results.types import PaperFootnote, RunResult, SettingResult
from dynconf_core.schemes.scheme import SCHEMES
from dynconf_flows.setting import SettingFailed, SettingRun, planned_setting
from dynconf_tasks import interruption
from dynconf_tasks.parameters import Memory, Overrides, ProfileName, Seed, SettingName, values_of
from dynconf_tasks.reconcile import at_work
from dynconf_tasks.track import TrackingUnavailable, tracker


class SomeFailed(RuntimeError):
    """Some settings of a reproduction failed; ``result`` holds the results of all."""

    def __init__(self, result: RunResult) -> None:
        failed = ", ".join(row.name for row in result.failed)
        super().__init__(f"{len(result.failed)} of {len(result.settings)} settings failed: {failed}")
        self.result = result


@flow(name="reproduce", flow_run_name="reproduce {profile}, seed {seed}", persist_result=False)
def reproduce(
    profile: ProfileName = "smoke",
    settings: list[SettingName] | None = None,
    overrides: Overrides | None = None,
    seed: Seed = 0,
    device: str = "auto",
    home: str | None = None,
    data: str | None = None,
    checkpoints: dict[str, str] | None = None,
    command: str | None = None,
    memory: Memory | None = None,
) -> RunResult:
    """Run the paper's settings, write `results.json` and log to MLflow.

    Args:
        profile: scale of the run: smoke (digits), quick (CIFAR-10, Imagenette, reduced) or paper.
        settings: names of the settings to run; default: all eight.
        overrides: fields whose values are to differ from the profile's, such as time_steps.
        seed: seed of weights, shuffling, augmentation and search.
        device: auto, cpu, cuda or cuda:N.
        home: folder of artefacts and tracking; default DYNCONF_HOME or .dynconf.
        data: folder of the data sets; default DYNCONF_DATA or data in the home.
        checkpoints: by setting, a file whose weights are used instead of training.
        command: the command line, for the record.
        memory: memory limit for simulation on a CPU, such as 8GiB; default: none.

    Returns:
        the content of results.json.

    Raises:
        InputError: if the request cannot work; nothing is started.
        SomeFailed: if a setting failed; the results of all are written.
    """
    request = Request(profile, tuple(settings or ()), values_of(overrides), seed, device, home, data, checkpoints or {}, memory)
    return run_request(checked(request), command)


def run_request(asked: CheckedRequest, command: str | None = None) -> RunResult:
    """Run a checked request; see ``reproduce``."""
    with at_work(asked.context.home, command or f"flow reproduce, profile {asked.request.profile}"):
        return _run_request(asked, command)


def _run_request(asked: CheckedRequest, command: str | None) -> RunResult:
    request, folder = asked.request, asked.context.home
    profile, seed = request.profile, request.seed
    logger = get_run_logger()
    asked.context.prepare()
    parent, tracking_error = None, None
    try:
        tracking = tracker(folder)
        parent = tracking.parent(profile, seed, asked.identity(), f"{profile}, seed {seed}")
    except TrackingUnavailable as error:
        tracking_error = str(error)
        logger.warning("%s", error)

    def run_one(plan: Plan) -> SettingRun:
        interruption.check()
        tracked = parent is not None
        return planned_setting(plan, asked.context, asked.checkpoint(plan), asked.identity(), parent, tracked)

    runs: list[SettingRun] = []
    jobs = max(1, min(PROFILES[profile].jobs, os.cpu_count() or 1))
    with ThreadPoolExecutor(jobs) as pool:
        # Each thread runs in a copy of the flow's context, so that its setting is a subflow of this run.
        running = [pool.submit(contextvars.copy_context().run, run_one, plan) for plan in asked.plans]
        try:
            runs = [_run_of(future, plan) for future, plan in zip(running, asked.plans, strict=True)]
        except KeyboardInterrupt:
            interruption.interrupt()
            runs = [_run_of(future, plan) for future, plan in zip(running, asked.plans, strict=True)]

    rows = tuple(run.row for run in runs)
    savings = [row.exit.latency_saving for row in rows if isinstance(row, SettingResult)]
    ours = [plan.setting for plan in asked.plans if plan.setting in SETTINGS]
    result = RunResult(
        run=new_run(folder, f"{profile}-seed{seed}"),
        profile=profile,
        seed=seed,
        overrides=dict(asked.overrides),
        command=command or f"flow reproduce, profile {profile}",
        environment=environment(),
        tracking_error=next((run.tracking_error for run in reversed(runs) if run.tracking_error), tracking_error),
        mean_latency_saving=sum(savings) / len(savings) if savings else None,
        paper_footnotes=tuple(
            PaperFootnote(family=f"{DATASETS.get(data).title}, {SCHEMES.get(method).title}", **vars(row))
            for (data, method), row in UNNAMED.items()
            if any(SETTINGS[name].dataset == data and SETTINGS[name].method == method for name in ours)
        ),
        settings=rows,
    )
    write_results(folder, result, newest=not interruption.interrupted())
    create_markdown_artifact(results_markdown(result), key="results", description=f"Results, profile {profile}")
    if parent is not None:
        try:
            tracking.finish_parent(parent, result, interrupted=interruption.interrupted())
        except TrackingUnavailable as error:
            result = replace(result, tracking_error=str(error))
    if result.failed:
        raise SomeFailed(result)
    return result


checked_reproduction = flow(
    name="reproduce",
    flow_run_name="reproduce {asked.request.profile}, seed {asked.request.seed}",
    validate_parameters=False,
    persist_result=False,
)(run_request)
"""The flow for the command, which checks the request before it starts a server."""


def _run_of(future: "Future[SettingRun]", plan: Plan) -> SettingRun:
    try:
        return future.result()
    except SettingFailed as failure:
        return failure.run
    except Exception as error:
        return SettingRun(failed(plan, {}, error))
