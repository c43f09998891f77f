"""The flow ``reproduce``: the eight settings, or those named, each as a subflow, and the table of their results."""

import contextvars
import os
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.logging import get_run_logger

from dynconf_core.data.dataset import DATASETS
from dynconf_core.experiment.plan import Plan
from dynconf_core.experiment.profiles import PROFILES
from dynconf_core.experiment.request import CheckedRequest, Request, checked
from dynconf_core.experiment.settings import UNNAMED
from dynconf_core.results.files import environment_facts, new_run, write_results
from dynconf_core.schemes.scheme import SCHEMES
from dynconf_flows.command.tables import results_markdown
from dynconf_flows.setting import SettingFailed, planned_setting
from dynconf_tasks import interruption
from dynconf_tasks.parameters import Memory, Overrides, ProfileName, Seed, SettingName
from dynconf_tasks.rows import failed_row
from dynconf_tasks.track import TrackingUnavailable, tracker


class SomeFailed(RuntimeError):
    """A reproduction of which some settings failed; ``document`` is its results.json, the others included."""

    def __init__(self, document: dict[str, Any]) -> None:
        failed = [row["name"] for row in document["settings"] if row["status"] == "failed"]
        super().__init__(f"{len(failed)} of {len(document['settings'])} settings failed: {', '.join(failed)}")
        self.document = document


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
) -> dict[str, Any]:
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
        the content of results.json.

    Raises:
        InputError: where the request cannot work; nothing was started.
        SomeFailed: where a setting raised; the others are done and written.
    """
    request = Request(profile, tuple(settings or ()), overrides or {}, seed, device, home, data, checkpoints or {}, memory)
    return run_request(checked(request), command)


def run_request(asked: CheckedRequest, command: str | None = None) -> dict[str, Any]:
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

    def run_one(plan: Plan) -> dict[str, Any]:
        interruption.check()
        tracked = parent is not None
        return planned_setting(plan, asked.context, asked.checkpoint(plan), asked.identity(), parent, tracked)

    rows: list[dict[str, Any]] = []
    jobs = max(1, min(PROFILES[profile].jobs, os.cpu_count() or 1))
    with ThreadPoolExecutor(jobs) as pool:
        # Each thread works in a copy of the flow's context, so that its setting is a subflow of this run.
        running = [pool.submit(contextvars.copy_context().run, run_one, plan) for plan in asked.plans]
        try:
            rows = [_row_of(future, plan) for future, plan in zip(running, asked.plans, strict=True)]
        except KeyboardInterrupt:
            interruption.interrupt()
            rows = [_row_of(future, plan) for future, plan in zip(running, asked.plans, strict=True)]

    for row in rows:
        tracking_error = row.pop("tracking_error", None) or tracking_error
    savings = [row["exit"]["latency_saving"] for row in rows if row["status"] == "ok"]
    document = {
        "schema": 1,
        "run": new_run(folder, f"{profile}-seed{seed}"),
        "profile": profile,
        "seed": seed,
        "overrides": dict(asked.overrides),
        "command": command or f"flow reproduce, profile {profile}",
        "environment": environment_facts(),
        "tracking_error": tracking_error,
        "mean_latency_saving": sum(savings) / len(savings) if savings else None,
        "paper_footnotes": [
            {"family": f"{DATASETS.get(data).title}, {SCHEMES.get(method).title}", **vars(row)}
            for (data, method), row in UNNAMED.items()
        ],
        "settings": rows,
    }
    document["results"] = str(write_results(folder, document["run"], document, newest=not interruption.interrupted()))
    create_markdown_artifact(results_markdown(document), key="results", description=f"Results, profile {profile}")
    if parent is not None:
        try:
            tracking.finish_parent(parent, document, interrupted=interruption.interrupted())
        except TrackingUnavailable as error:
            document["tracking_error"] = str(error)
    if len(savings) < len(rows):
        raise SomeFailed(document)
    return document


checked_reproduction = flow(
    name="reproduce",
    flow_run_name="reproduce {asked.request.profile}, seed {asked.request.seed}",
    validate_parameters=False,
    persist_result=False,
)(run_request)
"""For the command, which has checked the request before it starts a server."""


def _row_of(future: "Future[dict[str, Any]]", plan: Any) -> dict[str, Any]:
    try:
        return future.result()
    except SettingFailed as failure:
        return failure.row
    except Exception as error:
        return failed_row(plan, {}, error)
