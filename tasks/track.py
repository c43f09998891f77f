"""The stage ``track``: log a setting or a point to MLflow, with its model."""

from collections.abc import Mapping
from pathlib import Path

from prefect import task

from dynconf_core.experiment.job import Handle
from dynconf_core.experiment.plan import Plan
from dynconf_core.experiment.request import data_folder
from dynconf_core.results.types import AnySetting, SettingResult
from dynconf_core.schemes.field import Value
from dynconf_tasks.serving.of_run import log_model
from dynconf_tasks.stage import TASK_OPTIONS
from dynconf_tasks.tracking.logged import Origin, child_of
from dynconf_tasks.tracking.tracker import tracker


@task(name="track", task_run_name="{plan.setting} · track", **TASK_OPTIONS)
def track(
    plan: Plan,
    row: AnySetting,
    evaluation: Handle | None,
    home: Path,
    identity: Mapping[str, Value],
    parent: str | None,
    point: Mapping[str, Value] | None = None,
) -> str:
    """Log a setting's figures, plots and rule below ``parent`` (None: found or created); returns the run's id."""
    writer = tracker(home)
    if parent is None:
        parent = writer.parent(plan.profile, plan.seed, identity, f"{plan.profile}, seed {plan.seed}")
    origin = Origin(home, plan.profile, plan.seed, identity, plan, writer.command(parent), point)
    artefact = origin.store.get(evaluation.key) if evaluation is not None else None
    run = writer.child(parent, child_of(row, origin, artefact))
    if isinstance(row, SettingResult) and point is None:
        log_model(writer.uri, run, row.name, row.artefacts, origin.store, data_folder(None, home))
    return run
