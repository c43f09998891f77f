"""Stage ``evaluate``: the chosen rule on the test traces, its figures and its pictures. Nothing else reads the test split.

Artefact: ``evaluation.json``, ``rule.json``, ``accuracy_against_latency.png``, ``exit_histogram.png``.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect import task
from prefect.states import State

from dynconf_core.evaluation.figures import accuracy_against_latency, exit_histogram
from dynconf_core.evaluation.metrics import evaluate as evaluated
from dynconf_core.exit.front import front_of
from dynconf_core.exit.rules import Rule
from dynconf_core.plan import Plan
from dynconf_core.traces import Traces
from tasks.listening import Listener
from tasks.stage import TASK_OPTIONS, Handle, Stage, Workplace

FIGURES = ("accuracy_against_latency.png", "exit_histogram.png")
DPI = 150


def code(plan: Plan) -> tuple[Path, ...]:
    """Where this stage's code begins."""
    return (Path(__file__),)


def stage(plan: Plan, paper_time_steps: int | None, rule: Handle, calibration: Handle, test: Handle) -> Stage:
    """The stage of this plan; names are in its key because the pictures show them."""
    config = {
        "setting": plan.setting,
        "profile": plan.profile,
        "data": plan.data.name,
        "stands_in_for": plan.data.stands_in_for,
        "width": plan.width,
        "seed": plan.seed,
        "paper_time_steps": paper_time_steps,
    }
    inputs = {"search": rule, "calibration": calibration, "test": test}
    return Stage("evaluate", plan.setting, config, inputs, code(plan))


@task(name="evaluate", task_run_name="{plan.setting} · evaluate", **TASK_OPTIONS)
def evaluate(
    plan: Plan,
    work: Workplace,
    paper_time_steps: int | None,
    rule: Handle,
    calibration: Handle,
    test: Handle,
) -> State[Handle] | Handle:
    """Judge the rule on the test traces."""

    def write(folder: Path, listener: Listener) -> Mapping[str, Any]:
        record = rule.file("rule.json").read_text()
        chosen = Rule.from_json(json.loads(record))
        unseen, known = Traces.load(test.folder), Traces.load(calibration.folder)
        figures = evaluated(unseen, known, chosen, paper_time_steps)
        figures["samples"] = {"calibration": known.samples, "test": unseen.samples}
        (folder / "evaluation.json").write_text(json.dumps(figures, indent=1, allow_nan=False))
        (folder / "rule.json").write_text(record)  # so that one folder holds what is published of a setting
        subtitle = _subtitle(plan, unseen.samples)
        picture = accuracy_against_latency(
            figures["accuracy_at_t"],
            front_of(unseen, chosen.measure, chosen.smoothing),
            figures["bounds"],
            figures["exit"],
            plan.setting,
            subtitle,
            figures.get("ann_accuracy"),
        )
        picture.savefig(folder / FIGURES[0], dpi=DPI)
        histogram = exit_histogram(figures["exit"]["histogram"], figures["exit"]["mean_steps"], plan.setting, subtitle)
        histogram.savefig(folder / FIGURES[1], dpi=DPI)
        return {name: figures["exit"][name] for name in ("accuracy", "mean_steps")}

    return stage(plan, paper_time_steps, rule, calibration, test).run(work, write)


def _subtitle(plan: Plan, samples: int) -> str:
    stand_in = f" in the place of {plan.data.stands_in_for}" if plan.data.stands_in_for else ""
    width = "" if plan.width == 1 else f", {plan.width:g} of the width"
    return f"profile {plan.profile}: {plan.data.name}{stand_in}{width}; {samples} test images, seed {plan.seed}"
