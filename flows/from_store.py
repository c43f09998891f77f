"""A reproduction of which nothing is left to do: its results from the store, without Prefect, MLflow's client or processes.

The flow would look up the same stages, gather the same entries and find the same runs in MLflow; it takes several times as
long, for starting what then has nothing to do.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from dynconf_core.experiment.following import follow
from dynconf_core.experiment.job import Handle
from dynconf_core.experiment.request import CheckedRequest
from dynconf_core.experiment.stages import job
from dynconf_core.home.claims import claims
from dynconf_core.home.running import stale
from dynconf_flows.requested import run_name, study_name

if TYPE_CHECKING:
    from dynconf_core.results.types import RunResult

Stages = Mapping[str, Mapping[str, Handle]]
"""The finished stages by setting and name."""


def result_from_store(asked: CheckedRequest, command: str) -> RunResult | None:
    """The result of a reproduction whose stages are all in the store, verified, and logged to MLflow; written as a new run.

    Returns:
        None if anything is left to do: a stage, logging to MLflow, joining others who work on the same, or ending the records
        of a run that was killed. Also if ``PREFECT_API_URL`` names a server, where users find every reproduction as a flow run.
    """
    home = asked.context.home
    if os.environ.get("PREFECT_API_URL") or finished(asked, verified=False) is None or _others(asked) or stale(home):
        return None
    stages = finished(asked)
    if stages is None or not _tracked(asked, stages):
        return None
    from dynconf_core.report.writing import write_quietly
    from dynconf_core.results.files import new_run, write_results
    from dynconf_core.results.rows import completed
    from dynconf_flows.run_result import run_result

    rows = [completed(plan, stages[plan.setting], asked.context) for plan in asked.plans]
    result = run_result(asked, new_run(home, run_name(asked)), rows, command, None)
    write_quietly(write_results(home, result).parent, home, asked.context.data)
    return result


def finished(asked: CheckedRequest, verified: bool = True) -> Stages | None:
    """The stages of all settings; None as soon as one is missing.

    Args:
        asked: the checked request.
        verified: whether to verify the artefacts' files; without, only their manifests are read.
    """
    found = {}
    for plan in asked.plans:
        stages = follow(job(plan, asked.context, asked.checkpoint(plan)), verified)
        if not stages.complete:
            return None
        found[plan.setting] = stages.finished
    return found


def _others(asked: CheckedRequest) -> bool:
    """Whether other processes take part in the same reproduction."""
    from dynconf_tasks.study.shared import participation

    what = participation(study_name(asked))
    return any(claim.held and claim.what == what for claim in claims(asked.context.home))


def _tracked(asked: CheckedRequest, stages: Stages) -> bool:
    from dynconf_tasks.tracking.known import is_tracked

    evaluations = [of_setting["evaluate"].digest for of_setting in stages.values()]
    return is_tracked(asked.context.home, asked.request.profile, asked.request.seed, asked.identity(), evaluations)
