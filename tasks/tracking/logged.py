"""What MLflow holds of a setting: what it shows of its figures, its plan as parameters, and the files of its evaluation."""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dynconf_core.evaluation.setting import SettingFigures
from dynconf_core.experiment.plan import Plan
from dynconf_core.results.records import flat
from dynconf_core.results.types import AnyPoint, AnySetting, FailedPoint, FailedSetting, SettingResult, SweepPoint
from dynconf_core.schemes.field import Value
from dynconf_core.store.artefacts import Artefact, Store
from dynconf_tasks.tracking.shown import Shown, point_shown, setting_shown

FILES = ("accuracy_against_latency.png", "exit_histogram.png", "robustness.png", "evaluation.json", "rule.json")
"""The files of an evaluation that are logged."""
REPORT = "report.json"
"""The file of a conversion that becomes a table."""
Params = Mapping[str, object]
"""Parameters by name, logged as text unless None."""


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
    """

    setting: str
    digest: str
    shown: Shown
    params: Params
    files: tuple[Path, ...] = ()
    error: str | None = None
    key: str = ""
    point: Mapping[str, Value] | None = None

    @property
    def name(self) -> str:
        """The name of its run."""
        values = " ".join(f"{name}={value}" for name, value in (self.point or {}).items())
        return f"{self.setting} {values}".strip()


def child_of(
    row: AnySetting | AnyPoint,
    evaluation: Artefact | None,
    params: Params,
    point: Mapping[str, Value] | None = None,
    figures: SettingFigures | None = None,
    report: Path | None = None,
) -> Child:
    """What is logged of a row of the results.

    Args:
        row: the row.
        evaluation: the artefact of its evaluation; None if there is none.
        params: the parameters.
        point: the values of the swept fields; None below a reproduction.
        figures: its figures; by default those of the row.
        report: the report of its conversion, a file; None if there is none.
    """
    error = row.error if isinstance(row, FailedSetting | FailedPoint) else None
    key = row.artefacts.get("evaluate", "")
    if error is not None:
        digest = f"failed {hashlib.sha256(error.encode()).hexdigest()}"
    else:
        digest = evaluation.digest if evaluation is not None else f"key {key}"
    return Child(
        setting=row.setting if isinstance(row, SweepPoint | FailedPoint) else row.name,
        digest=digest,
        shown=_shown(row, figures, report),
        params=params,
        files=tuple(evaluation.file(name) for name in FILES) if evaluation is not None else (),
        error=error,
        key=key,
        point=point,
    )


def report_of(row: AnySetting | AnyPoint, store: Store) -> Path | None:
    """The report of a row's conversion, as far as it is in the store."""
    with suppress(ValueError):  # not a key
        artefact = store.get(row.artefacts["convert"]) if "convert" in row.artefacts else None
        return artefact.file(REPORT) if artefact is not None and REPORT in artefact.manifest["files"] else None
    return None


def setting_params(plan: Plan) -> Params:
    """The parameters of a setting's run: the plan's values under flat names."""
    return flat(plan)


def _shown(row: AnySetting | AnyPoint, figures: SettingFigures | None, report: Path | None) -> Shown:
    """What the run of a row shows: nothing if it failed."""
    if isinstance(row, FailedSetting | FailedPoint):
        return Shown()
    found = row if isinstance(row, SettingResult) else figures
    if found is None:
        return point_shown(row) if isinstance(row, SweepPoint) else Shown()
    return setting_shown(found, json.loads(report.read_text(encoding="utf-8")) if report is not None else None)
