"""Stage ``evaluate``: the chosen rule on the test traces, its figures and its pictures. Nothing else reads the test split.

Artefact: ``evaluation.json``, ``rule.json``, ``accuracy_against_latency.png``, ``exit_histogram.png``, ``robustness.png``.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect import task
from prefect.states import State

from dynconf_core.choosing.candidates import measures_compared
from dynconf_core.choosing.cross_fitting import Choice
from dynconf_core.confidence.measure import MEASURES
from dynconf_core.evaluation.setting import EVALUATION, evaluate_setting
from dynconf_core.exit.front import exact_front
from dynconf_core.exit.oracles import oracle_curve
from dynconf_core.exit.robustness import robustness_map
from dynconf_core.exit.rule import Rule
from dynconf_core.experiment.plan import Plan
from dynconf_core.figures.accuracy import accuracy_against_latency, exit_histogram
from dynconf_core.figures.robustness import robustness_figure
from dynconf_core.results.records import json_text, read, to_json
from dynconf_core.traces.schema import Traces
from dynconf_tasks.listening import Listener
from dynconf_tasks.stage import TASK_OPTIONS, Handle, Stage, Workplace

FIGURES = ("accuracy_against_latency.png", "exit_histogram.png", "robustness.png")
DPI = 150


def code(plan: Plan) -> tuple[Path, ...]:
    """Where this stage's code begins."""
    return (Path(__file__), *(MEASURES.source(name) for name in measures_compared(plan.search.rule)))


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
        # A measure from outside is the one that the plan names; the file alone would import nothing.
        own = plan.search.rule if ":" in plan.search.rule else None
        chosen, choice = Rule.load(rule.file("rule.json"), own), read(Choice, rule.file("rule.json"))
        unseen, known = Traces.load(test.folder), Traces.load(calibration.folder)
        robustness = robustness_map(unseen)
        figures = evaluate_setting(
            known, unseen, chosen, choice, robustness.widths(), paper_time_steps, plan.seed, measures_compared(plan.search.rule)
        )
        (folder / EVALUATION).write_text(json_text(to_json(figures)))
        shutil.copyfile(rule.file("rule.json"), folder / "rule.json")  # so that one folder holds what is published of a setting
        subtitle, correct = _subtitle(plan, unseen.samples), unseen.correct()
        pictures = (
            accuracy_against_latency(
                figures.accuracy_at_t,
                exact_front(chosen.scores(unseen), correct),
                figures.oracles.points(),
                figures.exit,
                plan.setting,
                subtitle,
                figures.ann_accuracy,
                oracle_curve(correct),
            ),
            exit_histogram(figures.exit.histogram, figures.exit.mean_steps, plan.setting, subtitle),
            robustness_figure(robustness, plan.setting, subtitle),
        )
        for name, picture in zip(FIGURES, pictures, strict=True):
            picture.savefig(folder / name, dpi=DPI)
        return {"accuracy": figures.exit.accuracy, "mean_steps": figures.exit.mean_steps}

    return stage(plan, paper_time_steps, rule, calibration, test).run(work, write)


def _subtitle(plan: Plan, samples: int) -> str:
    stand_in = f" in the place of {plan.data.stands_in_for}" if plan.data.stands_in_for else ""
    width = "" if plan.width == 1 else f", {plan.width:g} of the width"
    return f"profile {plan.profile}: {plan.data.name}{stand_in}{width}; {samples} test images, seed {plan.seed}"
