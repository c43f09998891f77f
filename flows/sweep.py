"""The flow ``sweep``: a grid or an Optuna study over the fields of settings.

A sweep is a study (see ``dynconf_flows.taking_part``), and each setting at a point a ``setting`` subflow. Points share all
stages with equal keys, and an interrupted sweep resumes from the store.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from prefect import State, flow
from prefect.artifacts import create_markdown_artifact
from prefect.states import Cancelled

from dynconf_core.experiment.overrides import OF_SEARCH, fitting
from dynconf_core.experiment.plan import Plan
from dynconf_core.experiment.points import CheckedSweep, at_point, checked_sweep
from dynconf_core.experiment.request import Request
from dynconf_core.report.writing import write_quietly
from dynconf_core.results.environment import environment
from dynconf_core.results.files import sweep_file, write_sweep
from dynconf_core.results.markdown import sweep_markdown
from dynconf_core.results.records import read
from dynconf_core.results.sweep_front import with_front
from dynconf_core.results.types import AnyPoint, AnySetting, FailedPoint, SettingResult, SweepPoint, SweepResult
from dynconf_core.schemes.field import Value
from dynconf_flows.others import Others
from dynconf_flows.parent_run import ParentRun
from dynconf_flows.prefect_runs import owned
from dynconf_flows.taking_part import ALONE, Part, Participant, code_of
from dynconf_flows.workers.messages import Assignment
from dynconf_tasks import interruption
from dynconf_tasks.parameters import (
    Count,
    Duration,
    GridField,
    Memory,
    Overrides,
    ProfileName,
    Seed,
    SettingName,
    StudyField,
    WorkerCount,
    swept_texts,
    values_of,
)
from dynconf_tasks.reconcile import at_work
from dynconf_tasks.study.points import ACCURACY, MEAN_STEPS, SETTING, Chosen, Listed, Points, Values
from dynconf_tasks.study.shared import SharedStudy
from dynconf_tasks.study.storage import some, title
from dynconf_tasks.study.trials import Point


@flow(name="sweep", flow_run_name="sweep {profile}", persist_result=False)
def sweep(
    settings: list[SettingName],
    profile: ProfileName = "smoke",
    grid: list[GridField] | None = None,
    study: list[StudyField] | None = None,
    trials: Count = 20,
    overrides: Overrides | None = None,
    seed: Seed = 0,
    device: str = "auto",
    home: str | None = None,
    data: str | None = None,
    memory: Memory | None = None,
    stage_timeout: Duration | None = None,
    participants: Count = 1,
    workers: WorkerCount | None = None,
    join: bool = False,
    allow_other_code: bool = False,
) -> SweepResult | State[SweepResult]:
    """Run all points and report the Pareto front of accuracy against mean steps, chosen on the calibration split.

    Args:
        settings: names of the settings; each point runs for all of them.
        profile: scale of the run: smoke, quick or paper.
        grid: fields (or seed) and their values, such as time_steps=8,16,32; every combination runs.
        study: instead of a grid, ranges such as alpha=1..100 or values such as bits=2,4,8, from which Optuna chooses.
        trials: number of points of a study, including those of earlier runs.
        overrides: fields whose values are to differ from the profile's, the same for all points.
        seed: seed of the study, and of all points without one.
        device: auto, cpu, cuda or cuda:N.
        home: folder of artefacts and tracking; default DYNCONF_HOME or .dynconf.
        data: folder of the data sets; default DYNCONF_DATA or data in the home.
        memory: memory limit for simulation on a CPU, such as 8GiB; default: none.
        stage_timeout: the longest that a stage may run, such as 90s, 30m or 2h; default: any time.
        participants: number of runs of this deployment, on as many workers of the pool, that share the points.
        workers: number of settings that run at the same time in each of them, 0 without processes of their own; default: the
            profile's, one for a study.
        join: take part in the same sweep that others began; what failed there is not tried again.
        allow_other_code: take part even if the others run another version of dynconf.

    Returns:
        the content of the sweep's results.json.

    Raises:
        InputError: if the request cannot work; nothing is started.
    """
    request = Request(
        profile,
        tuple(settings),
        values_of(overrides),
        seed,
        device,
        home,
        data,
        memory=memory,
        stage_timeout=stage_timeout,
        workers=workers,
    )
    swept = checked_sweep(request, swept_texts(grid, "grid"), swept_texts(study, "study"), trials)
    return run_sweep(swept, Part(join, allow_other_code, participants))


def run_sweep(swept: CheckedSweep, part: Part = ALONE, command: str | None = None) -> SweepResult | State[SweepResult]:
    """Run a checked sweep; see ``sweep``. If it was interrupted, Prefect's run ends as cancelled, with the result."""
    home, name = swept.asked.context.home, _name(swept)
    told = command or f"flow sweep, profile {swept.asked.request.profile}"
    with at_work(home, f"sweep {name}", home / "sweeps" / name):
        return _run_sweep(swept, name, told, part)


def _run_sweep(swept: CheckedSweep, name: str, command: str, part: Part) -> SweepResult | State[SweepResult]:
    asked = swept.asked
    home, profile, seed = asked.context.home, asked.request.profile, asked.request.seed
    asked.context.prepare()
    study = SharedStudy(
        home,
        _title(swept),
        _points(swept),
        code_of(asked.plans),
        lambda: name,
        join=part.join,
        other_code=part.allow_other_code,
    )
    most = len(asked.plans) * (swept.trials if swept.ranges else len(swept.points))
    identity = {**asked.overrides, **swept.fields}
    with (
        owned(),
        study,
        Others(part.participants),
        part.workers(asked, most) as workers,
        ParentRun.started(home, profile, seed, identity, f"sweep {name}", "sweep", command) as parent,
    ):

        def assignments(values: Values) -> list[Assignment]:
            plans, overrides, fields = _at(swept, values)
            return [Assignment(plan, asked.context, None, fitting(plan, overrides), parent.id, fields) for plan in plans]

        participant = Participant(
            study, workers, assignments, parent.end_dead, one_by_one=bool(swept.ranges) and asked.request.workers is None
        )
        signalled = participant.run()

        def make(points: Sequence[Point], settled: bool) -> SweepResult:
            found = participant.entries(points, lambda values: _at(swept, values)[0], asked.context)
            error = next((one.tracking_error for one in found if one.tracking_error), parent.error)
            rows = [(row, one.values) for one in found if one.values and one.begun for row in one.rows]
            result = _result(swept, command, error, [_point(row, _fields(values)) for row, values in rows])
            if not any(point.condition == "running" for point in points):  # otherwise those who are left write them
                write_sweep(home, result, newest=settled)
            return result

        result = study.gathered(make, lambda: read(SweepResult, sweep_file(home, name)))
        write_quietly(sweep_file(home, name).parent, home)
        parent.finish(result, interruption.interrupted(), study.settled)
    if signalled is not None:
        raise signalled
    if interruption.interrupted():
        return Cancelled(message="Interrupted; finished stages are kept.", data=result)
    create_markdown_artifact(sweep_markdown(result), key="sweep", description=f"Pareto front, profile {profile}")
    return result


checked_sweeping = flow(
    name="sweep",
    flow_run_name="sweep {swept.asked.request.profile}",
    validate_parameters=False,
    persist_result=False,
)(run_sweep)
"""The flow for the command, which checks the sweep before it starts a server."""


def result_of(state: State[Any]) -> SweepResult:
    """The result of a flow run that has finished or was interrupted."""
    found = state.result(raise_on_failure=False)
    if isinstance(found, SweepResult):
        return found
    raise found


def _points(swept: CheckedSweep) -> Points:
    """The points of the study: of a grid, each setting at each combination of values; of a study, all settings together.

    Where nothing is swept but how the rule of one setting is chosen, the accuracy hardly moves, as the loss is what was
    promised: the mean steps are then the only objective.
    """
    plans = swept.asked.plans
    same_accuracy = set(swept.fields) <= set(OF_SEARCH) - {"max_drop"} and (bool(swept.ranges) or len(plans) == 1)
    objectives = (MEAN_STEPS,) if same_accuracy else (ACCURACY, MEAN_STEPS)
    if swept.ranges:
        return Chosen(swept.ranges, swept.trials, swept.asked.request.seed, objectives)
    return Listed([{SETTING: plan.setting, **point} for point in swept.points for plan in plans], objectives)


def _at(swept: CheckedSweep, values: Values) -> tuple[list[Plan], Mapping[str, Value], dict[str, Value]]:
    """Of a point of the study: its plans, their fields that differ from the profile's, and the values of the swept fields."""
    fields = _fields(values)
    request = at_point(swept.asked.request, fields)
    plans = request.plans()
    return [plan for plan in plans if values.get(SETTING, plan.setting) == plan.setting], request.values(plans), fields


def _fields(values: Values) -> dict[str, Value]:
    return {name: value for name, value in values.items() if name != SETTING}


def _result(swept: CheckedSweep, command: str, tracking_error: str | None, found: Sequence[AnyPoint]) -> SweepResult:
    points = with_front(found)
    return SweepResult(
        run=_name(swept),
        profile=swept.asked.request.profile,
        seed=swept.asked.request.seed,
        environment=environment(),
        tracking_error=tracking_error,
        failed=sum(isinstance(point, FailedPoint) for point in points),
        points=points,
        command=command,
        overrides=dict(swept.asked.overrides),
    )


def _point(row: AnySetting, values: Mapping[str, Value]) -> AnyPoint:
    """The entry of a point: a study optimises the figures of the calibration split and only reports those of the test split."""
    if not isinstance(row, SettingResult):
        return FailedPoint(
            setting=row.name, values=dict(values), error=row.error, artefacts=row.artefacts, resources=row.resources
        )
    return SweepPoint(
        setting=row.name,
        values=dict(values),
        error=None,
        ann_accuracy=row.ann_accuracy,
        snn_accuracy=row.snn_accuracy,
        accuracy=row.exit.accuracy,
        mean_steps=row.exit.mean_steps,
        calibration_accuracy=row.exit.rule.calibration.accuracy,
        calibration_mean_steps=row.exit.rule.calibration.mean_steps,
        stages=row.stages,
        artefacts=row.artefacts,
        resources=row.resources,
    )


def _title(swept: CheckedSweep) -> str:
    """The name of a sweep's study."""
    names, name = [plan.setting for plan in swept.asked.plans], _name(swept)
    return title(some(names), ", ".join(swept.fields), swept.asked.request.profile, name.rsplit("-", 1)[-1])


def _name(swept: CheckedSweep) -> str:
    """The name of a sweep; equal sweeps have equal names, so that a study is resumed and its results are replaced."""
    request, overrides = swept.asked.request, swept.asked.overrides
    fields = sorted(swept.fields.items())
    asked = json.dumps([sorted(request.settings), request.profile, fields, sorted(overrides.items()), request.seed])
    return f"{request.profile}-{'-'.join(swept.fields)}-{hashlib.sha256(asked.encode()).hexdigest()[:8]}"
