"""Charts of a setting's network and its softmax: conversion, reliability, robustness, energy, classes."""

from __future__ import annotations

from typing import Any

import altair as alt

from dynconf_core.figures.canvas import BLUE, INK, ORANGE, SKY, VERMILLION
from dynconf_core.report.palette import FIXED
from dynconf_core.report.theme import Chart, steps_axis, table, tooltip, value


def layers_agreement() -> Chart:
    """Agreement with the ANN once the activations up to a layer are replaced."""
    tip = tooltip(
        ("layer", "layer", ""), ("agreement", "agrees with the ANN (%)", ".1f"), ("rate", "spikes per neuron and step", ".3f")
    )
    x = alt.X("depth:Q", title="layer, from the input", axis=alt.Axis(tickMinStep=1), scale=alt.Scale(zero=False, nice=False))
    y = alt.Y("agreement:Q", title="predictions unchanged (%)", scale=alt.Scale(zero=False, domainMax=100))
    line = (
        table("layers")
        .mark_line(color=BLUE, point=alt.OverlayMarkDef(filled=True, size=45, color=BLUE))
        .encode(x, y, tooltip=tip)
    )
    worst = table("worst").mark_point(color=VERMILLION, size=170, strokeWidth=2).encode(x, y, tooltip=tip)
    return alt.layer(line, worst).properties(height=200)


def layers_error() -> Chart:
    """Relative error of each layer's mean output."""
    tip = tooltip(("layer", "layer", ""), ("after", "after", ""), ("error", "relative error (%)", ".1f"))
    x = alt.X("depth:Q", title="layer, from the input", axis=alt.Axis(tickMinStep=1), scale=alt.Scale(zero=False, nice=False))
    colour = alt.Color("after:N", sort=None, scale=alt.Scale(range=[SKY, BLUE, "#0B2E4F"]))
    y = alt.Y("error:Q", title="error of the mean output (%)")
    return (
        table("errors")
        .mark_line(point=alt.OverlayMarkDef(filled=True, size=35))
        .encode(x, y, colour, tooltip=tip)
        .properties(height=200)
    )


def calibration_error() -> Chart:
    """Expected calibration error over the time steps, and at the exits."""
    tip = tooltip(
        ("step", "time step", ".0f"), ("ece", "calibration error (%)", ".2f"), ("nll", "negative log likelihood (nats)", ".3f")
    )
    x = steps_axis("time step", 1)
    y = alt.Y("ece:Q", title="expected calibration error (%)")
    line = (
        table("errors")
        .mark_line(color=BLUE, point=alt.OverlayMarkDef(filled=True, size=30, color=BLUE))
        .encode(x, y, tooltip=tip)
    )
    level = table("exit").mark_rule(color=VERMILLION, strokeDash=[5, 3], strokeWidth=2).encode(y=alt.Y("ece:Q"))
    place = {"x": alt.value("width"), "y": alt.Y("ece:Q"), "text": "text:N"}
    style: dict[str, Any] = {"align": "right", "baseline": "bottom", "dy": -4, "fontSize": 11, "fontWeight": 600}
    halo = table("exit").mark_text(color="white", stroke="white", strokeWidth=4, **style).encode(**place)
    text = table("exit").mark_text(color=VERMILLION, **style).encode(**place)
    return alt.layer(line, level, halo, text).properties(height=200)


def reliability() -> Chart:
    """Accuracy against confidence, at T and at the exits."""
    names = ["at the exit", "at T"]
    colour = alt.Color("at:N", scale=alt.Scale(domain=names, range=[BLUE, ORANGE]))
    unit = alt.Scale(domain=[0, 100], nice=False)
    x, y = alt.X("confidence:Q", title="confidence (%)", scale=unit), alt.Y("accuracy:Q", title="right (%)", scale=unit)
    tip = tooltip(
        ("at", "", ""), ("confidence", "mean confidence (%)", ".1f"), ("accuracy", "right (%)", ".1f"), ("count", "images", ",")
    )
    ideal = table("ideal").mark_line(color="#9AA0A8", strokeDash=[4, 3], strokeWidth=1.2).encode(x, y)
    size = alt.Size("count:Q", legend=None, scale=alt.Scale(range=[20, 320]))
    points = table("bins").mark_point(filled=True, opacity=0.85).encode(x, y, colour, size=size, tooltip=tip)
    return alt.layer(ideal, points).properties(height=230)


def _map(field: str, title: str, colours: Any) -> Chart:
    """A value over threshold and alpha, with the border of the useful region."""
    x = alt.X(
        "x0:Q",
        title="threshold on the softmax",
        scale=alt.Scale(domain=[0, 1], nice=False),
        axis=alt.Axis(format=".1f", tickCount=5),
    )
    y = alt.Y("y0:Q", title="alpha (log scale)", scale=alt.Scale(type="log", nice=False), axis=alt.Axis(tickCount=4))
    tip = tooltip(
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
    cells = table("cells").mark_rect().encode(x, y, x2="x1:Q", y2="y1:Q", color=colour, tooltip=tip)
    border = (
        table("border")
        .mark_rule(color=VERMILLION, strokeWidth=2, strokeCap="square")
        .encode(x=alt.X("x0:Q"), y=alt.Y("y0:Q"), x2="x1:Q", y2="y1:Q")
    )
    return alt.layer(cells, border).properties(height=240)


def robustness_lost() -> Chart:
    """Points lost over threshold and alpha."""
    return _map("lost", "points lost", alt.Scale(scheme="blues", domain=[0, 2], clamp=True))


def robustness_steps() -> Chart:
    """Mean steps over threshold and alpha."""
    return _map("steps", "mean time steps", alt.Scale(scheme="cividis", domainMin=1, domainMax=value("time_steps")))


def energy() -> Chart:
    """Estimated energy of an inference of the ANN and of the SNN, with and without exit."""
    x = alt.X("energy:Q", title="estimated energy of one inference (µJ)", scale=alt.Scale(zero=True))
    y = alt.Y("network:N", title=None, sort=None, axis=alt.Axis(domain=False, ticks=False, labelPadding=8))
    tip = tooltip(("network", "network", ""), ("energy", "estimate (µJ)", ".3~s"))
    colour = alt.Color("network:N", sort=None, legend=None, scale=alt.Scale(range=[FIXED, SKY, BLUE]))
    bars = table("bars").mark_bar(cornerRadiusEnd=2).encode(x, y, color=colour, tooltip=tip)
    text = table("bars").mark_text(align="left", dx=4, fontSize=11, color=INK).encode(x, y, text="text:N")
    return alt.layer(bars, text).properties(height=alt.Step(30))


def classes() -> Chart:
    """Points lost by each class."""
    x = alt.X("name:N", title="class", sort=None, axis=alt.Axis(labelAngle=0, labelOverlap=True))
    y = alt.Y("lost:Q", title="points of accuracy lost")
    tip = tooltip(
        ("name", "class", ""), ("samples", "images", ","), ("lost", "points lost", ".2f"), ("steps", "mean time steps", ".2f")
    )
    return table("classes").mark_bar(color=BLUE).encode(x, y, tooltip=tip).properties(height=200)
