"""Saved views of an experiment: links that open MLflow's UI on chosen columns, or on charts that compare settings.

MLflow keeps a view as a tag of the experiment, ``mlflow.sharedViewState.KEY``: JSON of a name, a date, and the page's state as
JSON text; the address has ``viewStateShareKey=KEY``. What a state holds is not documented: it was read from the UI of the
version that `constraints.txt` pins, and a test opens the views in it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

TAG, SHARE_KEY = "mlflow.sharedViewState.", "viewStateShareKey"
KIND_TAG, KIND = "mlflow.experimentKind", "custom_model_development"
"""Without it, the UI guesses from the experiment's first runs, and may open on a page for language models."""
NOTE = "mlflow.note.content"
MADE = 1_767_225_600_000
"""The date of all views, in milliseconds since 1970, so that the tags of an experiment stay the same."""
PADDING, LETTER = 34, 7
"""Of a column's heading, in pixels."""
WORKFLOW = "workflowType=machine_learning"
"""In an address: without it, a browser that opens the UI for the first time shows the pages for language models."""


@dataclass(frozen=True)
class View:
    """A saved view.

    Attributes:
        key: in its address.
        name: as the UI lists it.
        state: of the page: filter, order, columns, charts.
        charts: whether it opens on charts.
    """

    key: str
    name: str
    state: Mapping[str, Any] = field(repr=False)
    charts: bool = False

    def tag(self) -> tuple[str, str]:
        """The tag of the experiment that holds it."""
        content = {"name": self.name, "createdAt": MADE, "updatedAt": MADE, "state": json.dumps(self.state)}
        return f"{TAG}{self.key}", json.dumps(content)

    def address(self, experiment: str) -> str:
        """The part of its address after the server's."""
        mode = "&compareRunsMode=CHART" if self.charts else ""
        return f"#/experiments/{experiment}/runs?{WORKFLOW}&{SHARE_KEY}={self.key}{mode}"


def _metric(name: str) -> str:
    return f"metrics.`headline/{name}`"


def _tag(name: str) -> str:
    return f"tags.`{name}`"


FIGURES = (
    "exit_accuracy_percent",
    "points_lost",
    "mean_steps",
    "steps_saved_percent",
    "steps_saved_iso_accuracy_percent",
    "snn_accuracy_percent",
    "ann_accuracy_percent",
    "oracle_mean_steps",
)
"""The headline metrics that tables show, in this order."""


def _table(columns: Sequence[str], condition: str = "", order: str = "attributes.start_time", ascending: bool = False) -> Any:
    """The state of a page with a table."""
    return {
        "searchFilter": condition,
        "orderByKey": order,
        "orderByAsc": ascending,
        "selectedColumns": list(columns),
        "columnOrder": list(columns),
        "columnWidths": {name: PADDING + LETTER * len(name.partition("`")[2]) for name in columns},
    }


def _charts(condition: str, cards: Sequence[Mapping[str, Any]]) -> Any:
    """The state of a page with charts; the sections that MLflow makes itself are closed below them."""
    flags = ("isReordered", "deleted", "isGenerated")
    names = {"chosen": "Settings compared", "headline": "headline", "curve": "curve"}
    return {
        **_table((), condition, _tag("setting"), True),
        "runsHiddenMode": "FIRST_20_RUNS",
        "isAccordionReordered": True,
        "compareRunSections": [
            {
                "uuid": key,
                "name": name,
                "display": key == "chosen",
                **dict.fromkeys(flags, False),
            }
            for key, name in names.items()
        ],
        "compareRunCharts": [
            {
                "uuid": f"chosen-{number}",
                "metricSectionId": "chosen",
                "deleted": False,
                "isGenerated": False,
                "runsCountToCompare": 20,
                **card,
            }
            for number, card in enumerate(cards, 1)
        ],
    }


def _bars(name: str, title: str) -> dict[str, object]:
    return {"type": "BAR", "metricKey": f"headline/{name}", "displayName": title}


def _line(name: str, title: str) -> dict[str, object]:
    metric = f"curve/{name}"
    return {
        "type": "LINE",
        "metricKey": metric,
        "selectedMetricKeys": [metric],
        "displayName": title,
        "lineSmoothness": 0,
        "scaleType": "linear",
        "xAxisScaleType": "linear",
        "xAxisKey": "step",
        "selectedXAxisMetricKey": "",
        "useGlobalXaxisKey": True,
        "useGlobalLineSmoothing": True,
        "yAxisKey": "metric",
        "yAxisExpressions": [],
        "ignoreOutliers": False,
        "range": {},
    }


def _scatter(across: str, up: str) -> dict[str, object]:
    axes = {"xaxis": across, "yaxis": up}
    return {"type": "SCATTER", **{axis: {"key": f"headline/{name}", "type": "METRIC"} for axis, name in axes.items()}}


_COMPARED = (
    _scatter("mean_steps", "exit_accuracy_percent"),
    _bars("steps_saved_percent", "Steps saved against T, %"),
    _bars("points_lost", "Accuracy lost by the exit, points (negative: gained)"),
    _line("accuracy_percent", "Accuracy without exit at each time step, %"),
    _line("exited_percent", "Images that have exited by each time step, %"),
    _bars("steps_saved_iso_accuracy_percent", "Steps saved against the iso-accuracy baseline, %"),
)
_APART = (_tag("seed"), "params.`time_steps`")
"""What tells runs of a setting apart: these columns come first."""
SETTINGS = View(
    "settings",
    "Settings",
    _table(
        [*_APART, *map(_metric, FIGURES), *map(_tag, ("dataset", "network", "scheme")), "params.`seconds.total`"],
        "tags.kind = 'setting'",
        _tag("setting"),
        True,
    ),
)
RUNS = View(
    "runs",
    "Reproductions and sweeps",
    _table([*_APART, *map(_metric, FIGURES), _tag("kind"), *map(_metric, ("points", "failed_points"))]),
)
POINTS = View(
    "points",
    "Points of sweeps",
    # in the order of time, MLflow would show only their parents, closed
    _table(
        [*_APART, *map(_metric, FIGURES), _tag("setting"), _tag("point")], "tags.kind = 'point'", _metric("mean_steps"), True
    ),
)
COMPARE = View("compare", "Settings compared", _charts("tags.kind = 'setting'", _COMPARED), charts=True)
ANALYSES = View("analyses", "Analyses", _table([*map(_metric, FIGURES), _tag("traces"), _tag("seed")]))
OF_PROFILES, OF_ANALYSES = (RUNS, SETTINGS, COMPARE, POINTS), (ANALYSES,)
"""The views of the experiments of profiles, and of that of analyses; the first is the one to start with."""


def experiment_tags(views: Sequence[View], experiment: str) -> dict[str, str]:
    """The tags of an experiment: its views, and a description that leads to them."""
    links = " · ".join(f"[{view.name}]({view.address(experiment)})" for view in views)
    return {KIND_TAG: KIND, NOTE: f"Views: {links}", **dict(view.tag() for view in views)}
