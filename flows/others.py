"""The other participants of a deployment's run: runs of the same deployment that join what it began."""

from __future__ import annotations

import logging
from contextlib import suppress
from types import TracebackType
from typing import Any
from uuid import UUID

from dynconf_core.errors import InputError
from dynconf_tasks import interruption

_log = logging.getLogger(__name__)


class Others:
    """Starts ``participants - 1`` runs of the deployment to which the current flow run belongs; to be used in a ``with`` block.

    They take part as soon as workers of the pool are free. Those that have not begun at the end of the block have nothing left
    to do, and are cancelled; all of them are if the run was interrupted.

    Raises:
        InputError: if the current flow run belongs to no deployment.
    """

    def __init__(self, participants: int) -> None:
        self.count = participants - 1
        self._runs: list[UUID] = []

    def __enter__(self) -> Others:
        if self.count > 0:
            from prefect.context import FlowRunContext
            from prefect.deployments import run_deployment

            context = FlowRunContext.get()
            run = context.flow_run if context is not None else None
            if run is None or run.deployment_id is None:
                raise InputError(
                    f"participants={self.count + 1}: only a deployment can start others; here, take part with --join in other "
                    "shells, or give --workers."
                )
            parameters = {**run.parameters, "participants": 1, "join": True}
            for number in range(self.count):
                name = f"{run.name}, participant {number + 2}"
                started = run_deployment(
                    run.deployment_id, flow_run_name=name, parameters=parameters, timeout=0, as_subflow=True
                )
                self._runs.append(started.id)  # type: ignore[union-attr]  # without an event loop it is no coroutine
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for run in self._runs:
            try:
                _end(run, interruption.interrupted() or error is not None)
            except Exception as fault:  # of whatever kind Prefect's client raises
                _log.warning("The participant %s could not be cancelled: %s", run, fault)


def _end(identifier: UUID, interrupted: bool) -> None:
    """Cancel a run that has not begun, or is to stop."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.objects import State, StateType
    from prefect.states import Cancelled

    with get_client(sync_client=True) as client, suppress(LookupError):
        state = client.read_flow_run(identifier).state
        if state is None or state.is_final():
            return
        if state.type in (StateType.SCHEDULED, StateType.PENDING):
            why = "The run that asked for it was stopped." if interrupted else "Nothing is left to do."
            ended: State[Any] = Cancelled(message=why)
            client.set_flow_run_state(identifier, ended)
        elif interrupted:
            client.set_flow_run_state(identifier, State(type=StateType.CANCELLING))
