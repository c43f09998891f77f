"""What MLflow holds of a setting: its figures as metrics, its plan as parameters, and the files of its evaluation."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dynconf_core.experiment.plan import Plan
from dynconf_core.results.records import Scalar, flat, plain
from dynconf_core.results.types import AnyPoint, AnySetting, FailedPoint, FailedSetting, SweepPoint
from dynconf_core.schemes.field import Value
from dynconf_core.store.artefacts import Artefact

FILES = ("accuracy_against_latency.png", "exit_histogram.png", "robustness.png", "evaluation.json", "rule.json")
"""The files of an evaluation that are logged."""
Figures = Mapping[str, Scalar | list[Scalar]]
"""Figures under flat names."""
Params = Mapping[str, object]
"""Parameters by name, logged as text unless None."""


@dataclass(frozen=True)
class Child:
    """What is logged below a reproduction or a sweep: one setting, or one point.

    Attributes:
        setting: the setting's name.
        digest: the digest of the evaluation, or of the error; a child with another digest is replaced.
        figures, params: metrics and parameters.
        files: copied into the run.
        error: why the setting failed; None if it did not.
        key: the key of the evaluation in the store; "" if there is none.
        point: the values of the swept fields; None below a reproduction.
    """

    setting: str
    digest: str
    figures: Figures
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
    figures: Figures | None = None,
) -> Child:
    """What is logged of a row of the results.

    Args:
        row: the row.
        evaluation: the artefact of its evaluation; None if there is none.
        params: the parameters.
        point: the values of the swept fields; None below a reproduction.
        figures: the metrics; by default those of the row.
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
        figures=setting_figures(row) if figures is None else figures,
        params=params,
        files=tuple(evaluation.file(name) for name in FILES) if evaluation is not None else (),
        error=error,
        key=key,
        point=point,
    )


def setting_params(plan: Plan) -> Params:
    """The parameters of a setting's run: the plan's values under flat names."""
    return flat(plan)


def setting_figures(row: AnySetting | AnyPoint) -> Figures:
    """The metrics of a row of the results: its figures under flat names; none if it failed."""
    if isinstance(row, FailedSetting | FailedPoint):
        return {}
    skipped = ("name", "setting", "values", "error", "paper", "stages", "artefacts", "resources")
    return flat({name: value for name, value in plain(row).items() if name not in skipped})


def metrics_of(figures: Figures) -> list[tuple[str, float, int]]:
    """The numbers in ``figures`` as (metric, value, step); values of a list, such as ``accuracy_at_t``, have steps from 1."""
    found = []
    for name, value in figures.items():
        if isinstance(value, list):
            found += [(name, float(one), step) for step, one in enumerate(value, 1) if isinstance(one, int | float)]
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found.append((name, float(value), 0))
    return found
