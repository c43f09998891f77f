"""Links between a run in Prefect and its run in MLflow, so that each is found from the other's page."""

import os
import re

FLOW_RUN, NOTE = "dynconf.flow_run", "mlflow.note.content"
"""Tags in MLflow: the id of the flow run, and the description, which MLflow shows as Markdown."""
TEMPORARY = "DYNCONF_TEMPORARY_SERVER"
"""Set in the environment while the Prefect server is one that ends with the command; its pages would soon be gone."""


def flow_run_tags() -> dict[str, str]:
    """The tags of an MLflow run that name the current flow run and lead to its page; none outside a flow."""
    from prefect.context import FlowRunContext
    from prefect.utilities.urls import url_for

    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return {}
    identifier = str(context.flow_run.id)
    page = None if os.environ.get(TEMPORARY) else url_for("flow-run", obj_id=identifier)
    return {FLOW_RUN: identifier, **({NOTE: f"[Flow run in Prefect]({page})"} if page else {})}


def link_to(uri: str, experiment: str, run: str) -> None:
    """Show the page of an MLflow run as an artifact of the current flow run, if the tracking server has pages.

    Args:
        uri: of the tracking server; user and password in it are left out.
        experiment, run: the ids.
    """
    from prefect.artifacts import create_link_artifact
    from prefect.context import FlowRunContext

    if FlowRunContext.get() is None or os.environ.get(TEMPORARY) or not re.match("https?://", uri):
        return
    place = re.sub(r"//[^/@]*@", "//", uri).rstrip("/")
    create_link_artifact(
        f"{place}/#/experiments/{experiment}/runs/{run}", "MLflow", key="mlflow", description="The run's figures in MLflow"
    )
