"""`dynconf deploy`, and its automations: what the server does with runs that fall silent or crash.

Heartbeats are sent by the test, since Prefect's own are at least 30 s apart.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from uuid import UUID

import pytest
from loopback_cluster import Cluster
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.events import emit_event
from prefect.events.worker import EventsWorker
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Crashed, Running, Scheduled

from dynconf_core.errors import InputError
from dynconf_flows.deployments import automate, deploy

SHORT = 10
"""Seconds; Prefect takes no fewer."""
GONE = {"traces": "/nowhere"}
Run = UUID


@pytest.fixture
def client(cluster: Cluster) -> Iterator[SyncPrefectClient]:
    """A client of the server, which has the automations for the time of the test, and none of its runs afterwards."""
    with temporary_settings({PREFECT_API_URL: cluster.environment["PREFECT_API_URL"]}), get_client(sync_client=True) as found:
        names = automate(found, SHORT, SHORT)
        before = {run.id for run in found.read_flow_runs()}
        try:
            assert names == automate(found, SHORT, SHORT), "they are updated, not doubled"
            assert len(found.read_automations()) == len(names) == 2
            yield found
        finally:
            for automation in found.read_automations():
                found.delete_automation(automation.id)
            for run in found.read_flow_runs():
                if run.id not in before:
                    found.delete_flow_run(run.id)


@flow
def of_somebody_else() -> None:
    """A flow that is none of ours."""


def started(client: SyncPrefectClient, times: int = 1, deployed: bool = True, tags: tuple[str, ...] = ("dynconf",)) -> Run:
    """A run of the deployment `analyse`, or of no deployment, that has been started some times, and says that it runs."""
    if deployed:
        deployment = client.read_deployment_by_name("analyse/dynconf")
        run = client.create_flow_run_from_deployment(deployment.id, parameters=GONE, state=Running()).id
    else:
        run = client.create_flow_run(of_somebody_else, tags=tags, state=Running()).id
    for _ in range(times - client.read_flow_run(run).run_count):
        client.set_flow_run_state(run, Scheduled(), force=True)
        client.set_flow_run_state(run, Running(), force=True)
    assert client.read_flow_run(run).run_count == times
    return run


def heard(run: Run, *tags: str) -> None:
    related = [{"prefect.resource.id": f"prefect.tag.{tag}", "prefect.resource.role": "tag"} for tag in tags]
    emit_event("prefect.flow-run.heartbeat", {"prefect.resource.id": f"prefect.flow-run.{run}"}, related=related)


def states(client: SyncPrefectClient, run: Run) -> list[str]:
    answer = client.request("GET", "/flow_run_states/", params={"flow_run_id": str(run)})
    return [str(state["name"]) for state in answer.json()]


def test_silent_runs_crash_and_are_run_again_twice_at_most(client: SyncPrefectClient) -> None:
    silent, child, unheard = started(client), started(client, deployed=False, tags=("dynconf.owner=host/1/2",)), started(client)
    twice, thrice = started(client, 2), started(client, 3)
    theirs = started(client, deployed=False, tags=("theirs",))
    heard(silent, "dynconf", "traces")
    heard(child, "dynconf.owner=host/1/2")
    heard(theirs, "theirs")
    EventsWorker.drain_all(timeout=5)
    for run in (twice, thrice):
        client.set_flow_run_state(run, Crashed(), force=True)

    end = time.monotonic() + 60
    while time.monotonic() < end and not all("AwaitingRetry" in states(client, run) for run in (silent, twice)):
        time.sleep(0.5)
    assert states(client, silent)[:3] == ["Running", "Crashed", "AwaitingRetry"]
    assert "AwaitingRetry" in states(client, twice)
    assert states(client, child) == ["Running", "Crashed"], "a run within another is run again by that one"
    assert states(client, thrice)[-1] == "Crashed", "three starts are enough"
    assert states(client, unheard) == ["Running"] and states(client, theirs) == ["Running"]


def test_deploying_again_adds_nothing_and_a_missing_pool_is_named(client: SyncPrefectClient) -> None:
    before = {deployment.id for deployment in client.read_deployments()}
    with pytest.raises(InputError, match=r"work pool 'lab' does not exist.*prefect work-pool create lab"):
        deploy(client, "lab")
    assert deploy(client) == [f"{name}/dynconf" for name in ("reproduce", "setting", "sweep", "analyse")]
    assert {deployment.id for deployment in client.read_deployments()} == before
    (nightly,) = [one for one in client.read_deployment_by_name("reproduce/dynconf").schedules if "nightly" in (one.slug or "")]
    assert not nightly.active and nightly.parameters == {"profile": "smoke"}
