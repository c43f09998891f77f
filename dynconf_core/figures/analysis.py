"""A study as a folder: ``analysis.json``, ``rule.json``, ``front.csv`` and the pictures."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dynconf_core.confidence.smoothing import Smoothing
from dynconf_core.evaluation.analysis import Analysis
from dynconf_core.exit.front import write_front
from dynconf_core.exit.oracles import oracle_curve
from dynconf_core.exit.robustness import MEASURE
from dynconf_core.figures.accuracy import accuracy_against_latency, exit_histogram
from dynconf_core.figures.canvas import label
from dynconf_core.figures.guarantee import guarantee_figure
from dynconf_core.figures.reliability import reliability_figure
from dynconf_core.figures.robustness import robustness_figure
from dynconf_core.figures.rules import rules_figure
from dynconf_core.results.json_text import json_text
from dynconf_core.traces.schema import Traces

RECORD, RULE, FRONT = "analysis.json", "rule.json", "front.csv"
FIGURES = ("accuracy_against_latency", "rules", "exit_histogram", "robustness", "reliability", "guarantee")
DPI = 150


def write_study(analysis: Analysis, test: Traces, out: Path, title: str, subtitle: str = "") -> list[Path]:
    """Write everything into the folder ``out``, made where missing.

    Files of an earlier study are replaced, or removed where this one has none of their name. ``analysis.json`` goes first and
    comes last: a folder that has one is whole.

    Args:
        analysis: the study.
        test: the traces that judged.
        out: the folder.
        title: names the traces, in the pictures.
        subtitle: says what was run, in the pictures, beside the number of samples that they are of.

    Returns:
        the paths written, ``analysis.json`` last.
    """
    out.mkdir(parents=True, exist_ok=True)
    record = out / RECORD
    record.unlink(missing_ok=True)
    written = [analysis.rule.save(out / RULE, _record_of_rule(analysis)), out / FRONT]
    write_front(analysis.front, out / FRONT)
    figures = study_figures(analysis, test, title, subtitle)
    for name in FIGURES:
        path = out / f"{name}.png"
        if name in figures:
            figures[name].savefig(path, dpi=DPI)
            written.append(path)
        else:
            path.unlink(missing_ok=True)
    record.write_text(json_text(analysis.to_json()), encoding="utf-8")
    return [*written, record]


def _record_of_rule(analysis: Analysis) -> dict[str, Any]:
    """What stands beside the rule: how it was chosen, and its figures on the calibration and test traces."""
    own = analysis.rule.to_json()
    return {name: value for name, value in analysis.chosen.items() if name not in own}


def study_figures(analysis: Analysis, test: Traces, title: str, source: str) -> dict[str, Any]:
    """The matplotlib figures of a study, by those of ``FIGURES`` that it has.

    Args:
        analysis: the study.
        test: the traces that judged.
        title: names the traces.
        source: says what was run, beside the number of samples that the figures are of.
    """
    record, correct, rule = analysis.record, test.correct(), analysis.rule
    subtitle = f"{source}; {test.samples} test sample{'s'[: test.samples != 1]}".removeprefix("; ")
    judged = analysis.chosen["test"]
    found = {
        "accuracy_against_latency": accuracy_against_latency(
            record["accuracy_at_t"]["test"],
            analysis.test_fronts[rule.measure.name],
            record["oracles"]["test"],
            judged,
            title,
            subtitle,
            record.get("ann_accuracy"),
            oracle_curve(correct),
        ),
        "rules": rules_figure(
            analysis.test_fronts,
            {entry["measure"]: entry["test"] for entry in record["rules"]},
            float(correct[:, -1].mean()),
            test.time_steps,
            title,
            subtitle,
        ),
        "exit_histogram": exit_histogram(record["exit"]["histogram"], judged["mean_steps"], title, subtitle),
        "robustness": robustness_figure(analysis.robustness, title, subtitle, _place_on_the_map(analysis)),
        "reliability": reliability_figure(_series(record["reliability"], test.time_steps), title, subtitle),
    }
    label(found["reliability"].axes[-1], _confidence(record["reliability"]["smoothing"]))
    if analysis.guarantee is not None:
        found["guarantee"] = guarantee_figure(analysis.guarantee, test.time_steps, title, source)
    return found


def _place_on_the_map(analysis: Analysis) -> dict[str, float] | None:
    """Where the chosen rule stands on the map of thresholds and alphas, if it is of the map's kind and within it."""
    rule, seen = analysis.rule, analysis.robustness
    if rule.measure != MEASURE or rule.smoothing.form != seen.form:
        return None
    threshold = rule.measure.shown(rule.threshold)
    inside = (
        seen.thresholds[0] <= threshold <= seen.thresholds[-1] and seen.alphas[0] <= rule.smoothing.alpha <= seen.alphas[-1]
    )
    return {"threshold": threshold, "alpha": rule.smoothing.alpha} if inside else None


def _confidence(smoothing: Mapping[str, Any]) -> str:
    """Which softmax the reliability is of."""
    divisor = {"sum": "{alpha:.3g}", "mean": "({alpha:.3g} t)", "power": "({alpha:.3g} t^{exponent:.2g})"}[smoothing["form"]]
    found = Smoothing.from_dict(smoothing)
    return f"Confidence: largest softmax of z / {divisor.format(alpha=found.alpha, exponent=found.exponent)}"


def _series(reliability: Mapping[str, Any], time_steps: int) -> dict[str, dict[str, Any]]:
    """The first and the last of the diagrams, and that at the exit."""
    diagrams = reliability["diagrams"]
    first = min(int(name) for name in diagrams if name != "exit")
    wanted = {} if first == time_steps else {f"at step {first}": str(first)}
    wanted |= {f"at T = {time_steps}": str(time_steps), "at the exit": "exit"}
    errors = {str(step): reliability["ece_at_t"][step - 1] for step in (first, time_steps)}
    errors["exit"] = reliability["ece_at_exit"]
    return {
        name: {
            "confidence": [value if value is not None else 0.0 for value in diagrams[key]["confidence"]],
            "accuracy": [value if value is not None else 0.0 for value in diagrams[key]["accuracy"]],
            "samples": diagrams[key]["counts"],
            "ece": errors[key],
        }
        for name, key in wanted.items()
    }
