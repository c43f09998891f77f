"""Prefect's records of our runs: whose they are, how they end if their process dies, and that they arrive."""

import logging
import os
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from typing import Any
from uuid import UUID

from dynconf_core.store.owner import Owner

OWNER = "dynconf.owner="
"""Prefix of the tag that names the process of a run."""
RECORDED = 3.0
"""Seconds after which a server has surely recorded the start of a task run."""


@contextmanager
def owned() -> Iterator[None]:
    """Tag all runs that start in the block with this process."""
    from prefect import tags

    with tags(f"{OWNER}{Owner.this()}"):
        yield


def is_prefects(record: logging.LogRecord) -> bool:
    """Whether Prefect wrote a line of the log; some of its loggers are not called like it."""
    return record.name.split(".")[0] == "prefect" or record.pathname.startswith(_prefects_folders())


@cache
def _prefects_folders() -> tuple[str, ...]:
    found = find_spec("prefect")
    return tuple(f"{place}{os.sep}" for place in (found.submodule_search_locations or ())) if found is not None else ()


def context_for_child() -> dict[str, Any]:
    """This flow run's context, for a subflow in another process; without the owner, which is another one there."""
    from prefect.context import serialize_context

    context = serialize_context()
    if context["flow_run_context"]:
        context["flow_run_context"]["parameters"] = {}  # the subflow has its own
    if context["tags_context"]:
        tags = context["tags_context"]["current_tags"]
        context["tags_context"]["current_tags"] = {tag for tag in tags if not tag.startswith(OWNER)}
    return context


def end_runs(flow_run: UUID, message: str, cancelled: bool, finished: Collection[str] = (), running: str | None = None) -> None:
    """End the flow run of a process that died, and its unfinished task runs, as crashed or ``cancelled``.

    Args:
        flow_run: the flow run.
        message: why it ended.
        cancelled: whether it was stopped on purpose.
        finished: the names of its task runs that have finished, of which Prefect may not have heard.
        running: the name of the task run that was running, for which it waits: a server records task runs a little later.
    """
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
    from prefect.client.schemas.objects import State
    from prefect.states import Cancelled, Completed, Crashed

    make = Cancelled if cancelled else Crashed
    with get_client(sync_client=True) as client:
        of_flow_run = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run]))
        task_runs = client.read_task_runs(flow_run_filter=of_flow_run)
        end = time.monotonic() + (0 if cancelled else RECORDED)
        while running is not None and running not in {one.name for one in task_runs} and time.monotonic() < end:
            time.sleep(0.2)
            task_runs = client.read_task_runs(flow_run_filter=of_flow_run)
        for task_run in task_runs:
            if task_run.state is None or not task_run.state.is_final():
                state: State[Any] = Completed() if task_run.name in finished else make(message=message)
                client.set_task_run_state(task_run.id, state, force=True)
        client.set_flow_run_state(flow_run, make(message=message), force=True)


def crash_flow_run(flow_run: str, message: str) -> None:
    """End a flow run whose process has died, its subflows and their task runs as crashed, as far as they have not ended.

    Runs of a deployment that it has started run elsewhere, and are left alone.
    """
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterParentFlowRunId,
        FlowRunFilterState,
        FlowRunFilterStateType,
    )
    from prefect.client.schemas.objects import TERMINAL_STATES
    from prefect.states import Crashed

    with get_client(sync_client=True) as client:
        # Not all of them: the server would give the first 200, and a participant may have run thousands.
        unfinished = FlowRunFilterState(type=FlowRunFilterStateType(not_any_=list(TERMINAL_STATES)))
        below = FlowRunFilterParentFlowRunId(any_=[UUID(flow_run)])
        for run in client.read_flow_runs(flow_run_filter=FlowRunFilter(parent_flow_run_id=below, state=unfinished)):
            if run.deployment_id is None:
                end_runs(run.id, message, False)
        above = client.read_flow_run(UUID(flow_run))
        if above.state is None or not above.state.is_final():
            client.set_flow_run_state(above.id, Crashed(message=message), force=True)


def deliver_logs_and_events(seconds: float = 3) -> None:
    """Make Prefect send pending logs and events now; at the end of the interpreter the server may already be gone."""
    if "prefect" not in sys.modules:
        return
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    for worker in (APILogWorker, EventsWorker):
        worker.drain_all(timeout=seconds)
