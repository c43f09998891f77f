"""What MLflow shows of a result: a dozen headline metrics, two curves over the time steps, and everything else as tables.

A run with every figure as a metric takes half a megabyte of the server's database, and buries what people look for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, zip_longest
from typing import Any, Protocol

from dynconf_core.evaluation.energy import FullAndExit
from dynconf_core.evaluation.metrics import Baseline
from dynconf_core.evaluation.record import AnalysisRecord
from dynconf_core.evaluation.setting import SettingFigures
from dynconf_core.exit.judgement import ExitFigures
from dynconf_core.results.records import Scalar, flat, plain
from dynconf_core.results.types import SweepPoint

Row = Mapping[str, Scalar]
OTHERS = {
    *("name", "status", "error", "data", "network", "method", "levels", "bits", "scheme", "time_steps", "fixed_point"),
    *("paper", "stages", "artefacts", "resources", "split", "warnings", "by_class"),
    *("accuracy_at_t", "baselines", "comparison", "at_paper_time_steps", "rules", "reliability"),
}
"""Fields that are no figures, or have a table of their own."""
PLACES = 4
"""Decimal places of metrics, which MLflow shows with all their digits; the tables have more."""


@dataclass(frozen=True)
class Shown:
    """What a run shows.

    Attributes:
        headline: the metrics ``headline/NAME``; units stand in the names. None is left out.
        curves: the metrics ``curve/NAME``: a value for each time step, from 1, which is MLflow's step.
        tables: the files ``tables/NAME.json``, which MLflow shows as tables: rows of values by column.
    """

    headline: Mapping[str, float | None] = field(default_factory=dict)
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict)
    tables: Mapping[str, Sequence[Row]] = field(default_factory=dict)


class _Figures(Protocol):
    """What an evaluation of a setting and an analysis of traces have in common."""

    @property
    def ann_accuracy(self) -> float | None: ...
    @property
    def exit(self) -> ExitFigures: ...
    @property
    def baselines(self) -> tuple[Baseline, ...]: ...
    @property
    def spikes_per_inference(self) -> FullAndExit | None: ...
    @property
    def synaptic_operations_per_inference(self) -> FullAndExit | None: ...


def setting_shown(figures: SettingFigures, conversion: Mapping[str, Any] | None = None) -> Shown:
    """What the run of a setting or point shows.

    Args:
        figures: its figures.
        conversion: the content of its conversion report; None if there is none.
    """
    paper = figures.at_paper_time_steps
    tables = {
        "figures": _figures(figures),
        "over_time": _over_time(figures.accuracy_at_t, figures.exit.histogram),
        "baselines": spread_rows(figures.baselines),
        "reliability": spread_rows(
            [{"at": at, "ece": getattr(figures.ece, at), "nll": getattr(figures.nll, at)} for at in ("full", "exit")]
        ),
        "comparison": spread_rows(figures.comparison),
        "by_class": spread_rows(figures.by_class),
        "comparison_at_paper_time_steps": spread_rows(paper.comparison) if paper is not None else [],
        "conversion": _layers(conversion) if conversion is not None else [],
    }
    return _shown(setting_headline(figures), figures.accuracy_at_t, figures.exit.histogram, tables)


def setting_headline(figures: SettingFigures) -> dict[str, float | None]:
    """The headline of a setting or point."""
    return _headline(figures, figures.snn_accuracy, figures.oracles.first_correct.mean_steps, figures.ece.exit)


def analysis_shown(record: AnalysisRecord) -> Shown:
    """What the run of an analysis of traces shows."""
    accuracy, reliability = record.accuracy_at_t.test, record.reliability
    over_time = [
        {**row, "ece": ece, "nll": nll}
        for row, ece, nll in zip(
            _over_time(accuracy, record.exit.histogram), reliability.ece_at_t, reliability.nll_at_t, strict=True
        )
    ]
    diagrams = [
        {"at": at, "bin": number, "count": count, "confidence": confidence, "accuracy": share}
        for at, bins in reliability.diagrams.items()
        for number, (count, confidence, share) in enumerate(zip(bins.counts, bins.confidence, bins.accuracy, strict=True), 1)
    ]
    tables = {
        "figures": _figures(record),
        "over_time": over_time,
        "baselines": spread_rows(record.baselines),
        "rules": spread_rows(record.rules),
        "comparison": spread_rows(record.comparison),
        "by_class": spread_rows(record.by_class),
        "reliability": spread_rows(diagrams),
    }
    headline = _headline(record, accuracy[-1], record.oracles.test.first_correct.mean_steps, reliability.ece_at_exit)
    return _shown(headline, accuracy, record.exit.histogram, tables)


def point_shown(point: SweepPoint) -> Shown:
    """What the run of a point shows whose evaluation is not in the store any more."""
    return Shown(
        {
            "ann_accuracy_percent": percent(point.ann_accuracy),
            "snn_accuracy_percent": percent(point.snn_accuracy),
            "exit_accuracy_percent": percent(point.accuracy),
            "points_lost": percent(point.snn_accuracy - point.accuracy),
            "mean_steps": round(point.mean_steps, PLACES),
        }
    )


def _headline(figures: _Figures, snn_accuracy: float, oracle_steps: float, ece: float) -> dict[str, float | None]:
    found = figures.exit
    iso_accuracy = [one.latency_saving for one in figures.baselines if one.name == "iso_accuracy"]
    return {
        "ann_accuracy_percent": percent(figures.ann_accuracy),
        "snn_accuracy_percent": percent(snn_accuracy),
        "exit_accuracy_percent": percent(found.accuracy),
        "points_lost": percent(found.loss),
        "mean_steps": round(found.mean_steps, PLACES),
        "speedup": round(found.speedup, PLACES),
        "steps_saved_percent": percent(found.latency_saving),
        "steps_saved_iso_accuracy_percent": percent(iso_accuracy[0] if iso_accuracy else None),
        "oracle_mean_steps": round(oracle_steps, PLACES),
        "spikes_saved_percent": _saved(figures.spikes_per_inference),
        "synaptic_operations_saved_percent": _saved(figures.synaptic_operations_per_inference),
        "ece_at_exit_percent": percent(ece),
    }


def percent(share: float | None) -> float | None:
    """A share as a percentage; None for None."""
    return None if share is None else round(100 * share, PLACES)


def _saved(counts: FullAndExit | None) -> float | None:
    return percent(1 - counts.exit / counts.full) if counts is not None and counts.full else None


def _shown(
    headline: Mapping[str, float | None],
    accuracy: Sequence[float],
    histogram: Sequence[int],
    tables: Mapping[str, Sequence[Row]],
) -> Shown:
    curves = {
        "accuracy_percent": [round(100 * share, PLACES) for share in accuracy],
        "exited_percent": [round(100 * share, PLACES) for share in _exited(histogram)],
    }
    return Shown(headline, curves, {name: rows for name, rows in tables.items() if rows})


def _exited(histogram: Sequence[int]) -> list[float]:
    """The shares of samples that have exited up to each step."""
    samples = sum(histogram) or 1
    return [count / samples for count in accumulate(histogram)]


def _over_time(accuracy: Sequence[float], histogram: Sequence[int]) -> list[dict[str, Scalar]]:
    return [
        {"time_step": step, "accuracy": right, "exits": exits, "exited": exited}
        for step, (right, exits, exited) in enumerate(zip_longest(accuracy, histogram, _exited(histogram)), 1)
    ]


def _figures(figures: SettingFigures | AnalysisRecord) -> list[dict[str, Scalar]]:
    """Every single figure, under its flat name, with its interval if it has one."""
    given = {name: value for name, value in plain(figures).items() if name not in OTHERS}
    given["exit"] = {name: value for name, value in given["exit"].items() if name != "histogram"}
    given["exit"].get("rule", {}).pop("test", None)  # the same as of the exit
    values = dict(_spread(flat(given)))
    bounds = {f"{name}_{end}" for name in values for end in ("low", "high")}
    return [
        {"figure": name, "value": value, "low": values.get(f"{name}_low"), "high": values.get(f"{name}_high")}
        for name, value in values.items()
        if name not in bounds
    ]


def spread_rows(rows: Iterable[Any]) -> list[dict[str, Scalar]]:
    """Rows of plain values, all with the same columns."""
    found = [dict(_spread(flat(row))) for row in rows]
    columns = dict.fromkeys(name for row in found for name in row)
    return [{name: row.get(name) for name in columns} for row in found]


def _spread(values: Mapping[str, Scalar | list[Scalar]]) -> Iterator[tuple[str, Scalar]]:
    """An interval becomes two columns, ``_low`` and ``_high``; of other lists, each value becomes one, numbered from 1."""
    for name, value in values.items():
        if not isinstance(value, list):
            yield name, value
        elif name.endswith("_interval") and len(value) == 2:
            yield from zip((name.replace("_interval", end) for end in ("_low", "_high")), value, strict=True)
        else:
            yield from ((f"{name}_{number}", one) for number, one in enumerate(value, 1))


def _layers(conversion: Mapping[str, Any]) -> list[dict[str, Scalar]]:
    """A row for each layer of a conversion report."""
    return spread_rows(
        {
            "layer": layer["name"],
            **{name: value for name, value in layer.items() if name not in ("name", "error")},
            **{f"error_at_{mark}": error for mark, error in zip(conversion["marks"], layer["error"], strict=True)},
        }
        for layer in conversion["layers"]
    )
