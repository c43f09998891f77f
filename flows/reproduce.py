"""The flow ``reproduce``: the eight settings, or those named, each as a subflow, and the table of their results."""

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
from dynconf_core.experiment.settings import UNNAMED
from dynconf_core.results.environment import environment
from dynconf_core.results.files import new_run, write_results
from dynconf_core.results.markdown import results_markdown
from dynconf_core.results.rows import failed
from dynconf_core.results.types import PaperFootnote, RunResult, SettingResult
from dynconf_core.schemes.scheme import SCHEMES
from dynconf_flows.setting import SettingFailed, SettingRun, planned_setting
from dynconf_tasks import interruption
from dynconf_tasks.parameters import Memory, Overrides, ProfileName, Seed, SettingName
from dynconf_tasks.track import TrackingUnavailable, tracker


class SomeFailed(RuntimeError):
    """A reproduction of which some settings failed; ``result`` is its results.json, the others included."""

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
    """Run the paper's settings, write `results.json` and log them to MLflow.

    Args:
        profile: how much of each setting is run: smoke (digits), quick (CIFAR-10, Imagenette, reduced) or paper.
        settings: names of those to run; all eight by default.
        overrides: fields whose value is to differ from the profile's, such as time_steps.
        seed: of weights, shuffling, augmentation and search.
        device: auto, cpu, cuda or cuda:N.
        home: folder of artefacts and tracking; default DYNCONF_HOME or .dynconf.
        data: folder of the data sets; default DYNCONF_DATA or data in the home.
        checkpoints: setting to a file whose weights are taken instead of training.
        command: what the user typed, for the record.
        memory: what simulation on a CPU may take, such as 8GiB; no bound by default.

    Returns:
        what results.json holds.

    Raises:
        InputError: where the request cannot work; nothing was started.
        SomeFailed: where a setting raised; the others are done and written.
    """
    request = Request(profile, tuple(settings or ()), overrides or {}, seed, device, home, data, checkpoints or {}, memory)
    return run_request(checked(request), command)


def run_request(asked: CheckedRequest, command: str | None = None) -> RunResult:
    """Run a request that is known to work; see ``reproduce``."""
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
        # Each thread works in a copy of the flow's context, so that its setting is a subflow of this run.
        running = [pool.submit(contextvars.copy_context().run, run_one, plan) for plan in asked.plans]
        try:
            runs = [_run_of(future, plan) for future, plan in zip(running, asked.plans, strict=True)]
        except KeyboardInterrupt:
            interruption.interrupt()
            runs = [_run_of(future, plan) for future, plan in zip(running, asked.plans, strict=True)]

    rows = tuple(run.row for run in runs)
    savings = [row.exit.latency_saving for row in rows if isinstance(row, SettingResult)]
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
"""For the command, which has checked the request before it starts a server."""


def _run_of(future: "Future[SettingRun]", plan: Plan) -> SettingRun:
    try:
        return future.result()
    except SettingFailed as failure:
        return failure.run
    except Exception as error:
        return SettingRun(failed(plan, {}, error))
