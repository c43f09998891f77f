"""The flow ``reproduce``: the eight settings, or those named, each as a subflow, and the table of their results."""

import contextvars
import os
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import torch
from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.logging import get_run_logger

from dynconf_core.experiment.overrides import fitting
from dynconf_core.experiment.plan import Plan
from dynconf_core.experiment.request import Request, checked, home_folder, identity
from dynconf_core.experiment.settings import FAMILIES, PROFILES, UNNAMED
from dynconf_core.results.environment import environment
from dynconf_core.results.files import new_run, write_results
from dynconf_core.results.markdown import results_markdown
from dynconf_core.results.rows import failed
from dynconf_core.results.types import PaperFootnote, RunResult, SettingResult
from dynconf_flows.setting import SettingFailed, SettingRun, setting
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
    plans = checked(request)
    folder = home_folder(home)
    logger = get_run_logger()
    how = PROFILES[profile]
    if how.threads is not None:
        torch.set_num_threads(how.threads)
    parent, tracking_error = None, None
    try:
        tracking = tracker(folder)
        parent = tracking.parent(profile, seed, identity(request), f"{profile}, seed {seed}")
    except TrackingUnavailable as error:
        tracking_error = str(error)
        logger.warning("%s", error)

    def run_one(plan: Plan) -> SettingRun:
        interruption.check()
        name = plan.setting
        return setting(
            name=name,
            profile=profile,
            overrides=fitting(plan, request.overrides),
            seed=seed,
            device=device,
            home=str(folder),
            data=data,
            checkpoint=request.checkpoints.get(name),
            parent_run=parent,
            track_run=parent is not None,
            memory=memory,
        )

    runs: list[SettingRun] = []
    jobs = max(1, min(how.jobs, os.cpu_count() or 1))
    with ThreadPoolExecutor(jobs) as pool:
        # Each thread works in a copy of the flow's context, so that its setting is a subflow of this run.
        running = [pool.submit(contextvars.copy_context().run, run_one, plan) for plan in plans]
        try:
            runs = [_run_of(future, plan) for future, plan in zip(running, plans, strict=True)]
        except KeyboardInterrupt:
            interruption.interrupt()
            runs = [_run_of(future, plan) for future, plan in zip(running, plans, strict=True)]

    rows = tuple(run.row for run in runs)
    savings = [row.exit.latency_saving for row in rows if isinstance(row, SettingResult)]
    result = RunResult(
        run=new_run(folder, f"{profile}-seed{seed}"),
        profile=profile,
        seed=seed,
        overrides=dict(request.overrides),
        command=command or f"flow reproduce, profile {profile}",
        environment=environment(),
        tracking_error=next((run.tracking_error for run in reversed(runs) if run.tracking_error), tracking_error),
        mean_latency_saving=sum(savings) / len(savings) if savings else None,
        paper_footnotes=tuple(
            PaperFootnote(family=f"{FAMILIES[data]}, {method.upper()}", **vars(row)) for (data, method), row in UNNAMED.items()
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


def _run_of(future: "Future[SettingRun]", plan: Plan) -> SettingRun:
    try:
        return future.result()
    except SettingFailed as failure:
        return failure.run
    except Exception as error:
        return SettingRun(failed(plan, {}, error))
