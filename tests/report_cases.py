"""A folder of results whose every text from outside is hostile, and how to read the report that is made of it."""

from __future__ import annotations

import html
import json
import re
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any

from result_cases import failed_setting, run_result, setting_result
from study_cases import made

from dynconf_core.evaluation.analysis import Analysis, analyse
from dynconf_core.evaluation.curves import CURVES, Curves, curves_of
from dynconf_core.evaluation.setting import SettingFigures, evaluate_setting
from dynconf_core.results.files import RESULTS
from dynconf_core.results.records import json_text, to_json
from dynconf_core.results.types import RunResult, SettingResult
from dynconf_core.traces.schema import Traces

HOSTILE = "</script><!--<script><img src=x onerror=\"document.title='owned'\">' & \u2028"
COUNTS = {"once": 10, "every_step": 0, "ann": 1000}
NAMES = ("net-qcfs", "net-qffs")


@cache
def traces() -> tuple[Traces, Traces]:
    """Calibration and test traces that count operations."""
    found = []
    for samples, seed in ((70, 1), (60, 2)):
        plain = made(samples, seed, 6)
        counts = (plain.logits.argmax(axis=2) + 1).astype("float64")
        meta = {"neurons": 10, "multiply_accumulates": COUNTS, "source": "mine"}
        found.append(replace(plain, spikes=counts, synaptic_operations=10 * counts, ann_logits=plain.logits[:, -1], meta=meta))
    return found[0], found[1]


@cache
def analysis() -> Analysis:
    """Their analysis, with a guarantee."""
    return analyse(*traces(), epsilon=0.2, delta=0.2, measures=("max_softmax", "gap"))


@cache
def curves() -> Curves:
    return curves_of(traces()[1], analysis().rule, analysis().robustness)


@cache
def finished(name: str = NAMES[0]) -> SettingResult:
    """A setting with the figures of these traces."""
    calibration, test = traces()
    found = analysis()
    chosen = found.rule, found.choice, found.record.robustness
    figures = evaluate_setting(calibration, test, *chosen, None, 0, ("max_softmax", "gap"))
    values = {field.name: getattr(figures, field.name) for field in fields(SettingFigures)}
    return replace(setting_result(name), **values, time_steps=test.time_steps)


def hostile_run() -> RunResult:
    """A reproduction of which a setting failed and another has a measure of somebody's own."""
    first, second = finished(NAMES[0]), replace(finished(NAMES[1]), warnings=(f"beware of {HOSTILE}",))
    second = replace(second, comparison=tuple(replace(row, measure=HOSTILE) for row in second.comparison))
    return run_result(first, second, failed_setting("net-broken", HOSTILE), command=f"dynconf reproduce {HOSTILE}")


def conversion(layers: int = 3) -> dict[str, Any]:
    """The content of a conversion report."""
    rows = [
        {"name": f"layer {number}", "neurons": 4, "rate": 0.2, "error": [0.3, 0.1], "agreement": 1 - number / 10}
        for number in range(1, layers + 1)
    ]
    found = {"time_steps": 6, "images": 8, "marks": [3, 6], "agreement": 0.75, "layers": rows, "worst_layer": rows[-1]["name"]}
    rows[0]["name"] = HOSTILE
    return found


def write_folder(folder: Path, result: RunResult) -> Path:
    """Results as `dynconf export` leaves them, without traces."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RESULTS).write_text(json_text(to_json(result)))
    for row in result.finished:
        (folder / f"{row.name}-{CURVES}").write_text(json_text(to_json(curves())))
        (folder / f"{row.name}-conversion.json").write_text(json.dumps(conversion()))
    return folder


def content(page: str) -> dict[str, Any]:
    """The data in a report."""
    found = re.findall(r'<script type="application/json" id="content">(.*?)</script>', page, re.DOTALL)
    assert len(found) == 1
    return dict(json.loads(found[0]))


def tables(page: str, kind: str) -> list[dict[str, dict[str, list[Any]]]]:
    """The tables by name of every figure of a kind."""
    found = content(page)
    return [
        {name: found["tables"][place] for name, place in figure["data"].items()}
        for figure in found["figures"]
        if figure["kind"] == kind
    ]


def rows(page: str) -> list[list[str]]:
    """The cells of all rows of all HTML tables."""
    found = re.findall(r"<tr>(.*?)</tr>", page, re.DOTALL)
    return [[html.unescape(cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL)] for row in found]
