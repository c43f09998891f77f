"""The flow ``reproduce``: the paper's eight settings or some, each as a subflow, and the table of results.

A reproduction is a study whose points are its settings (see ``dynconf_flows.taking_part``).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from prefect import State, flow
from prefect.artifacts import create_markdown_artifact
from prefect.states import Cancelled

from dynconf_core.experiment.request import CheckedRequest, Request, checked
from dynconf_core.report.writing import write_quietly
from dynconf_core.results.files import new_run, results_file, write_results
from dynconf_core.results.markdown import results_markdown
from dynconf_core.results.records import read
from dynconf_core.results.types import RunResult
from dynconf_flows.others import Others
from dynconf_flows.parent_run import ParentRun
from dynconf_flows.prefect_runs import owned
from dynconf_flows.requested import run_name, run_title, study_name
from dynconf_flows.run_result import run_result
from dynconf_flows.taking_part import ALONE, Part, Participant, code_of
from dynconf_flows.workers.messages import Assignment
from dynconf_tasks import interruption
from dynconf_tasks.parameters import (
    CheckpointFile,
    Count,
    Duration,
    Memory,
    Overrides,
    ProfileName,
    Seed,
    SettingName,
    WorkerCount,
    checkpoint_files,
    values_of,
)
from dynconf_tasks.reconcile import at_work
from dynconf_tasks.study.points import SETTING, Listed, Values
from dynconf_tasks.study.shared import SharedStudy
from dynconf_tasks.study.trials import Point


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
    checkpoints: list[CheckpointFile] | None = None,
    command: str | None = None,
    memory: Memory | None = None,
    stage_timeout: Duration | None = None,
    participants: Count = 1,
    workers: WorkerCount | None = None,
    join: bool = False,
    allow_other_code: bool = False,
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
        checkpoints: settings and files whose weights are used instead of training, each SETTING=PATH.
        command: the command line, for the record.
        memory: memory limit for simulation on a CPU, such as 8GiB; default: none.
        stage_timeout: the longest that a stage may run, such as 90s, 30m or 2h; default: any time.
        participants: number of runs of this deployment, on as many workers of the pool, that share the settings.
        workers: number of settings that run at the same time in each of them, 0 without processes of their own; default: the
            profile's.
        join: take part in the same reproduction that others began; what failed there is not tried again.
        allow_other_code: take part even if the others run another version of dynconf.

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
        checkpoint_files(checkpoints),
        memory,
        stage_timeout,
        workers,
    )
    return run_request(checked(request), command, Part(join, allow_other_code, participants))


def run_request(asked: CheckedRequest, command: str | None = None, part: Part = ALONE) -> RunResult | State[RunResult]:
    """Run a checked request; see ``reproduce``. If it was interrupted, Prefect's run ends as cancelled, with the result."""
    told = command or f"flow reproduce, profile {asked.request.profile}"
    with at_work(asked.context.home, told):
        return _run_request(asked, told, part)


def _run_request(asked: CheckedRequest, command: str, part: Part) -> RunResult | State[RunResult]:
    home, profile, seed = asked.context.home, asked.request.profile, asked.request.seed
    plans = {plan.setting: plan for plan in asked.plans}
    asked.context.prepare()
    study = SharedStudy(
        home,
        study_name(asked),
        Listed([{SETTING: name} for name in plans]),
        code_of(asked.plans),
        lambda: new_run(home, run_name(asked)),
        join=part.join,
        other_code=part.allow_other_code,
    )
    with (
        owned(),
        study,
        Others(part.participants),
        part.workers(asked, len(plans)) as workers,
        ParentRun.started(home, profile, seed, asked.identity(), run_title(asked), command=command) as parent,
    ):

        def assignments(values: Values) -> list[Assignment]:
            plan = plans[str(values[SETTING])]
            return [Assignment(plan, asked.context, asked.checkpoint(plan), asked.identity(), parent.id)]

        participant = Participant(study, workers, assignments, parent.end_dead)
        signalled = participant.run()

        def make(points: Sequence[Point], settled: bool) -> RunResult:
            found = participant.entries(points, lambda values: [plans[str(values[SETTING])]], asked.context)
            error = next((one.tracking_error for one in found if one.tracking_error), parent.error)
            result = run_result(asked, study.run, [row for one in found for row in one.rows], command, error)
            if not any(point.condition == "running" for point in points):  # otherwise those who are left write them
                write_results(home, result, newest=settled)
            return result

        result = study.gathered(make, lambda: read(RunResult, results_file(home, study.run)))
        write_quietly(results_file(home, study.run).parent, home, asked.context.data)
        parent.finish(result, interruption.interrupted(), study.settled)
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
