"""The stage ``search``: choose the exit rule on the calibration traces alone.

For measures that ask for it, Optuna searches the smoothing (form, alpha and exponent) with two objectives, high accuracy and
few mean steps; the threshold of each smoothing follows exactly from its front. Other measures, and all measures behind a
readout, are tried with a few smoothings of their own. The rule is then chosen among all candidates by cross-fitting, so that
its expected loss does not exceed the allowed one. Artefact: ``rule.json``, ``front.csv``.

The study lies in memory. Each trial is seeded by its number, so that the rule depends on the stage's key alone, whether the
search was interrupted or not; finished trials are kept in the stage's work folder. A finished search is also written where
Optuna's dashboard shows it.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import State, task

from dynconf_core.choosing.candidates import (
    CHOOSE,
    DECODED,
    PLAIN,
    Candidate,
    calibration_scored,
    candidates,
    large_enough,
    measures_tried,
)
from dynconf_core.choosing.comparison import choose
from dynconf_core.choosing.selection import promised_loss, promised_point
from dynconf_core.confidence.measure import ConfidenceMeasure, measures_of
from dynconf_core.confidence.smoothing import ALL_FORMS, Smoothing
from dynconf_core.exit.front import exact_front, paired_front, write_front
from dynconf_core.exit.readout_fit import large_enough_for_readout
from dynconf_core.experiment.job import Handle, Inputs, Job
from dynconf_core.experiment.plan import Plan
from dynconf_core.failing import failure_point
from dynconf_core.traces.schema import Traces
from dynconf_tasks.listening import Listener
from dynconf_tasks.stage import TASK_OPTIONS, run
from dynconf_tasks.study.searches import keep_search
from dynconf_tasks.study.storage import title
from dynconf_tasks.trials import Trial, read_trials, write_trials

if TYPE_CHECKING:
    import optuna

ALPHAS = (0.3, 300.0)
"""Range of useful alphas for a trained network's logits summed over up to 64 time steps."""
EXPONENTS = (-1.0, 1.0)
DEMO = {"form": "sum", "alpha": 30.0}
"""The smoothing in the authors' demo, used for the first trial."""


@task(name="search", task_run_name="{job.plan.setting} · search", **TASK_OPTIONS)
def search(job: Job, inputs: Inputs) -> State[Handle] | Handle:
    """Choose the score and threshold with the fewest mean steps whose expected loss is allowed."""
    plan = job.plan

    def write(folder: Path, work: Path, listener: Listener) -> Mapping[str, Any]:
        traces = Traces.load(job.context.folder(inputs["calibration"]))
        found = _tried(traces, job, work, listener)
        rule, choice = choose(found, traces, plan.search.max_drop, plan.seed)
        rule.save(folder / "rule.json", choice.to_json())
        scored = next(calibration_scored([found[choice.index]], traces))
        write_front(exact_front(*scored, traces.lengths), folder / "front.csv")
        return {"trials": len(found), "measure": rule.measure.name, **vars(choice.calibration)}

    return run("search", job, inputs, write)


def _tried(traces: Traces, job: Job, work: Path, listener: Listener) -> list[Candidate]:
    """All candidates among which the rule is chosen."""
    plan = job.plan
    measures = measures_of(measures_tried(plan.search.rule))
    fixed: dict[str, Smoothing] = {}
    if plan.search.smoothing is not None and plan.search.alpha is not None:
        smoothing = Smoothing.from_dict({"form": plan.search.smoothing, "alpha": plan.search.alpha})
        fixed = {measure.name: smoothing for measure in measures if measure.reads_smoothing}
    wanted = plan.search.readout
    plain = [] if wanted == DECODED else measures
    studied = [one for one in plain if one.searches_smoothing and one.name not in fixed and large_enough(traces, one)]
    found: list[Candidate] = []
    for measure in studied:
        name = title(plan.setting, measure.name, plan.profile, work.name[:8])
        tried, study = _studied(traces, measure, plan, work / "trials.json", listener)
        found += tried
        full, promised = float(traces.correct()[:, -1].mean()), promised_loss(traces.samples, plan.search.max_drop)
        losses = [full - trial.values[0] for trial in study.trials]
        keep_search(job.context.home, name, study.trials, losses, promised)
    rest = [measure for measure in plain if measure not in studied]
    if rest:
        found += candidates(traces, plan.seed, rest, fixed, PLAIN)
    behind = [measure for measure in measures if wanted == DECODED or measure.name not in fixed]
    if wanted == DECODED or (wanted == CHOOSE and behind and large_enough_for_readout(traces)):
        behind = [measure for measure in behind if wanted == DECODED or large_enough(traces, measure)]
        found += candidates(traces, plan.seed, behind, fixed, DECODED) if behind else []
    return found


def _studied(
    traces: Traces, measure: ConfidenceMeasure, plan: Plan, file: Path, listener: Listener
) -> "tuple[list[Candidate], optuna.Study]":
    """One measure with the smoothing of every trial, and their study; those that ``file`` holds are replayed, not computed."""
    import optuna

    logging.getLogger("optuna").setLevel(logging.WARNING)
    study = optuna.create_study(directions=["maximize", "minimize"])
    recorded = read_trials(file)
    done = recorded.setdefault(measure.name, [])
    full = float(traces.correct()[:, -1].mean())

    def objectives(tried: Candidate) -> tuple[float, float]:
        front = paired_front(*next(calibration_scored([tried], traces)), traces.lengths)
        point = promised_point(front, plan.search.max_drop)
        listener(number + 1, plan.search.trials, f"{front.mean_steps[point]:.2f} mean steps")
        return float(full - front.loss[point]), float(front.mean_steps[point])

    found = []
    for number in range(plan.search.trials):
        known = done[number] if number < len(done) else None
        if known is not None or number == 0:
            study.enqueue_trial(DEMO if known is None else dict(known.params))
        # A new sampler for each trial, so that its proposal depends on the trials before it and not on when the study began.
        study.sampler = optuna.samplers.TPESampler(seed=(plan.seed * 1_000_003 + number) % 2**32)
        trial = study.ask()
        found.append(Candidate.fitted(measure, _suggested(trial, plan), traces, plan.seed))
        values = objectives(found[-1]) if known is None else known.values
        study.tell(trial, values)
        if known is None:
            done.append(Trial(trial.params, values))
            write_trials(file, recorded)
            failure_point("search.trial")
    return found, study


def _suggested(trial: "optuna.Trial", plan: Plan) -> Smoothing:
    form = plan.search.smoothing or trial.suggest_categorical("form", list(ALL_FORMS))
    alpha = plan.search.alpha or trial.suggest_float("alpha", *ALPHAS, log=True)
    exponent = trial.suggest_float("exponent", *EXPONENTS) if form == "power" else None
    return Smoothing.from_dict({"form": form, "alpha": alpha, "exponent": exponent})
