"""What MLflow holds of a whole reproduction or sweep: means or counts, tables, a picture, a description, and its files."""

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from dynconf_core.figures.svg import save_svg
from dynconf_core.figures.sweep import pareto_fronts
from dynconf_core.results.files import REPORT, RESULTS
from dynconf_core.results.records import Scalar, json_text, to_json
from dynconf_core.results.types import AnySetting, FailedPoint, OverSeeds, RunResult, SettingResult, SweepPoint, SweepResult
from dynconf_tasks.tracking.descriptions import run_description, sweep_description
from dynconf_tasks.tracking.shown import PLACES, Row, Shown, percent, setting_headline, spread_rows

PICTURE, KINDS = "pareto_front", ("png", "svg")


@dataclass(frozen=True)
class ParentContent:
    """What the run of a whole reproduction or sweep holds.

    Attributes:
        shown: headline and tables.
        description: Markdown.
        tags: what people filter by.
    """

    shown: Shown
    description: str
    tags: Mapping[str, str]


def parent_content(result: RunResult | SweepResult, seeds: OverSeeds | None = None) -> ParentContent:
    """What the run of a reproduction or sweep holds; ``seeds``: its figures over several seeds, if there are several."""
    if isinstance(result, SweepResult):
        return _of_sweep(result)
    rows = result.finished
    tables: dict[str, Sequence[Row]] = {
        "settings": [_setting(row) for row in result.settings],
        "over_seeds": spread_rows(seeds.settings) if seeds is not None else [],
    }
    shown = Shown(_means(rows), {}, {name: found for name, found in tables.items() if found})
    tags = {
        "dataset": _named(row.data.name for row in rows),
        "network": _named(row.network.architecture for row in rows),
        "scheme": _named(row.method for row in rows),
    }
    return ParentContent(shown, run_description(result, seeds), {name: text for name, text in tags.items() if text})


@contextmanager
def parent_files(result: RunResult | SweepResult, folder: Path) -> Iterator[list[Path]]:
    """The files of its run, for the time of the block: results.json, the report in ``folder``, and a sweep's picture."""
    with TemporaryDirectory() as made:
        path = Path(made) / RESULTS
        path.write_text(json_text(to_json(result)), encoding="utf-8")
        found = [path, *(report for report in [folder / REPORT] if report.is_file())]
        if isinstance(result, SweepResult) and result.finished:
            picture = pareto_fronts(result.finished, f"Sweep {result.run}", f"profile {result.profile}, seed {result.seed}")
            for kind in KINDS:
                found.append(Path(made) / f"{PICTURE}.{kind}")
                if kind == "svg":
                    save_svg(picture, found[-1])
                else:
                    picture.savefig(found[-1], metadata={"Software": None})
        yield found


def _of_sweep(result: SweepResult) -> ParentContent:
    finished, front = result.finished, result.front
    least = min((point.mean_steps for point in front), default=None)
    headline = {
        "points": float(len(result.points)),
        "failed_points": float(result.failed),
        "front_points": float(len(front)),
        "front_least_mean_steps": None if least is None else round(least, PLACES),
        "front_most_exit_accuracy_percent": percent(max((point.accuracy for point in front), default=None)),
    }
    tables = {"points": _points(result.points), "front": _points(front)}
    tags = {"setting": _named(point.setting for point in finished)}
    return ParentContent(
        Shown(headline, {}, {name: found for name, found in tables.items() if found}),
        sweep_description(result),
        {name: text for name, text in tags.items() if text},
    )


def _means(rows: Sequence[SettingResult]) -> dict[str, float | None]:
    """The headline of the settings as means over those that have the figure."""
    headlines = [setting_headline(row) for row in rows]
    found: dict[str, float | None] = {}
    for name in headlines[0] if headlines else ():
        values = [value for one in headlines if (value := one[name]) is not None]
        found[name] = round(statistics.fmean(values), PLACES) if values else None
    return found


def _setting(row: AnySetting) -> Row:
    """The row of a setting in the table of a reproduction, with the same columns for all."""
    ok = isinstance(row, SettingResult)
    figures = setting_headline(row) if isinstance(row, SettingResult) else {}
    names = ("ann_accuracy_percent", "snn_accuracy_percent", "exit_accuracy_percent", "points_lost", "mean_steps")
    savings = ("steps_saved_percent", "steps_saved_iso_accuracy_percent", "oracle_mean_steps")
    found: dict[str, Scalar] = {
        "setting": row.name,
        "status": row.status,
        "time_steps": row.time_steps if isinstance(row, SettingResult) else None,
        **{name: figures.get(name) for name in (*names, *savings)},
        "rule": row.exit.rule.measure if isinstance(row, SettingResult) else None,
        "error": None if ok else row.error,
    }
    return found


def _points(points: Sequence[SweepPoint | FailedPoint]) -> list[Row]:
    """Rows of points, with the same columns for all."""
    swept = dict.fromkeys(name for point in points for name in point.values)
    return [
        {
            "setting": point.setting,
            **{name: point.values.get(name) for name in swept},
            **{name: getattr(point, name, None) for name in ("on_front", "calibration_accuracy", "calibration_mean_steps")},
            **{name: getattr(point, name, None) for name in ("accuracy", "mean_steps", "snn_accuracy", "ann_accuracy")},
            "error": point.error,
        }
        for point in points
    ]


def _named(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(names))
