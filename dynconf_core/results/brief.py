"""A setting's entry in the results in brief, for those who gather the whole from the store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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


@dataclass(frozen=True)
class _Kept:
    outcome: str
    key: str
    folder: Any


def in_brief(row: AnySetting, tracking_error: str | None) -> dict[str, Any]:
    """An entry in brief, as JSON; that of a failed setting is whole."""
    if isinstance(row, FailedSetting):
        return {**to_json(row), "tracking_error": tracking_error}
    return to_json(Brief(stages=row.stages, artefacts=row.artefacts, resources=row.resources, tracking_error=tracking_error))


def in_full(content: Mapping[str, Any], plan: Plan, store: Store, source: str) -> AnySetting:
    """The entry that ``in_brief`` made brief; that of a failed setting if an artefact is not in the store.

    Raises:
        InputError: if ``content`` is something else; ``source`` is named in the message.
    """
    if content.get("status") == "failed":
        return from_json(FailedSetting, content, source)
    brief = from_json(Brief, content, source)
    found = {name: store.listed(key) for name, key in brief.artefacts.items()}
    kept = {name: _Kept(brief.stages[name], one.key, one.folder) for name, one in found.items() if one is not None}
    if len(kept) < len(brief.stages):
        missing = ", ".join(name for name in brief.stages if name not in kept)
        return failed(plan, kept, RuntimeError(f"not in the store {store.root}, where {source} left it: {missing}"))
    row = completed(plan, kept)
    return type(row)(**{**vars(row), "resources": brief.resources})
