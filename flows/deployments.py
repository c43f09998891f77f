"""The deployments of the flows on a Prefect server, and the automations that look after their runs.

``prefect.yaml`` and ``automations.yaml`` beside this file describe them.
"""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dynconf_core.errors import InputError

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

FOLDER = Path(__file__).parent
HEARTBEAT = "prefect.flow-run.heartbeat"
SHORTEST_GRACE = 90
"""Seconds: three heartbeats of a deployed run. After fewer, runs that live would be taken for dead."""
PAUSE = 60
"""Seconds between a crash and the next start: a worker reports a crash twice, seconds apart, and must not hit the new start."""
_NOTHING: list[Any] = [None, []]
GRID_OR_STUDY: Mapping[str, Any] = {
    "if": {"properties": {"grid": {"not": {"enum": _NOTHING}}}, "required": ["grid"]},
    "then": {"properties": {"study": {"enum": _NOTHING}}},
    "else": {"properties": {"study": {"not": {"enum": _NOTHING}}}, "required": ["study"]},
}
"""What a deployment's schema has to say besides what Prefect derives from a flow's signature: one of ``grid`` and ``study``."""


def deploy(client: "SyncPrefectClient", pool: str | None = None) -> list[str]:
    """Create or update the deployments; returns their names, each ``flow/deployment``.

    Args:
        client: of the server.
        pool: the work pool for all of them; by default the one in ``prefect.yaml``.

    Raises:
        InputError: if the pool does not exist.
    """
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.schedules import CronSchedule
    from prefect.exceptions import ObjectNotFound

    described = _content("prefect.yaml")
    names = []
    for one in described["deployments"]:
        flow, work_pool = _flow(one["entrypoint"]), pool or one["work_pool"]["name"]
        try:
            client.read_work_pool(work_pool)
        except ObjectNotFound:
            raise InputError(
                f"work pool {work_pool!r} does not exist on the server: "
                f"create it with `prefect work-pool create {work_pool} --type process`, or name another with --pool."
            ) from None
        schedules = [
            DeploymentScheduleCreate(
                schedule=CronSchedule(cron=schedule["cron"], timezone=schedule["timezone"]),
                active=schedule["active"],
                parameters=schedule["parameters"],
                slug=schedule["slug"],
            )
            for schedule in one.get("schedules", ())
        ]
        client.create_deployment(
            flow_id=client.create_flow(flow),
            name=one["name"],
            entrypoint=one["entrypoint"],
            pull_steps=described["pull"],
            description=one["description"],
            tags=one["tags"],
            parameters=one["parameters"],
            parameter_openapi_schema=schema(flow),
            enforce_parameter_schema=one["enforce_parameter_schema"],
            schedules=schedules,
            work_pool_name=work_pool,
            job_variables=one["work_pool"]["job_variables"],
        )
        names.append(f"{flow.name}/{one['name']}")
    return names


def schema(flow: Any) -> dict[str, Any]:
    """The JSON schema of a flow's parameters, with what Prefect cannot derive."""
    found: dict[str, Any] = flow.parameters.model_dump_for_openapi()
    return {**found, **GRID_OR_STUDY} if {"grid", "study"} <= found["properties"].keys() else found


def automate(client: "SyncPrefectClient", grace: int, pause: int = PAUSE) -> list[str]:
    """Create or update the automations; returns their names.

    Args:
        client: of the server.
        grace: seconds without a heartbeat after which a run is taken for dead, at least ``SHORTEST_GRACE``.
        pause: seconds between a crash and the next start.
    """
    from prefect.events.schemas.automations import AutomationCore

    names = []
    for described in _content("automations.yaml")["automations"]:
        described["trigger"]["within"] = grace if HEARTBEAT in described["trigger"]["after"] else pause
        automation = AutomationCore.model_validate(described)
        existing = client.read_automations_by_name(automation.name)
        for old in existing[1:]:
            client.delete_automation(old.id)
        if existing:
            client.update_automation(existing[0].id, automation)
        else:
            client.create_automation(automation)
        names.append(automation.name)
    return names


def _content(name: str) -> dict[str, Any]:
    import yaml

    found: dict[str, Any] = yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))
    return found


def _flow(entrypoint: str) -> Any:
    module, _, name = entrypoint.rpartition(".")
    return getattr(import_module(module), name)
