"""The flow ``sweep``: a grid or an Optuna study over the fields of settings.

Each point is a ``setting`` subflow. Points share all stages with equal keys, and an interrupted sweep resumes from the store.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from dynconf_core.experiment.overrides import fitting
from dynconf_core.experiment.points import CheckedSweep, Range, at_point, checked_sweep
from dynconf_core.experiment.request import Request
from dynconf_core.results.environment import environment
from dynconf_core.results.files import write_sweep
from dynconf_core.results.markdown import sweep_markdown
from dynconf_core.results.types import AnyPoint, AnySetting, FailedPoint, SettingResult, SweepPoint, SweepResult
from dynconf_core.schemes.field import Value
from dynconf_flows.setting import SettingFailed, planned_setting
from dynconf_tasks import interruption
from dynconf_tasks.parameters import Count, Memory, Overrides, ProfileName, Seed, SettingName, values_of
from dynconf_tasks.reconcile import at_work
from dynconf_tasks.track import TrackingUnavailable, tracker

if TYPE_CHECKING:
    import optuna


@flow(name="sweep", flow_run_name="sweep {profile}", persist_result=False)
def sweep(
    settings: list[SettingName],
    profile: ProfileName = "smoke",
    grid: dict[str, str] | None = None,
    study: dict[str, str] | None = None,
    trials: Count = 20,
    overrides: Overrides | None = None,
    seed: Seed = 0,
    device: str = "auto",
    home: str | None = None,
    data: str | None = None,
    memory: Memory | None = None,
) -> SweepResult:
    """Run all points and report the Pareto front of test accuracy against mean steps.

    Args:
        settings: names of the settings; each point runs for all of them.
        profile: scale of the run: smoke, quick or paper.
        grid: by field (or seed), values such as "8,16,32"; every combination runs.
        study: by field, a range such as "4..32" or values such as "2,4,8", from which Optuna chooses.
        trials: number of points of a study, including those of earlier runs.
        overrides: fields whose values are to differ from the profile's, the same for all points.
        seed: seed of the study, and of all points without one.
        device: auto, cpu, cuda or cuda:N.
        home: folder of artefacts and tracking; default DYNCONF_HOME or .dynconf.
        data: folder of the data sets; default DYNCONF_DATA or data in the home.
        memory: memory limit for simulation on a CPU, such as 8GiB; default: none.

    Returns:
        the content of the sweep's results.json.

    Raises:
        InputError: if the request cannot work; nothing is started.
    """
    request = Request(profile, tuple(settings), values_of(overrides), seed, device, home, data, memory=memory)
    return run_sweep(checked_sweep(request, grid or {}, study or {}, trials))


def run_sweep(swept: CheckedSweep) -> SweepResult:
    """Run a checked sweep; see ``sweep``."""
    home = swept.asked.context.home
    with at_work(home, f"sweep {_name(swept)}", home / "sweeps" / _name(swept)):
        return _run_sweep(swept)


def _run_sweep(swept: CheckedSweep) -> SweepResult:
    asked = swept.asked
    profile, seed, where = asked.request.profile, asked.request.seed, asked.context.home
    asked.context.prepare()
    try:
        tracker(where)
        tracking = True
    except TrackingUnavailable:
        tracking = False

    found: list[AnyPoint] = []

    def run_point(values: Mapping[str, Value]) -> list[AnyPoint]:
        entries = []
        request = at_point(asked.request, values)
        plans = request.plans()
        overrides = request.values(plans)
        for plan in plans:
            try:
                run = planned_setting(plan, asked.context, None, fitting(plan, overrides), track_run=tracking)
            except SettingFailed as failure:
                run = failure.run
            entries.append(_point(run.row, values))
            found.append(entries[-1])
            interruption.check()
        return entries

    name = _name(swept)
    try:
        if swept.points:
            for point in swept.points:
                run_point(point)
        else:
            for _ in _studied(run_point, swept, name):
                pass
    except (KeyboardInterrupt, interruption.Interrupted):
        interruption.interrupt()
    points_found = _with_front(found)
    result = SweepResult(
        run=name,
        profile=profile,
        seed=seed,
        environment=environment(),
        failed=sum(isinstance(point, FailedPoint) for point in points_found),
        points=points_found,
    )
    write_sweep(where, result, newest=not interruption.interrupted())
    create_markdown_artifact(sweep_markdown(result), key="sweep", description=f"Pareto front, profile {profile}")
    return result


checked_sweeping = flow(
    name="sweep",
    flow_run_name="sweep {swept.asked.request.profile}",
    validate_parameters=False,
    persist_result=False,
)(run_sweep)
"""The flow for the command, which checks the sweep before it starts a server."""


def _studied(
    run_point: Callable[[Mapping[str, Value]], list[AnyPoint]], swept: CheckedSweep, name: str
) -> Iterator[list[AnyPoint]]:
    """Run points chosen by Optuna until the study has ``trials``, including those of earlier runs, which the store supplies.

    The objectives are means over the settings.
    """
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend
    from optuna.trial import TrialState

    trials, seed = swept.trials, swept.asked.request.seed
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        study_name=f"sweep-{name}",
        storage=JournalStorage(JournalFileBackend(str(swept.asked.context.journal))),
        directions=["maximize", "minimize"],
        load_if_exists=True,
    )
    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    study.sampler = optuna.samplers.TPESampler(seed=(seed * 1_000_003 + len(study.trials)) % 2**32)
    for trial in finished[:trials]:
        yield run_point(dict(trial.params))
    for _ in range(trials - len(finished)):
        asked = study.ask()
        rows = run_point({one.field: _suggested(asked, one) for one in swept.ranges})
        finished_points = [row for row in rows if isinstance(row, SweepPoint)]
        if len(finished_points) < len(rows):
            study.tell(asked, state=TrialState.FAIL)
        else:
            aims = zip(*((row.calibration_accuracy, row.calibration_mean_steps) for row in finished_points), strict=True)
            study.tell(asked, [sum(values) / len(rows) for values in aims])
        yield rows


def _suggested(trial: "optuna.Trial", one: Range) -> Value:
    if one.choices:
        return cast(Value, trial.suggest_categorical(one.field, list(one.choices)))
    if isinstance(one.low, int) and isinstance(one.high, int):
        return trial.suggest_int(one.field, one.low, one.high)
    return trial.suggest_float(one.field, one.low, one.high, log=one.field in ("alpha", "learning_rate"))


def _point(row: AnySetting, values: Mapping[str, Value]) -> AnyPoint:
    """The entry of a point: a study optimises the figures of the calibration split and only reports those of the test split."""
    if not isinstance(row, SettingResult):
        return FailedPoint(setting=row.name, values=dict(values), error=row.error, artefacts=row.artefacts)
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
