"""A setting's entry in the results in brief, for those who gather the whole from the store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from dynconf_core.experiment.job import Handle, RunContext
from dynconf_core.experiment.plan import Plan
from dynconf_core.results.records import from_json, to_json
from dynconf_core.results.rows import completed, failed
from dynconf_core.results.types import AnySetting, FailedSetting, Keys, Resources
from dynconf_core.store.artefacts import Store


@dataclass(frozen=True, kw_only=True)
class Brief:
    """A finished setting without what its artefacts say.

    Attributes:
        stages: outcome by stage.
        artefacts: key in the store by stage.
        resources: time and memory; None where everything came from the store.
        tracking_error: why it was not logged to MLflow; None if it was.
    """

    stages: dict[str, str]
    artefacts: Keys
    resources: Resources | None = None
    tracking_error: str | None = None


def in_brief(row: AnySetting, tracking_error: str | None) -> dict[str, Any]:
    """An entry in brief, as JSON; that of a failed setting is whole."""
    if isinstance(row, FailedSetting):
        return {**to_json(row), "tracking_error": tracking_error}
    return to_json(Brief(stages=row.stages, artefacts=row.artefacts, resources=row.resources, tracking_error=tracking_error))


def in_full(content: Mapping[str, Any], plan: Plan, context: RunContext, source: str) -> AnySetting:
    """The entry that ``in_brief`` made brief; that of a failed setting if an artefact is not in the store.

    Raises:
        InputError: if ``content`` is something else; ``source``, who computed it, is named in the message.
    """
    if content.get("status") == "failed":
        return from_json(FailedSetting, content, source)
    brief, store = from_json(Brief, content, source), Store(context.artefacts)
    found = {name: store.listed(key) for name, key in brief.artefacts.items()}
    done = {name: Handle(name, one.key, one.digest, brief.stages[name]) for name, one in found.items() if one is not None}
    if len(done) < len(brief.stages):
        missing = ", ".join(name for name in brief.stages if name not in done)
        return failed(plan, done, RuntimeError(f"{source} finished it, but {store.root} does not hold {missing}; run again"))
    return replace(completed(plan, done, context), resources=brief.resources)
