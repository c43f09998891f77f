"""The pages of MLflow's UI that are worth opening: the saved views of the experiment last used, and its newest run."""

from collections.abc import Iterator
from pathlib import Path

from dynconf_tasks.tracking.family import PARENT
from dynconf_tasks.tracking.runs import Runs
from dynconf_tasks.tracking.views import OF_ANALYSES, OF_PROFILES, WORKFLOW

PREFIX = "dynconf-"
"""How the names of the experiments begin."""
ANALYSES = f"{PREFIX}analysis"


def pages(home: Path) -> Iterator[tuple[str, str]]:
    """Titles and addresses, without the server's part, of the newest experiment of a profile first, then of the analyses."""
    runs = Runs(home, lambda holder: None)
    experiments = [one for one in runs.client.search_experiments() if one.name.startswith(PREFIX)]
    profiles = [one for one in experiments if one.name != ANALYSES]
    for experiment in sorted(profiles, key=lambda one: one.last_update_time or 0, reverse=True)[:1]:
        for view in OF_PROFILES[:-1]:
            yield f"{view.name}, {experiment.name.removeprefix(PREFIX)}", view.address(experiment.experiment_id)
        found = runs.client.search_runs([experiment.experiment_id], max_results=100, order_by=["attributes.start_time DESC"])
        newest = next((run for run in found if PARENT not in run.data.tags), None)
        if newest is not None:
            address = f"#/experiments/{experiment.experiment_id}/runs/{newest.info.run_id}?{WORKFLOW}"
            yield f"Newest run, {newest.info.run_name}", address
    for experiment in experiments:
        if experiment.name == ANALYSES:
            yield from ((view.name, view.address(experiment.experiment_id)) for view in OF_ANALYSES)
