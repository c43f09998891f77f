"""Charts of exits: accuracy against latency, steps saved, when images exit, and rules compared."""

from __future__ import annotations

from typing import Any

import altair as alt

from dynconf_core.figures.canvas import BLUE, INK, VERMILLION
from dynconf_core.report.palette import AGAINST, ANSWERS, CERTIFYING, DROPS, MARKED, PAPER, SERIES
from dynconf_core.report.theme import DASHES, MEASURES, Chart, steps_axis, table, tooltip, value


def _curves(colours: dict[str, str] | None, marked: dict[str, str] | None) -> Chart:
    """Accuracy against mean steps: lines, and marked points."""
    y = alt.Y(
        "accuracy:Q",
        title="accuracy (%)",
        scale=alt.Scale(domainMin=value("low"), domainMax=value("high"), nice=False, zero=False),
        axis=alt.Axis(tickCount=6),
    )
    known = (colours or {}) | (marked or {})
    scale = alt.Scale(domain=list(known), range=list(known.values())) if known else alt.Scale(range=MEASURES)
    colour = alt.Color("series:N", scale=scale, sort=None)
    tip = tooltip(("series", "series", ""), ("step", "mean time steps", ".2f"), ("accuracy", "accuracy (%)", ".2f"))
    near = alt.selection_point(nearest=True, on="pointerover", empty=False, clear="pointerout")
    dashes = alt.Scale(domain=list(colours), range=[[1, 0], [1, 0], [5, 3]]) if colours else alt.Scale(range=DASHES)
    dash = alt.StrokeDash("series:N", scale=dashes, sort=None, legend=None)
    lines = (
        table("lines")
        .mark_line(clip=True, strokeWidth=2, interpolate="linear")
        .encode(steps_axis(), y, colour, strokeDash=dash)
    )
    hover = (
        table("lines")
        .mark_point(clip=True, filled=True, size=60)
        .encode(steps_axis(), y, colour, opacity=alt.condition(near, alt.value(1), alt.value(0)), tooltip=tip)
        .add_params(near)
    )
    points = (
        table("points")
        .mark_point(filled=True, size=110, stroke="white", strokeWidth=1.5, opacity=1, clip=True)
        .encode(steps_axis(), y, colour, tooltip=tip)
    )
    return alt.layer(lines, hover, points).properties(height=250)


def latency() -> Chart:
    """Accuracy against latency of a rule, of fixed steps and of the oracle."""
    return _curves(SERIES, MARKED)


def latency_and_paper() -> Chart:
    """The same, with the paper's point."""
    return _curves(SERIES, MARKED | PAPER)


def fronts() -> Chart:
    """Accuracy against latency of several measures."""
    return _curves(None, None)


def savings() -> Chart:
    """Time steps saved by each setting, against T, against the iso-accuracy baseline, and by the oracle."""
    x = alt.X("saving:Q", title="time steps saved (%)", scale=alt.Scale(domainMax=100, domainMin=value("low")))
    y = alt.Y("setting:N", title=None, sort=None, axis=alt.Axis(domain=False, ticks=False, labelPadding=8))
    offset = alt.YOffset("against:N", sort=list(AGAINST), scale=alt.Scale(paddingInner=0.12))
    tip = tooltip(("setting", "setting", ""), ("against", "against", ""), ("saving", "saved (%)", ".1f"))
    colour = alt.Color("against:N", scale=alt.Scale(domain=list(AGAINST), range=list(AGAINST.values())))
    bars = table("bars").mark_bar(cornerRadiusEnd=2).encode(x, y, yOffset=offset, color=colour, tooltip=tip)
    text = (
        table("bars")
        .mark_text(align="left", baseline="middle", dx=4, fontSize=10, color=INK)
        .encode(x, y, yOffset=offset, text=alt.Text("saving:Q", format=".0f"))
    )
    return alt.layer(bars, text).properties(height=alt.Step(15))


def histogram() -> Chart:
    """How many images exit at each step, with the mean."""
    x = alt.X(
        "from:Q",
        title="exit at time step",
        scale=alt.Scale(domainMin=0.4, domainMax=value("end"), nice=False, zero=False),
        axis=alt.Axis(tickMinStep=1, values=alt.Undefined),
    )
    y = alt.Y("share:Q", title="share of the samples (%)", axis=alt.Axis(tickCount=5))
    tip = tooltip(
        ("step", "time step", ".0f"),
        ("count", "samples", ","),
        ("share", "share (%)", ".1f"),
        ("exited", "exited so far (%)", ".1f"),
    )
    bars = table("bars").mark_bar(color=BLUE).encode(x, y, x2="to:Q", y2=alt.datum(0), tooltip=tip)
    mean = table("mean").mark_rule(color=VERMILLION, strokeWidth=2, strokeDash=[5, 3]).encode(x=alt.X("step:Q"))
    text = (
        table("mean")
        .mark_text(color=VERMILLION, align="center", dy=-4, baseline="bottom", fontSize=11, fontWeight=600)
        .encode(x=alt.X("step:Q"), y=alt.value(0), text="text:N")
    )
    return alt.layer(bars, mean, text).properties(height=180)


def _rules(field: str, title: str, scale: Any) -> tuple[Any, Chart]:
    """Measures at each allowed drop: a point and its interval."""
    y = alt.Y("measure:N", title=None, sort=None, axis=alt.Axis(domain=False, ticks=False, labelPadding=8))
    offset = alt.YOffset("drop:N", sort=list(DROPS), scale=alt.Scale(paddingInner=0.2))
    colour = alt.Color(
        "drop:N", title="may lose", sort=list(DROPS), scale=alt.Scale(domain=list(DROPS), range=list(DROPS.values()))
    )
    tip = tooltip(
        ("measure", "measure", ""),
        ("drop", "may lose", ""),
        ("threshold", "threshold", ""),
        ("steps", "mean time steps", ".2f"),
        ("steps_range", "95 %", ""),
        ("lost", "points lost on test", ".2f"),
        ("lost_range", "95 %", ""),
        ("kept", "keeps to what it may lose", ""),
        ("accuracy", "accuracy (%)", ".2f"),
    )
    x = alt.X(f"{field}:Q", title=title, scale=scale)
    bars = (
        table("rules")
        .mark_rule(strokeWidth=2)
        .encode(x=alt.X(f"{field}_low:Q", title=title, scale=scale), x2=f"{field}_high:Q", y=y, yOffset=offset, color=colour)
    )
    shades = alt.Scale(domain=list(DROPS), range=list(DROPS.values()))
    hollow = {"test": "datum.kept !== 'yes'", "value": "white"}
    fill = alt.Fill("drop:N", scale=shades, legend=None, condition=hollow)
    points = (
        table("rules")
        .mark_point(filled=False, size=50, strokeWidth=1.5, opacity=1)
        .encode(x, y, yOffset=offset, color=colour, fill=fill, tooltip=tip)
    )
    return (y, offset), alt.layer(bars, points)


def rules_steps() -> Chart:
    """Mean steps of each measure at each allowed drop."""
    scale = alt.Scale(domainMin=0, domainMax=value("time_steps"), nice=False)
    return _rules("steps", "mean time steps (test, 95 % interval)", scale)[1].properties(height=alt.Step(11))


def rules_lost() -> Chart:
    """Points lost by each measure at each allowed drop, beside what was allowed."""
    title = "points lost (test, 95 % interval)"
    (y, offset), marks = _rules("lost", title, alt.Scale(zero=True))
    allowed = (
        table("rules").mark_tick(color=INK, thickness=2, size=9).encode(x=alt.X("allowed:Q", title=title), y=y, yOffset=offset)
    )
    return alt.layer(marks, allowed).properties(height=alt.Step(11))


def images() -> Chart:
    """Confidence over time of single images: a cell for each step, from pale to full as the threshold is reached."""
    y = alt.Y(
        "row:N",
        title=None,
        sort=None,
        scale=alt.Scale(paddingInner=0.22),
        axis=alt.Axis(domain=False, ticks=False, labelPadding=48),
    )
    x = alt.X(
        "from:Q",
        title="time step",
        scale=alt.Scale(domainMin=0.5, domainMax=value("end"), nice=False, zero=False),
        axis=alt.Axis(tickMinStep=1, domain=False, ticks=False, labelExpr="datum.value > time_steps ? '' : datum.label"),
    )
    colour = alt.Color("answer:N", scale=alt.Scale(domain=list(ANSWERS), range=list(ANSWERS.values())))
    strength = alt.Opacity("strength:Q", legend=None, scale=alt.Scale(domain=[0, 1], range=[0.08, 1]))
    tip = tooltip(
        ("row", "image", ""),
        ("step", "time step", ".0f"),
        ("predicted", "answer", ""),
        ("label", "truth", ""),
        ("shown", "confidence", ""),
    )
    cells = (
        table("cells")
        .mark_rect(stroke="white", strokeWidth=0.5)
        .encode(x, y, x2="to:Q", color=colour, opacity=strength, tooltip=tip)
    )
    exits = table("exits").mark_tick(orient="vertical", thickness=3, size=38, color=INK).encode(x=alt.X("at:Q"), y=y)
    end = (
        table("exits")
        .mark_text(align="left", dx=6, fontSize=11, fontWeight=600, color=INK)
        .encode(x=alt.X("at:Q"), y=y, text="text:N")
    )
    pictures = (
        table("pictures").mark_image(width=36, height=36, align="right", clip=False).encode(x=alt.value(-6), y=y, url="url:N")
    )
    return alt.layer(cells, exits, end, pictures).properties(height=alt.Step(46))


def guarantee() -> Chart:
    """Points lost by each candidate threshold, the largest loss up to which it is certified, and what was promised."""
    y = alt.Y(
        "lost:Q", title="points lost against T", scale=alt.Scale(domainMin=value("low"), domainMax=value("high"), nice=False)
    )
    tip = tooltip(("series", "", ""), ("step", "mean time steps", ".2f"), ("lost", "points lost", ".2f"))
    colour = alt.Color("series:N", scale=alt.Scale(domain=list(CERTIFYING), range=list(CERTIFYING.values())))
    x = steps_axis()
    lines = table("lines").mark_line(clip=True, strokeWidth=2, point=alt.OverlayMarkDef(size=22, filled=True, clip=True))
    promised = table("promised").mark_rule(color=INK, strokeDash=[5, 3], strokeWidth=1.5).encode(y=alt.Y("lost:Q"))
    said = (
        table("promised")
        .mark_text(align="right", baseline="bottom", dy=-3, fontSize=11, color=INK)
        .encode(x=alt.value("width"), y=alt.Y("lost:Q"), text="text:N")
    )
    chosen = table("certified").mark_point(size=170, strokeWidth=2.5, color=INK).encode(x, y, tooltip=tip)
    return alt.layer(promised, said, lines.encode(x, y, colour, tooltip=tip), chosen).properties(height=260)
