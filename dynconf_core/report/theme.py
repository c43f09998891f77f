"""What all charts share: fonts and colours, the tables and values that a figure brings along, axes and tooltips."""

from __future__ import annotations

from typing import Any

import altair as alt

from dynconf_core.figures.canvas import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, SKY, VERMILLION

LINE = "#E3E6EA"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
MEASURES = [BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY]
"""Colours of confidence measures, or of settings, in their order."""
DASHES = [[1, 0], [6, 2], [4, 2, 1, 2], [2, 2], [8, 2, 1, 2, 1, 2], [3, 3]]
CONFIG: dict[str, Any] = {
    "font": FONT,
    "background": "white",
    "view": {"stroke": None},
    "axis": {
        "domainColor": "#9AA0A8",
        "gridColor": LINE,
        "labelColor": INK,
        "labelFontSize": 11,
        "labelLimit": 170,
        "tickColor": "#9AA0A8",
        "titleColor": GREY,
        "titleFontSize": 11.5,
        "titleFontWeight": 500,
        "titlePadding": 8,
    },
    "axisX": {"grid": False},
    "legend": {
        "columns": 3,
        "labelColor": INK,
        "labelFontSize": 11,
        "labelLimit": 240,
        "orient": "bottom",
        "symbolStrokeWidth": 2.5,
        "title": None,
    },
    "title": {"anchor": "start", "color": INK, "fontSize": 14, "fontWeight": 600, "subtitleColor": GREY, "offset": 12},
}
Chart = Any
"""One of Altair's charts; their types differ with what they are made of."""


def table(table: str) -> Chart:
    return alt.Chart(alt.NamedData(name=table))


def value(name: str) -> Any:
    """A number that the figure brings along."""
    return alt.ExprRef(expr=name)


def steps_axis(title: str = "mean time steps", least: float = 0) -> Any:
    scale = alt.Scale(domainMin=least, domainMax=value("time_steps"), nice=False, zero=False)
    return alt.X("step:Q", title=title, scale=scale, axis=alt.Axis(tickMinStep=1))


def tooltip(*fields: tuple[str, str, str]) -> list[Any]:
    """A tooltip: field, title and format of each line; a format of "" is for text."""
    return [
        alt.Tooltip(f"{name}:Q", title=title, format=form) if form else alt.Tooltip(f"{name}:N", title=title)
        for name, title, form in fields
    ]
