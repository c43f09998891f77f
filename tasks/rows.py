"""A setting's entry in the results."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from dynconf_core.experiment.job import Handle
from dynconf_core.experiment.plan import Plan
from dynconf_core.experiment.stages import STAGES

NAMES = tuple(stage.name for stage in STAGES)


def completed_row(plan: Plan, done: Mapping[str, Handle]) -> dict[str, Any]:
    """The entry of a setting whose stages are all done: what the plan says, and what the evaluation measured."""
    figures = json.loads(done["evaluate"].file("evaluation.json").read_text())
    samples = figures.pop("samples")
    return {
        "name": plan.setting,
        "status": "ok",
        "error": None,
        "data": {
            "name": plan.data.name,
            "stands_in_for": plan.data.stands_in_for,
            "train": plan.data.train,
            **samples,
        },
        "network": {
            "architecture": plan.architecture,
            "width": plan.width,
            "parameters": _fact(done["train"], "parameters"),
        },
        "method": plan.method,
        **plan.scheme_fields(),
        "time_steps": plan.time_steps,
        "fixed_point": plan.fixed_point,
        "conversion": {name: _fact(done["convert"], name) for name in ("agreement", "worst_layer")},
        **figures,
        "paper": {"rows": [asdict(plan.published)]} if plan.published else None,
        "stages": {name: done[name].outcome for name in NAMES},
        "artefacts": {name: done[name].key for name in NAMES},
    }


def failed_row(plan: Plan, done: Mapping[str, Handle], error: BaseException) -> dict[str, Any]:
    """The entry of a setting of which a stage raised ``error``."""
    outcomes = {name: done[name].outcome if name in done else "not_run" for name in NAMES}
    broken = next((name for name in NAMES if name not in done), "evaluate")
    outcomes[broken] = "failed"
    reason = " ".join(str(error).split()) or type(error).__name__
    return {"name": plan.setting, "status": "failed", "error": f"{broken}: {reason}", "stages": outcomes}


def _fact(handle: Handle, name: str) -> Any:
    """A fact that a stage recorded in its artefact's manifest."""
    manifest = json.loads((handle.folder / "manifest.json").read_text())
    return manifest["provenance"]["facts"].get(name)
