"""The flow ``sweep``: a grid or an Optuna study over the fields of settings.

Each point is a ``setting`` subflow. Points share all stages with equal keys, and an interrupted sweep resumes from the store.
"""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

from prefect import State, flow
from prefect.artifacts import create_markdown_artifact
from prefect.states import Cancelled

from dynconf_core.experiment.overrides import fitting
from dynconf_core.experiment.points import CheckedSweep, at_point, checked_sweep
from dynconf_core.experiment.request import Request
from dynconf_core.results.environment import environment
from dynconf_core.results.files import write_sweep
from dynconf_core.results.markdown import sweep_markdown
from dynconf_core.results.types import AnyPoint, AnySetting, FailedPoint, SettingResult, SweepPoint, SweepResult
from dynconf_core.schemes.field import Value
from dynconf_core.store.claim import claim
from dynconf_flows.workers.messages import Assignment
from dynconf_flows.parent_run import ParentRun
from dynconf_flows.workers.pool import Participants, finished_or_interrupted
from dynconf_flows.prefect_runs import owned
from dynconf_flows.study import run_study
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
    swept_texts,
    values_of,
)
from dynconf_tasks.reconcile import at_work


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
) -> SweepResult | State[SweepResult]:
    """Run all points and report the Pareto front of test accuracy against mean steps.

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

    Returns:
        the content of the sweep's results.json.

    Raises:
        InputError: if the request cannot work; nothing is started.
    """
    request = Request(
        profile, tuple(settings), values_of(overrides), seed, device, home, data, memory=memory, stage_timeout=stage_timeout
    )
    return run_sweep(checked_sweep(request, swept_texts(grid, "grid"), swept_texts(study, "study"), trials))


def run_sweep(swept: CheckedSweep) -> SweepResult | State[SweepResult]:
    """Run a checked sweep; see ``sweep``. If it was interrupted, Prefect's run ends as cancelled, with the result."""
    home, name = swept.asked.context.home, _name(swept)
    with at_work(home, f"sweep {name}", home / "sweeps" / name):
        return _run_sweep(swept, name)


def _run_sweep(swept: CheckedSweep, name: str) -> SweepResult | State[SweepResult]:
    asked = swept.asked
    request, home = asked.request, asked.context.home
    profile, seed = request.profile, request.seed
    asked.context.prepare()
    signalled: BaseException | None = None
    found: list[AnyPoint] = []
    claimed = claim(home, f"sweep-{name}", f"sweep {name}", _Wait(name)) if swept.ranges else nullcontext()
    try:
        with claimed:
            parent = ParentRun.started(home, profile, seed, {**asked.overrides, **swept.fields}, f"sweep {name}", "sweep")
            with owned(), Participants(home, 1, request.stage_seconds()) as participants:

                def run_point(values: Mapping[str, Value]) -> list[AnyPoint]:
                    nonlocal signalled
                    interruption.check()
                    plans = at_point(request, values).plans()
                    overrides = at_point(request, values).values(plans)
                    assignments = [
                        Assignment(plan, asked.context, None, fitting(plan, overrides), parent.id, dict(values))
                        for plan in plans
                    ]
                    runs, signalled = finished_or_interrupted(participants, assignments)
                    found.extend(_point(run.row, values) for run in runs)
                    interruption.check()
                    return found[-len(runs) :]

                try:
                    for point in swept.points:
                        run_point(point)
                    if swept.ranges:
                        run_study(
                            lambda values: _aims(run_point(values)),
                            swept.ranges,
                            swept.trials,
                            seed,
                            f"sweep-{name}",
                            asked.context.journal,
                        )
                except interruption.Interrupted:
                    pass
                result = _result(swept, found)
                write_sweep(home, result, newest=not interruption.interrupted())
                parent.finish(result, interruption.interrupted())
    except interruption.Interrupted:  # while it waited for another process
        result = _result(swept, found)
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


@dataclass
class _Wait:
    """Says once which process is waited for, and ends the wait when the run is interrupted."""

    name: str
    said: bool = False

    def __call__(self, holder: str) -> None:
        interruption.check()
        if not self.said:
            self.said = True
            logging.getLogger(__name__).warning("sweep %s waits for %s", self.name, holder)


def _aims(points: Sequence[AnyPoint]) -> Sequence[float] | None:
    """The objectives of a study, means over the settings; None if one failed."""
    finished = [point for point in points if isinstance(point, SweepPoint)]
    if len(finished) < len(points):
        return None
    aims = zip(*((point.calibration_accuracy, point.calibration_mean_steps) for point in finished), strict=True)
    return [sum(values) / len(points) for values in aims]


def _result(swept: CheckedSweep, found: Sequence[AnyPoint]) -> SweepResult:
    points = _with_front(found)
    return SweepResult(
        run=_name(swept),
        profile=swept.asked.request.profile,
        seed=swept.asked.request.seed,
        environment=environment(),
        failed=sum(isinstance(point, FailedPoint) for point in points),
        points=points,
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


def _with_front(points: Sequence[AnyPoint]) -> tuple[AnyPoint, ...]:
    """The points, with those marked that are on the Pareto front of their setting."""

    def beaten(point: SweepPoint) -> bool:
        return any(
            isinstance(other, SweepPoint)
            and other.setting == point.setting
            and other.accuracy >= point.accuracy
            and other.mean_steps <= point.mean_steps
            and (other.accuracy, other.mean_steps) != (point.accuracy, point.mean_steps)
            for other in points
        )

    return tuple(replace(point, on_front=not beaten(point)) if isinstance(point, SweepPoint) else point for point in points)


def _name(swept: CheckedSweep) -> str:
    """The name of a sweep; equal sweeps have equal names, so that a study is resumed and its results are replaced."""
    request, overrides = swept.asked.request, swept.asked.overrides
    fields = sorted(swept.fields.items())
    asked = json.dumps([sorted(request.settings), request.profile, fields, sorted(overrides.items()), request.seed])
    return f"{request.profile}-{'-'.join(swept.fields)}-{hashlib.sha256(asked.encode()).hexdigest()[:8]}"
