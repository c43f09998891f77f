"""Charts of a sweep: its front, and the values of its points side by side."""

from __future__ import annotations

import altair as alt

from dynconf_core.figures.canvas import BLUE, GREY, INK
from dynconf_core.report.theme import MEASURES, Chart, table, tooltip, value


def pareto() -> Chart:
    """The points of a sweep on the test split; the front was chosen on the calibration split."""
    x = alt.X(
        "step:Q",
        title="mean time steps (test)",
        scale=alt.Scale(zero=False, nice=False, domainMin=value("left"), domainMax=value("right")),
    )
    scale = alt.Scale(zero=False, nice=False, domainMin=value("low"), domainMax=value("high"))
    y = alt.Y("accuracy:Q", title="accuracy (test, %)", scale=scale)
    tip = tooltip(
        ("setting", "setting", ""),
        ("values", "values", ""),
        ("step", "mean time steps", ".2f"),
        ("accuracy", "accuracy (%)", ".2f"),
        ("calibration_step", "steps on calibration", ".2f"),
        ("calibration", "accuracy on calibration (%)", ".2f"),
    )
    colour = alt.Color("setting:N", sort=None, scale=alt.Scale(range=[*MEASURES, INK, GREY]))
    line = table("front").mark_line(strokeWidth=1.5, strokeDash=[5, 3]).encode(x, y, colour, order="step:Q")
    front = (
        table("front")
        .mark_point(filled=True, size=130, opacity=1, stroke="white", strokeWidth=1.5)
        .encode(x, y, colour, tooltip=tip)
    )
    rest = table("others").mark_point(size=60, opacity=0.9, strokeWidth=1.5).encode(x, y, colour, tooltip=tip)
    return alt.layer(line, rest, front).properties(height=330)


def parallel() -> Chart:
    """The values of each point of a sweep and what they lead to, a line a point."""
    x = alt.X(
        "axis:N",
        title=None,
        sort=None,
        axis=alt.Axis(labelAngle=0, grid=True, labelPadding=32, domain=False, ticks=False),
        scale=alt.Scale(padding=0.25),
    )
    y = alt.Y("position:Q", axis=None, scale=alt.Scale(domain=[0, 1], nice=False))
    names = ["on the front", "not on the front"]
    colour = alt.Color("on:N", scale=alt.Scale(domain=names, range=[BLUE, "#C3C8CF"]))
    tip = tooltip(("setting", "setting", ""), ("values", "values", ""), ("axis", "", ""), ("shown", "value", ""))
    lines = table("lines").mark_line(strokeWidth=1.8, opacity=0.75).encode(x, y, colour, detail="point:N", order="place:Q")
    points = table("lines").mark_point(filled=True, size=40, opacity=1).encode(x, y, colour, tooltip=tip)
    ends = table("ends").mark_text(fontSize=10.5, color=GREY).encode(x, y, text="text:N", yOffset=alt.value(0))
    return alt.layer(lines, points, ends).properties(height=300)
