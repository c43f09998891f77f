"""A participant that died after more points than the Prefect server lists at a time."""

from __future__ import annotations

from loopback_cluster import Cluster

LISTED = 200
"""Runs that the server gives at most, if it is not asked for a part of them."""


def test_the_run_of_a_dead_participant_that_the_server_lists_last_ends_too(cluster: Cluster) -> None:
    from prefect import flow, task
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterParentFlowRunId
    from prefect.settings import PREFECT_API_URL, temporary_settings
    from prefect.states import Completed, Running

    from dynconf_flows.prefect_runs import crash_flow_run

    point = flow(name="point")(lambda: None)
    server = temporary_settings({PREFECT_API_URL: cluster.environment["PREFECT_API_URL"]})
    with server, get_client(sync_client=True) as client:
        above = client.create_flow_run(flow(name="participant")(lambda: None), state=Running()).id
        beside = client.create_task_run(task(name="point")(lambda: None), above, "0", state=Running()).id
        for _ in range(LISTED + 1):
            client.create_flow_run(point, parent_task_run_id=beside, state=Completed())
        below = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[above]))
        (last,) = client.read_flow_runs(flow_run_filter=below, offset=LISTED)
        client.set_flow_run_state(last.id, Running(), force=True)
        crash_flow_run(str(above), "died")
        states = [client.read_flow_run(run).state for run in (last.id, above)]
        for name in ("point", "participant"):
            client.delete_flow(client.read_flow_by_name(name).id)  # and its runs
    assert [state and state.type.value for state in states] == ["CRASHED", "CRASHED"]
