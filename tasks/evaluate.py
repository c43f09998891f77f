"""The stage ``evaluate``: evaluate the chosen rule on the test traces, which no other stage reads.

Artefact: ``evaluation.json``, ``curves.json``, ``rule.json``, and as ``.png`` and ``.svg`` the figures
``accuracy_against_latency``, ``exit_histogram`` and ``robustness``.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect import State, task

from dynconf_core.choosing.candidates import measures_compared
from dynconf_core.choosing.cross_fitting import Choice
from dynconf_core.evaluation.curves import CURVES, curves_of
from dynconf_core.evaluation.setting import EVALUATION, evaluate_setting
from dynconf_core.exit.front import exact_front
from dynconf_core.exit.oracles import oracle_curve
from dynconf_core.exit.robustness import robustness_map
from dynconf_core.exit.rule import Rule
from dynconf_core.experiment.job import Handle, Inputs, Job
from dynconf_core.experiment.plan import Plan
from dynconf_core.figures.accuracy import accuracy_against_latency, exit_histogram
from dynconf_core.figures.robustness import robustness_figure
from dynconf_core.figures.svg import save_svg
from dynconf_core.results.records import json_text, read, to_json
from dynconf_core.traces.schema import Traces
from dynconf_tasks.listening import Listener
from dynconf_tasks.stage import TASK_OPTIONS, run

FIGURES = ("accuracy_against_latency", "exit_histogram", "robustness")
DPI = 150


@task(name="evaluate", task_run_name="{job.plan.setting} · evaluate", **TASK_OPTIONS)
def evaluate(job: Job, inputs: Inputs) -> State[Handle] | Handle:
    """Evaluate the rule on the test traces and draw its figures."""
    plan, context = job.plan, job.context

    def write(folder: Path, work: Path, listener: Listener) -> Mapping[str, Any]:
        # A measure from outside the project is named by the plan, as loading a rule file imports no code.
        own = plan.search.rule if ":" in plan.search.rule else None
        found = context.file(inputs["search"], "rule.json")
        chosen, choice = Rule.load(found, own), read(Choice, found)
        unseen, known = (Traces.load(context.folder(inputs[split])) for split in ("test", "calibration"))
        robustness = robustness_map(unseen)
        figures = evaluate_setting(
            known,
            unseen,
            chosen,
            choice,
            robustness.widths(),
            plan.paper_time_steps,
            plan.seed,
            measures_compared(plan.search.rule),
            plan.search.readout,
        )
        (folder / EVALUATION).write_text(json_text(to_json(figures)))
        (folder / CURVES).write_text(json_text(to_json(curves_of(unseen, chosen, robustness))))
        shutil.copyfile(found, folder / "rule.json")  # so that one folder holds everything published of a setting
        subtitle, correct = _subtitle(plan, unseen.samples), chosen.correct(unseen)
        pictures = (
            accuracy_against_latency(
                figures.accuracy_at_t,
                exact_front(chosen.scores(unseen), correct, unseen.lengths),
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
            picture.savefig(folder / f"{name}.png", dpi=DPI, metadata={"Software": None})
            save_svg(picture, folder / f"{name}.svg")
        return {"accuracy": figures.exit.accuracy, "mean_steps": figures.exit.mean_steps}

    return run("evaluate", job, inputs, write)


def _subtitle(plan: Plan, samples: int) -> str:
    stand_in = f" instead of {plan.data.stands_in_for}" if plan.data.stands_in_for else ""
    width = "" if plan.width == 1 else f", {plan.width:g} of full width"
    tuned = f", {plan.tuned}" if plan.tuned else ""
    return f"profile {plan.profile}: {plan.data.name}{stand_in}{width}{tuned}; {samples} test images, seed {plan.seed}"
