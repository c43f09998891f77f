"""A setting's entry in the results, made from its plan and its finished stages."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from dynconf_core.evaluation.setting import EVALUATION, SettingEvaluation, SettingFigures
from dynconf_core.exit.by_class import in_brief
from dynconf_core.experiment.job import Handle, RunContext
from dynconf_core.experiment.plan import Plan
from dynconf_core.experiment.stages import stages_of
from dynconf_core.results.records import read
from dynconf_core.results.types import ConversionFacts, DataFacts, FailedSetting, NetworkFacts, PaperRows, SettingResult
from dynconf_core.schemes.field import Value
from dynconf_core.store.manifest import MANIFEST
from dynconf_core.strict_json import read_json


def completed(plan: Plan, done: Mapping[str, Handle], context: RunContext) -> SettingResult:
    """The entry of a setting whose stages have all finished."""
    evaluation = read(SettingEvaluation, context.file(done["evaluate"], EVALUATION))
    figures = {field.name: getattr(evaluation, field.name) for field in fields(SettingFigures)}
    figures["by_class"] = in_brief(evaluation.by_class)
    numbers, names = plan.scheme_fields(), _names(plan)
    samples, conversion = evaluation.samples, _facts(context.folder(done["convert"]))
    return SettingResult(
        **figures,
        name=plan.setting,
        error=None,
        data=DataFacts(plan.data.name, plan.data.stands_in_for, plan.data.train, samples.calibration, samples.test),
        network=NetworkFacts(plan.architecture, plan.width, _facts(context.folder(done["train"])).get("parameters")),
        method=plan.method,
        levels=_whole(numbers.get("levels")),
        bits=_whole(numbers.get("bits")),
        scheme={name: value for name, value in numbers.items() if name not in ("levels", "bits")} or None,
        time_steps=plan.time_steps,
        fixed_point=plan.fixed_point,
        conversion=ConversionFacts(conversion.get("agreement"), conversion.get("worst_layer")),
        fine_tuning=plan.tuned if plan.tuned else None,
        paper=PaperRows((plan.published,)) if plan.published and not plan.tuned else None,
        stages={name: done[name].outcome for name in names},
        artefacts={name: done[name].key for name in names},
    )


def failed(plan: Plan, done: Mapping[str, Handle], error: BaseException) -> FailedSetting:
    """The entry of a setting in which a stage raised ``error``."""
    names = _names(plan)
    outcomes = {name: done[name].outcome if name in done else "not_run" for name in names}
    broken = next((name for name in names if name not in done), "evaluate")
    outcomes[broken] = "failed"
    reason = " ".join(str(error).split()) or type(error).__name__
    return FailedSetting(
        name=plan.setting, error=f"{broken}: {reason}", stages=outcomes, artefacts={name: one.key for name, one in done.items()}
    )


def _names(plan: Plan) -> tuple[str, ...]:
    return tuple(stage.name for stage in stages_of(plan))


def _whole(value: Value | None) -> int | None:
    return None if value is None else int(value)


def _facts(folder: Path) -> dict[str, Any]:
    """The facts that a stage recorded in its artefact's manifest."""
    facts: dict[str, Any] = read_json(folder / MANIFEST)["provenance"]["facts"]
    return facts
