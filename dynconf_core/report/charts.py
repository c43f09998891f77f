"""The charts of reports, as Vega-Lite specifications made by Altair.

A specification holds no data: it names tables and values, which each figure brings along. So each kind of chart stands in a
report once, whatever the number of settings.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import altair as alt

from dynconf_core.figures.canvas import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, SKY, VERMILLION
from dynconf_core.report.palette import AGAINST, ANSWERS, DROPS, FIXED, MARKED, PAPER, SERIES

LINE = "#E3E6EA"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
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


def _of(table: str) -> Chart:
    return alt.Chart(alt.NamedData(name=table))


def _value(name: str) -> Any:
    """A number that the figure brings along."""
    return alt.ExprRef(expr=name)


def _steps(title: str = "mean time steps", least: float = 0) -> Any:
    scale = alt.Scale(domainMin=least, domainMax=_value("time_steps"), nice=False, zero=False)
    return alt.X("step:Q", title=title, scale=scale, axis=alt.Axis(tickMinStep=1))


def _tip(*fields: tuple[str, str, str]) -> list[Any]:
    """A tooltip: field, title and format of each line; a format of "" is for text."""
    return [
        alt.Tooltip(f"{name}:N" if not form else f"{name}:Q", title=title, **({"format": form} if form else {}))
        for name, title, form in fields
    ]


def _curves(colours: dict[str, str] | None, marked: dict[str, str] | None) -> Chart:
    """Accuracy against mean steps: lines, and marked points."""
    y = alt.Y(
        "accuracy:Q",
        title="accuracy (%)",
        scale=alt.Scale(domainMin=_value("low"), domainMax=_value("high"), nice=False, zero=False),
        axis=alt.Axis(tickCount=6),
    )
    names = [*(colours or {}), *(marked or {})]
    scale = alt.Scale(domain=names, range=[*(colours or {}).values(), *(marked or {}).values()]) if names else alt.Undefined
    colour = alt.Color("series:N", scale=scale, sort=None, title=None)
    tip = _tip(("series", "series", ""), ("step", "mean time steps", ".2f"), ("accuracy", "accuracy (%)", ".2f"))
    near = alt.selection_point(nearest=True, on="pointerover", empty=False, clear="pointerout")
    dash = (
        alt.StrokeDash("series:N", scale=alt.Scale(domain=list(colours), range=[[1, 0], [1, 0], [5, 3]]), legend=None)
        if (colours)
        else alt.Undefined
    )
    lines = _of("lines").mark_line(clip=True, strokeWidth=2, interpolate="linear").encode(_steps(), y, colour, strokeDash=dash)
    hover = (
        _of("lines")
        .mark_point(clip=True, filled=True, size=60)
        .encode(_steps(), y, colour, opacity=alt.condition(near, alt.value(1), alt.value(0)), tooltip=tip)
        .add_params(near)
    )
    points = (
        _of("points")
        .mark_point(filled=True, size=110, stroke="white", strokeWidth=1.5, opacity=1, clip=True)
        .encode(_steps(), y, colour, tooltip=tip)
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
    x = alt.X("saving:Q", title="time steps saved (%)", scale=alt.Scale(domainMax=100, domainMin=_value("low")))
    y = alt.Y("setting:N", title=None, sort=None, axis=alt.Axis(domain=False, ticks=False, labelPadding=8))
    offset = alt.YOffset("against:N", sort=list(AGAINST), scale=alt.Scale(paddingInner=0.12))
    tip = _tip(("setting", "setting", ""), ("against", "against", ""), ("saving", "saved (%)", ".1f"))
    colour = alt.Color("against:N", scale=alt.Scale(domain=list(AGAINST), range=list(AGAINST.values())))
    bars = _of("bars").mark_bar(cornerRadiusEnd=2).encode(x, y, yOffset=offset, color=colour, tooltip=tip)
    text = (
        _of("bars")
        .mark_text(align="left", baseline="middle", dx=4, fontSize=10, color=INK)
        .encode(x, y, yOffset=offset, text=alt.Text("saving:Q", format=".0f"))
    )
    return alt.layer(bars, text).properties(height=alt.Step(15))


def histogram() -> Chart:
    """How many images exit at each step, with the mean."""
    x = alt.X(
        "from:Q",
        title="exit at time step",
        scale=alt.Scale(domainMin=0.4, domainMax=_value("end"), nice=False, zero=False),
        axis=alt.Axis(tickMinStep=1, values=alt.Undefined),
    )
    y = alt.Y("share:Q", title="images (%)", axis=alt.Axis(tickCount=5))
    tip = _tip(
        ("step", "time step", ".0f"),
        ("count", "images", ","),
        ("share", "share (%)", ".1f"),
        ("exited", "exited so far (%)", ".1f"),
    )
    bars = _of("bars").mark_bar(color=BLUE).encode(x, y, x2="to:Q", y2=alt.datum(0), tooltip=tip)
    mean = _of("mean").mark_rule(color=VERMILLION, strokeWidth=2, strokeDash=[5, 3]).encode(x=alt.X("step:Q"))
    text = (
        _of("mean")
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
    tip = _tip(
        ("measure", "measure", ""),
        ("drop", "may lose", ""),
        ("threshold", "threshold", ""),
        ("steps", "mean time steps", ".2f"),
        ("steps_range", "95 %", ""),
        ("lost", "points lost", ".2f"),
        ("lost_range", "95 %", ""),
        ("accuracy", "accuracy (%)", ".2f"),
    )
    x = alt.X(f"{field}:Q", title=title, scale=scale)
    bars = (
        _of("rules")
        .mark_rule(strokeWidth=2)
        .encode(x=alt.X(f"{field}_low:Q", title=title, scale=scale), x2=f"{field}_high:Q", y=y, yOffset=offset, color=colour)
    )
    points = _of("rules").mark_point(filled=True, size=55, opacity=1).encode(x, y, yOffset=offset, color=colour, tooltip=tip)
    return (y, offset), alt.layer(bars, points)


def rules_steps() -> Chart:
    """Mean steps of each measure at each allowed drop."""
    scale = alt.Scale(domainMin=0, domainMax=_value("time_steps"), nice=False)
    return _rules("steps", "mean time steps (test), with 95 % interval", scale)[1].properties(height=alt.Step(11))


def rules_lost() -> Chart:
    """Points lost by each measure at each allowed drop, beside what was allowed."""
    title = "points of accuracy lost (test), with 95 % interval"
    (y, offset), marks = _rules("lost", title, alt.Scale(zero=True))
    allowed = (
        _of("rules").mark_tick(color=INK, thickness=2, size=9).encode(x=alt.X("allowed:Q", title=title), y=y, yOffset=offset)
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
        scale=alt.Scale(domainMin=0.5, domainMax=_value("end"), nice=False, zero=False),
        axis=alt.Axis(tickMinStep=1, domain=False, ticks=False, labelExpr="datum.value > time_steps ? '' : datum.label"),
    )
    colour = alt.Color("answer:N", scale=alt.Scale(domain=list(ANSWERS), range=list(ANSWERS.values())))
    strength = alt.Opacity("strength:Q", legend=None, scale=alt.Scale(domain=[0, 1], range=[0.08, 1]))
    tip = _tip(
        ("row", "image", ""),
        ("step", "time step", ".0f"),
        ("predicted", "answer", ""),
        ("label", "truth", ""),
        ("shown", "confidence", ""),
    )
    cells = (
        _of("cells")
        .mark_rect(stroke="white", strokeWidth=0.5)
        .encode(x, y, x2="to:Q", color=colour, opacity=strength, tooltip=tip)
    )
    exits = _of("exits").mark_tick(orient="vertical", thickness=3, size=38, color=INK).encode(x=alt.X("at:Q"), y=y)
    end = (
        _of("exits")
        .mark_text(align="left", dx=6, fontSize=11, fontWeight=600, color=INK)
        .encode(x=alt.X("at:Q"), y=y, text="text:N")
    )
    pictures = (
        _of("pictures").mark_image(width=36, height=36, align="right", clip=False).encode(x=alt.value(-6), y=y, url="url:N")
    )
    return alt.layer(cells, exits, end, pictures).properties(height=alt.Step(46))


def layers_agreement() -> Chart:
    """Agreement with the ANN once the activations up to a layer are replaced."""
    tip = _tip(
        ("layer", "layer", ""), ("agreement", "agrees with the ANN (%)", ".1f"), ("rate", "spikes per neuron and step", ".3f")
    )
    x = alt.X("depth:Q", title="layer, from the input", axis=alt.Axis(tickMinStep=1), scale=alt.Scale(zero=False, nice=False))
    y = alt.Y("agreement:Q", title="predictions unchanged (%)", scale=alt.Scale(zero=False, domainMax=100))
    line = (
        _of("layers")
        .mark_line(color=BLUE, point=alt.OverlayMarkDef(filled=True, size=45, color=BLUE))
        .encode(x, y, tooltip=tip)
    )
    worst = _of("worst").mark_point(color=VERMILLION, size=170, strokeWidth=2).encode(x, y, tooltip=tip)
    return alt.layer(line, worst).properties(height=200)


def layers_error() -> Chart:
    """Relative error of each layer's mean output."""
    tip = _tip(("layer", "layer", ""), ("after", "after", ""), ("error", "relative error (%)", ".1f"))
    x = alt.X("depth:Q", title="layer, from the input", axis=alt.Axis(tickMinStep=1), scale=alt.Scale(zero=False, nice=False))
    colour = alt.Color("after:N", sort=None, scale=alt.Scale(range=[SKY, BLUE, "#0B2E4F"]))
    y = alt.Y("error:Q", title="error of the mean output (%)")
    return (
        _of("errors")
        .mark_line(point=alt.OverlayMarkDef(filled=True, size=35))
        .encode(x, y, colour, tooltip=tip)
        .properties(height=200)
    )


def calibration_error() -> Chart:
    """Expected calibration error over the time steps, and at the exits."""
    tip = _tip(
        ("step", "time step", ".0f"), ("ece", "calibration error (%)", ".2f"), ("nll", "negative log likelihood (nats)", ".3f")
    )
    x = _steps("time step", 1)
    y = alt.Y("ece:Q", title="expected calibration error (%)")
    line = (
        _of("errors")
        .mark_line(color=BLUE, point=alt.OverlayMarkDef(filled=True, size=30, color=BLUE))
        .encode(x, y, tooltip=tip)
    )
    level = _of("exit").mark_rule(color=VERMILLION, strokeDash=[5, 3], strokeWidth=2).encode(y=alt.Y("ece:Q"))
    text = (
        _of("exit")
        .mark_text(color=VERMILLION, align="right", baseline="bottom", dy=-4, fontSize=11, fontWeight=600)
        .encode(x=alt.value("width"), y=alt.Y("ece:Q"), text="text:N")
    )
    return alt.layer(line, level, text).properties(height=200)


def reliability() -> Chart:
    """Accuracy against confidence, at T and at the exits."""
    names = ["at the exit", "at T"]
    colour = alt.Color("at:N", scale=alt.Scale(domain=names, range=[BLUE, ORANGE]))
    unit = alt.Scale(domain=[0, 100], nice=False)
    x, y = alt.X("confidence:Q", title="confidence (%)", scale=unit), alt.Y("accuracy:Q", title="right (%)", scale=unit)
    tip = _tip(
        ("at", "", ""), ("confidence", "mean confidence (%)", ".1f"), ("accuracy", "right (%)", ".1f"), ("count", "images", ",")
    )
    ideal = _of("ideal").mark_line(color="#9AA0A8", strokeDash=[4, 3], strokeWidth=1.2).encode(x, y)
    size = alt.Size("count:Q", legend=None, scale=alt.Scale(range=[20, 320]))
    points = _of("bins").mark_point(filled=True, opacity=0.85).encode(x, y, colour, size=size, tooltip=tip)
    return alt.layer(ideal, points).properties(height=230)


def _map(field: str, title: str, colours: Any) -> Chart:
    """A value over threshold and alpha, with the border of the useful region."""
    x = alt.X(
        "x0:Q",
        title="threshold on the softmax",
        scale=alt.Scale(domain=[0, 1], nice=False),
        axis=alt.Axis(format=".1f", tickCount=5),
    )
    y = alt.Y(
        "y0:Q", title="alpha (log scale)", scale=alt.Scale(type="log", nice=False, zero=False), axis=alt.Axis(tickCount=4)
    )
    tip = _tip(
        ("threshold", "threshold", ".2f"),
        ("alpha", "alpha", ".3g"),
        ("lost", "points lost", ".2f"),
        ("steps", "mean time steps", ".2f"),
    )
    colour = alt.Color(
        f"{field}:Q",
        title=title,
        scale=colours,
        legend=alt.Legend(orient="bottom", gradientLength=180, titleFontWeight=500, titleLimit=300),
    )
    seam = alt.Stroke(f"{field}:Q", scale=colours, legend=None)  # else the cells are drawn with gaps between them
    cells = _of("cells").mark_rect(strokeWidth=0.7).encode(x, y, x2="x1:Q", y2="y1:Q", color=colour, stroke=seam, tooltip=tip)
    border = (
        _of("border")
        .mark_rule(color=VERMILLION, strokeWidth=2, strokeCap="square")
        .encode(x=alt.X("x0:Q"), y=alt.Y("y0:Q"), x2="x1:Q", y2="y1:Q")
    )
    return alt.layer(cells, border).properties(height=240)


def robustness_lost() -> Chart:
    """Points lost over threshold and alpha."""
    return _map("lost", "points lost", alt.Scale(scheme="blues", domain=[0, 2], clamp=True))


def robustness_steps() -> Chart:
    """Mean steps over threshold and alpha."""
    return _map("steps", "mean time steps", alt.Scale(scheme="cividis", domainMin=1, domainMax=_value("time_steps")))


def energy() -> Chart:
    """Estimated energy of an inference of the ANN and of the SNN, with and without exit."""
    x = alt.X("energy:Q", title="estimated energy of one inference (µJ)", scale=alt.Scale(zero=True))
    y = alt.Y("network:N", title=None, sort=None, axis=alt.Axis(domain=False, ticks=False, labelPadding=8))
    tip = _tip(("network", "network", ""), ("energy", "estimate (µJ)", ".3~s"))
    colour = alt.Color("network:N", sort=None, legend=None, scale=alt.Scale(range=[FIXED, SKY, BLUE]))
    bars = _of("bars").mark_bar(cornerRadiusEnd=2).encode(x, y, color=colour, tooltip=tip)
    text = _of("bars").mark_text(align="left", dx=4, fontSize=11, color=INK).encode(x, y, text="text:N")
    return alt.layer(bars, text).properties(height=alt.Step(30))


def classes() -> Chart:
    """Points lost by each class."""
    x = alt.X("name:N", title="class", sort=None, axis=alt.Axis(labelAngle=0, labelOverlap=True))
    y = alt.Y("lost:Q", title="points of accuracy lost")
    tip = _tip(
        ("name", "class", ""), ("samples", "images", ","), ("lost", "points lost", ".2f"), ("steps", "mean time steps", ".2f")
    )
    return _of("classes").mark_bar(color=BLUE).encode(x, y, tooltip=tip).properties(height=200)


def pareto() -> Chart:
    """The points of a sweep on the test split; the front was chosen on the calibration split."""
    x = alt.X("step:Q", title="mean time steps (test)", scale=alt.Scale(zero=True))
    y = alt.Y("accuracy:Q", title="accuracy (test, %)", scale=alt.Scale(zero=False))
    tip = _tip(
        ("setting", "setting", ""),
        ("values", "values", ""),
        ("step", "mean time steps", ".2f"),
        ("accuracy", "accuracy (%)", ".2f"),
        ("calibration_step", "steps on calibration", ".2f"),
        ("calibration", "accuracy on calibration (%)", ".2f"),
    )
    colour = alt.Color("setting:N", sort=None, scale=alt.Scale(range=[BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, INK, GREY]))
    line = _of("front").mark_line(strokeWidth=1.5, strokeDash=[5, 3]).encode(x, y, colour, order="step:Q")
    front = (
        _of("front")
        .mark_point(filled=True, size=130, opacity=1, stroke="white", strokeWidth=1.5)
        .encode(x, y, colour, tooltip=tip)
    )
    rest = _of("others").mark_point(size=60, opacity=0.9, strokeWidth=1.5).encode(x, y, colour, tooltip=tip)
    return alt.layer(line, rest, front).properties(height=330)


def parallel() -> Chart:
    """The values of each point of a sweep and what they lead to, a line a point."""
    x = alt.X(
        "axis:N",
        title=None,
        sort=None,
        axis=alt.Axis(labelAngle=0, grid=True, labelPadding=18, domain=False, ticks=False),
        scale=alt.Scale(padding=0.25),
    )
    y = alt.Y("position:Q", axis=None, scale=alt.Scale(domain=[0, 1], nice=False))
    names = ["on the front", "not on the front"]
    colour = alt.Color("on:N", scale=alt.Scale(domain=names, range=[BLUE, "#C3C8CF"]))
    tip = _tip(("setting", "setting", ""), ("values", "values", ""), ("axis", "", ""), ("shown", "value", ""))
    lines = _of("lines").mark_line(strokeWidth=1.8, opacity=0.75).encode(x, y, colour, detail="point:N", order="place:Q")
    points = _of("lines").mark_point(filled=True, size=40, opacity=1).encode(x, y, colour, tooltip=tip)
    ends = _of("ends").mark_text(fontSize=10.5, color=GREY).encode(x, y, text="text:N", yOffset=alt.value(0))
    return alt.layer(lines, points, ends).properties(height=300)


KINDS: dict[str, Callable[[], Chart]] = {
    chart.__name__: chart
    for chart in (
        latency,
        latency_and_paper,
        fronts,
        savings,
        histogram,
        rules_steps,
        rules_lost,
        images,
        layers_agreement,
        layers_error,
        calibration_error,
        reliability,
        robustness_lost,
        robustness_steps,
        energy,
        classes,
        pareto,
        parallel,
    )
}


def specifications() -> dict[str, Any]:
    """The Vega-Lite specifications of all charts, by kind, without data."""
    found = {}
    for name, chart in KINDS.items():
        content = chart().to_dict()
        found[name] = {**content, "config": CONFIG, "autosize": {"type": "fit-x", "contains": "padding"}}
    return found
