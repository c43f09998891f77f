"""Stage ``evaluate``: the chosen rule on the test traces, its figures and its pictures. Nothing else reads the test split.

Artefact: ``evaluation.json``, ``rule.json``, ``accuracy_against_latency.png``, ``exit_histogram.png``, ``robustness.png``.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect import State, task

from dynconf_core.choosing.candidates import candidates
from dynconf_core.choosing.comparison import compare
from dynconf_core.evaluation.metrics import evaluate as evaluated
from dynconf_core.exit.front import exact_front
from dynconf_core.exit.oracles import oracle_curve
from dynconf_core.exit.robustness import robustness_map
from dynconf_core.exit.rule import Rule
from dynconf_core.experiment.job import Handle, Inputs, Job
from dynconf_core.experiment.plan import Plan
from dynconf_core.figures.accuracy import accuracy_against_latency, exit_histogram
from dynconf_core.figures.robustness import robustness_figure
from dynconf_core.traces.schema import Traces
from dynconf_tasks.listening import Listener
from dynconf_tasks.stage import TASK_OPTIONS, run

FIGURES = ("accuracy_against_latency.png", "exit_histogram.png", "robustness.png")
DPI = 150


@task(name="evaluate", task_run_name="{job.plan.setting} · evaluate", **TASK_OPTIONS)
def evaluate(job: Job, inputs: Inputs) -> State[Handle] | Handle:
    """Judge the rule on the test traces."""
    plan = job.plan

    def write(folder: Path, listener: Listener) -> Mapping[str, Any]:
        record = inputs["search"].file("rule.json").read_text()
        entry = json.loads(record)
        chosen = Rule.from_json(entry)
        unseen, known = Traces.load(inputs["test"].folder), Traces.load(inputs["calibration"].folder)
        figures = evaluated(unseen, known, chosen, plan.paper_time_steps)
        figures["samples"] = {"calibration": known.samples, "test": unseen.samples}
        # On the images that fitted and chose it, a rule's figures are those of the search: out of fold where it was fitted.
        figures["exit"]["rule"] |= {name: entry[name] for name in ("calibration", "cross_fitted", "calibrated")}
        figures["comparison"] = compare(candidates(known, plan.seed), known, unseen, plan.seed)
        figures["at_paper_time_steps"] = _cut(known, unseen, plan.paper_time_steps, plan.seed)
        robustness = robustness_map(unseen)
        figures["robustness"] = robustness.widths()
        (folder / "evaluation.json").write_text(json.dumps(figures, indent=1, allow_nan=False))
        (folder / "rule.json").write_text(record)  # so that one folder holds what is published of a setting
        subtitle, correct = _subtitle(plan, unseen.samples), unseen.correct()
        pictures = (
            accuracy_against_latency(
                figures["accuracy_at_t"],
                exact_front(chosen.scores(unseen), correct),
                figures["oracles"],
                figures["exit"],
                plan.setting,
                subtitle,
                figures.get("ann_accuracy"),
                oracle_curve(correct),
            ),
            exit_histogram(figures["exit"]["histogram"], figures["exit"]["mean_steps"], plan.setting, subtitle),
            robustness_figure(robustness, plan.setting, subtitle),
        )
        for name, picture in zip(FIGURES, pictures, strict=True):
            picture.savefig(folder / name, dpi=DPI)
        return {name: figures["exit"][name] for name in ("accuracy", "mean_steps")}

    return run("evaluate", job, inputs, write)


def _cut(known: Traces, unseen: Traces, time_steps: int | None, seed: int) -> dict[str, Any] | None:
    """Every rule on the traces cut at the paper's own T, since a generous T flatters; None where T is no longer."""
    if time_steps is None or time_steps >= unseen.time_steps:
        return None
    known, unseen = known.cut(time_steps), unseen.cut(time_steps)
    accuracy = float(unseen.correct()[:, -1].mean())
    rows = compare(candidates(known, seed), known, unseen, seed)
    return {"time_steps": time_steps, "snn_accuracy": accuracy, "comparison": rows}


def _subtitle(plan: Plan, samples: int) -> str:
    stand_in = f" in the place of {plan.data.stands_in_for}" if plan.data.stands_in_for else ""
    width = "" if plan.width == 1 else f", {plan.width:g} of the width"
    return f"profile {plan.profile}: {plan.data.name}{stand_in}{width}; {samples} test images, seed {plan.seed}"
