"""The charts of reports, as Vega-Lite specifications made by Altair.

A specification holds no data: it names tables and values, which each figure brings along. So each kind of chart stands in a
report once, whatever the number of settings.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dynconf_core.report.charts_of_exits import (
    fronts,
    guarantee,
    histogram,
    images,
    latency,
    latency_and_paper,
    rules_lost,
    rules_steps,
    savings,
)
from dynconf_core.report.charts_of_networks import (
    calibration_error,
    classes,
    energy,
    layers_agreement,
    layers_error,
    reliability,
    robustness_lost,
    robustness_steps,
)
from dynconf_core.report.charts_of_sweeps import parallel, pareto
from dynconf_core.report.theme import CONFIG, Chart

KINDS: dict[str, Callable[[], Chart]] = {
    chart.__name__: chart
    for chart in (
        latency,
        latency_and_paper,
        fronts,
        savings,
        histogram,
        guarantee,
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
        found[name] = {**content, "config": CONFIG}
    return found
