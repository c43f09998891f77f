"""What MLflow holds of a setting or a point: figures, parameters, tags, description, data, times and files."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from dynconf_core.evaluation.setting import SettingEvaluation, SettingFigures
from dynconf_core.experiment.overrides import fitting
from dynconf_core.experiment.plan import Plan
from dynconf_core.report.sources import CONVERSION
from dynconf_core.results.markdown import short
from dynconf_core.results.records import plain
from dynconf_core.results.run_names import variant
from dynconf_core.results.types import AnyPoint, AnySetting, FailedPoint, FailedSetting, SettingResult, SweepPoint
from dynconf_core.schemes.field import Value
from dynconf_core.store.artefacts import Artefact, Store
from dynconf_tasks.tracking.datasets import Dataset, images_of
from dynconf_tasks.tracking.descriptions import (
    explain_command,
    failed_description,
    point_description,
    setting_description,
)
from dynconf_tasks.tracking.shown import Shown, point_shown, setting_shown
from dynconf_tasks.tracking.stage_times import StageTime, stage_times

FIGURES = ("accuracy_against_latency", "exit_histogram", "robustness")
FILES = (*(f"{name}.{kind}" for name in FIGURES for kind in ("png", "svg")), "evaluation.json", "rule.json")
"""The files of an evaluation that are logged."""
CHECKPOINT = "checkpoint "
"""How the names of given checkpoints begin among what identifies a reproduction."""
Params = Mapping[str, object]
"""Parameters by name, logged as text unless None."""


@dataclass(frozen=True)
class Origin:
    """Where a row of results comes from.

    Attributes:
        home: the home, whose store holds its artefacts.
        profile, seed: of its reproduction or sweep.
        identity: the overrides, and the digests of given checkpoints.
        plan: the setting's plan; None if the setting is not known any more.
        command: that ran it; None if unknown.
        point: the values of the swept fields; None below a reproduction.
    """

    home: Path
    profile: str
    seed: int
    identity: Mapping[str, Value] = field(default_factory=dict)
    plan: Plan | None = None
    command: str | None = None
    point: Mapping[str, Value] | None = None

    @property
    def store(self) -> Store:
        """The store of the home."""
        return Store(self.home / "artefacts")


@dataclass(frozen=True)
class Child:
    """What is logged below a reproduction or a sweep: one setting, or one point.

    Attributes:
        setting: the setting's name.
        digest: the digest of the evaluation, or of the error; a child with another digest is replaced.
        shown: headline, curves and tables.
        params: parameters.
        files: copied into the run.
        error: why the setting failed; None if it did not.
        key: the key of the evaluation in the store; "" if there is none.
        point: the values of the swept fields; None below a reproduction.
        variant: what differs from seed 0 without overrides, in words; "" for a point.
        tags: what people filter by.
        description: Markdown.
        datasets: the data that it used.
        times: when its stages were made.
    """

    setting: str
    digest: str
    shown: Shown
    params: Params
    files: tuple[Path, ...] = ()
    error: str | None = None
    key: str = ""
    point: Mapping[str, Value] | None = None
    variant: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    description: str = ""
    datasets: tuple[Dataset, ...] = ()
    times: tuple[StageTime, ...] = ()

    @property
    def place(self) -> str:
        """What it is called below its parent; the values stand first, since MLflow's tables cut long names."""
        values = " ".join(f"{name}={short(value)}" for name, value in (self.point or {}).items())
        return f"{values} {self.setting}".strip()

    @property
    def name(self) -> str:
        """The name of its run, by which people tell it from those of other seeds and overrides; nothing is found by it."""
        return f"{self.place}, {self.variant}" if self.variant else self.place

    @property
    def start(self) -> int | None:
        """When its first stage began, in milliseconds since 1970; None if that is unknown."""
        return min((one.start for one in self.times), default=None)

    @property
    def end(self) -> int | None:
        """When its last stage ended, in milliseconds since 1970; None if that is unknown."""
        return max((one.end for one in self.times), default=None)


def child_of(
    row: AnySetting | AnyPoint, origin: Origin, evaluation: Artefact | None = None, figures: SettingFigures | None = None
) -> Child:
    """What is logged of a row of the results.

    Args:
        row: the row.
        origin: where it comes from.
        evaluation: the artefact of its evaluation; None if there is none.
        figures: its figures; by default those of the row.
    """
    failed = isinstance(row, FailedSetting | FailedPoint)
    setting = row.setting if isinstance(row, SweepPoint | FailedPoint) else row.name
    key, store, plan = row.artefacts.get("evaluate", ""), origin.store, origin.plan
    times = () if failed else stage_times(row.artefacts, store)
    known = row if isinstance(row, SettingResult) else figures
    if isinstance(row, FailedSetting | FailedPoint):
        digest = f"failed {hashlib.sha256(row.error.encode()).hexdigest()}"
        shown, description = Shown(), failed_description(row.error, plan, origin.command)
    else:
        digest = evaluation.digest if evaluation is not None else f"key {key}"
        shown, description = _shown(row, known, store), _description(row, known, origin, times)
    return Child(
        setting=setting,
        digest=digest,
        shown=shown,
        params={**_params(row, known, origin), **_seconds(times)},
        files=tuple(evaluation.file(name) for name in FILES) if evaluation is not None and not failed else (),
        error=row.error if isinstance(row, FailedSetting | FailedPoint) else None,
        key=key,
        point=origin.point,
        variant=variant(origin.seed, _overrides(origin)) if origin.point is None else "",
        tags=_tags(row, setting, origin),
        description=description,
        datasets=_datasets(row, known, plan, store),
        times=times,
    )


def _overrides(origin: Origin) -> dict[str, Value]:
    """The overrides of the fields that the setting has; all of them where its plan is not known."""
    overrides = {name: value for name, value in origin.identity.items() if not name.startswith(CHECKPOINT)}
    return overrides if origin.plan is None else fitting(origin.plan, overrides)


def _shown(row: SettingResult | SweepPoint, figures: SettingFigures | None, store: Store) -> Shown:
    """What the run of a row shows."""
    if figures is None:
        return point_shown(row) if isinstance(row, SweepPoint) else Shown()
    found = _artefact(row, "convert", store)
    report = found.file(CONVERSION) if found is not None and CONVERSION in found.manifest["files"] else None
    return setting_shown(figures, json.loads(report.read_text(encoding="utf-8")) if report is not None else None)


def _description(
    row: SettingResult | SweepPoint, figures: SettingFigures | None, origin: Origin, times: tuple[StageTime, ...]
) -> str:
    plan = origin.plan
    if figures is None:
        return point_description(row, plan) if isinstance(row, SweepPoint) else ""
    explained = None
    if plan is not None and f"{CHECKPOINT}{plan.setting}" not in origin.identity:
        explained = explain_command(plan, origin.identity, origin.home)
    return setting_description(figures, plan, len(figures.accuracy_at_t), times, origin.command, explained)


def _params(row: AnySetting | AnyPoint, figures: SettingFigures | None, origin: Origin) -> dict[str, object]:
    """The plan's values, grouped by prefix; where the plan is not known, those that the row has; and the chosen rule."""
    if origin.plan is not None:
        found = plan_params(origin.plan)
    else:
        facts = plain(row)
        found = {
            **_overrides(origin),
            "setting": row.setting if isinstance(row, SweepPoint | FailedPoint) else row.name,
            "profile": origin.profile,
            "seed": origin.seed,
            **_some(facts, "time_steps", "fixed_point"),
            **_grouped("data", _some(facts.get("data", {}), "name", "stands_in_for", "train", "calibration")),
            **_grouped("network", _some(facts.get("network", {}), "architecture", "width")),
            **_grouped("scheme", {**_some(facts, "method", "levels", "bits"), **(facts.get("scheme") or {})}),
        }
    if figures is not None:
        rule = figures.exit.rule
        found |= _grouped(
            "rule",
            {
                "measure": rule.measure,
                "readout": rule.readout or "plain",
                "smoothing": rule.smoothing.form,
                "alpha": f"{rule.smoothing.alpha:.6g}",
                "threshold": rule.threshold_shown,
            },
        )
    return found


def plan_params(plan: Plan) -> dict[str, object]:
    """The values of a plan under readable names."""
    data = {
        name: getattr(plan.data, name) for name in ("name", "stands_in_for", "resolution", "train", "calibration", "classes")
    }
    recipe = plan.recipe.as_dict()
    return {
        "setting": plan.setting,
        "profile": plan.profile,
        "seed": plan.seed,
        "time_steps": plan.time_steps,
        "fixed_point": plan.fixed_point,
        **_grouped("data", data),
        **_grouped("network", {"architecture": plan.architecture, "width": plan.width}),
        **_grouped("scheme", {"method": plan.method, **plan.scheme_fields()}),
        **_grouped("training", {**recipe, "augmentation": ", ".join(recipe["augmentation"]) or "none"}),
        **(_grouped("fine_tuning", plan.fine_tuning.as_dict(plan.recipe)) if plan.fine_tuning else {}),
        **(_grouped("fine_tuning", {**asdict(plan.given_tuned), "before": True}) if plan.given_tuned else {}),
        **_grouped("search", asdict(plan.search)),
    }


def _seconds(times: Sequence[StageTime]) -> dict[str, float]:
    """How long the stages took, whichever run made them; the duration of a run includes the time between them."""
    seconds = {one.stage: one.seconds for one in times}
    total = {"total": sum(seconds.values())} if seconds else {}
    return {f"seconds.{name}": round(value, 1) for name, value in (total | seconds).items()}


def _some(values: Mapping[str, object], *names: str) -> dict[str, object]:
    return {name: values.get(name) for name in names}


def _grouped(prefix: str, values: Mapping[str, object]) -> dict[str, object]:
    return {f"{prefix}.{name}": value for name, value in values.items()}


def _tags(row: AnySetting | AnyPoint, setting: str, origin: Origin) -> dict[str, str]:
    """What people filter by, as far as it is known."""
    plan = origin.plan
    found: dict[str, str | None] = {"setting": setting, "profile": origin.profile, "seed": str(origin.seed)}
    if plan is not None:
        found |= {"dataset": plan.data.name, "network": plan.architecture, "scheme": plan.method, "seed": str(plan.seed)}
    elif isinstance(row, SettingResult):
        found |= {"dataset": row.data.name, "network": row.network.architecture, "scheme": row.method}
    return {name: value for name, value in found.items() if value is not None}


def _datasets(
    row: AnySetting | AnyPoint, figures: SettingFigures | None, plan: Plan | None, store: Store
) -> tuple[Dataset, ...]:
    """The images that the row's stages used, as far as the store tells."""
    found = _artefact(row, "convert", store)
    config = found.manifest["parts"]["config"].get("data") if found is not None else None
    if plan is None or not isinstance(config, dict) or config.get("name") != plan.data.name:
        return ()
    test = row.data.test if isinstance(row, SettingResult) else None
    test = figures.samples.test if isinstance(figures, SettingEvaluation) else test
    return images_of(plan, str(config["digest"]), test)


def _artefact(row: AnySetting | AnyPoint, stage: str, store: Store) -> Artefact | None:
    """The artefact of a row's stage; None if there is none."""
    with suppress(ValueError):  # not a key
        return store.get(row.artefacts[stage]) if stage in row.artefacts else None
    return None
