"""The flow ``reproduce``: the paper's eight settings or some, each as a subflow, and the table of results."""

import os
from dataclasses import replace
from typing import Any

from prefect import State, flow
from prefect.artifacts import create_markdown_artifact
from prefect.states import Cancelled

from dynconf_core.experiment.profiles import PROFILES
from dynconf_core.experiment.request import CheckedRequest, Request, checked
from dynconf_core.results.files import new_run, write_results
from dynconf_core.results.markdown import results_markdown
from dynconf_core.results.types import RunResult
from dynconf_flows.workers.messages import Assignment
from dynconf_flows.parent_run import ParentRun
from dynconf_flows.workers.pool import Participants, finished_or_interrupted
from dynconf_flows.prefect_runs import owned
from dynconf_flows.run_result import run_result
from dynconf_tasks import interruption
from dynconf_tasks.parameters import Duration, Memory, Overrides, ProfileName, Seed, SettingName, values_of
from dynconf_tasks.reconcile import at_work


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
    stage_timeout: Duration | None = None,
) -> RunResult | State[RunResult]:
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
        stage_timeout: the longest that a stage may run, such as 90s, 30m or 2h; default: any time.

    Returns:
        the content of results.json.

    Raises:
        InputError: if the request cannot work; nothing is started.
        SomeFailed: if a setting failed; the results of all are written.
    """
    request = Request(
        profile,
        tuple(settings or ()),
        values_of(overrides),
        seed,
        device,
        home,
        data,
        checkpoints or {},
        memory,
        stage_timeout,
    )
    return run_request(checked(request), command)


def run_request(asked: CheckedRequest, command: str | None = None) -> RunResult | State[RunResult]:
    """Run a checked request; see ``reproduce``. If it was interrupted, Prefect's run ends as cancelled, with the result."""
    told = command or f"flow reproduce, profile {asked.request.profile}"
    with at_work(asked.context.home, told):
        return _run_request(asked, told)


def _run_request(asked: CheckedRequest, command: str) -> RunResult | State[RunResult]:
    request, folder = asked.request, asked.context.home
    profile, seed = request.profile, request.seed
    asked.context.prepare()
    parent = ParentRun.started(folder, profile, seed, asked.identity(), f"{profile}, seed {seed}")
    assignments = [Assignment(plan, asked.context, asked.checkpoint(plan), asked.identity(), parent.id) for plan in asked.plans]
    jobs = max(1, min(PROFILES[profile].jobs, os.cpu_count() or 1, len(assignments)))
    with owned(), Participants(folder, jobs, request.stage_seconds()) as participants:
        runs, signalled = finished_or_interrupted(participants, assignments)
        result = run_result(
            asked,
            new_run(folder, f"{profile}-seed{seed}"),
            [run.row for run in runs],
            command,
            next((run.tracking_error for run in reversed(runs) if run.tracking_error), parent.error),
        )
        write_results(folder, result, newest=not interruption.interrupted())
        parent.finish(result, interruption.interrupted())
    result = replace(result, tracking_error=result.tracking_error or parent.error)
    if signalled is not None:
        raise signalled
    if interruption.interrupted():
        return Cancelled(message="Interrupted; finished stages are kept.", data=result)
    create_markdown_artifact(results_markdown(result), key="results", description=f"Results, profile {profile}")
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


def result_of(state: State[Any]) -> RunResult:
    """The result of a flow run that has finished, in which some settings failed, or which was interrupted."""
    found = state.result(raise_on_failure=False)
    if isinstance(found, SomeFailed):
        return found.result
    if isinstance(found, RunResult):
        return found
    raise found
