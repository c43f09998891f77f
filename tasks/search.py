"""Stage ``search``: the exit rule, chosen on the calibration traces alone.

For measures that ask for it, Optuna looks for the smoothing (its form, alpha and exponent), with two aims, high accuracy and
few mean steps; for each smoothing the threshold is not searched but solved, by the exact front. The others are tried with a few
smoothings of their own. Among all that was tried the rule is chosen by cross-fitting, so that what it is allowed to lose is
what it loses in expectation. Artefact: ``rule.json``, ``front.csv``. The study stays in the home's journal, under the key.
"""

import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect import State, task

from dynconf_core.choosing.candidates import Candidate, calibration_scores, candidates, large_enough, measures_tried
from dynconf_core.choosing.comparison import choose
from dynconf_core.choosing.selection import promised_point
from dynconf_core.confidence.measure import ConfidenceMeasure, measures_of
from dynconf_core.confidence.smoothing import ALL_FORMS, Smoothing
from dynconf_core.exit.front import exact_front, paired_front, write_front
from dynconf_core.experiment.job import Handle, Inputs, Job
from dynconf_core.experiment.plan import Plan
from dynconf_core.traces.schema import Traces
from dynconf_tasks.listening import Listener
from dynconf_tasks.stage import TASK_OPTIONS, run, run_key

ALPHAS = (0.3, 300.0)
"""Between these every useful alpha lies for logits of a trained network summed over up to 64 steps."""
EXPONENTS = (-1.0, 1.0)
DEMO = {"form": "sum", "alpha": 30.0}
"""The smoothing of the authors' demo: the first trial."""


@task(name="search", task_run_name="{job.plan.setting} · search", **TASK_OPTIONS)
def search(job: Job, inputs: Inputs) -> State[Handle] | Handle:
    """Choose the score and the threshold with the fewest mean steps at no more than the allowed loss, in expectation."""
    plan = job.plan

    def write(folder: Path, listener: Listener) -> Mapping[str, Any]:
        traces = Traces.load(inputs["calibration"].folder)
        found = _tried(traces, plan, job.context.journal, run_key("search", job, inputs), listener)
        rule, choice = choose(found, traces, plan.search.max_drop, plan.seed)
        rule.save(folder / "rule.json", choice.to_json())
        scores = next(calibration_scores([found[choice.index]], traces))
        write_front(exact_front(scores, traces.correct()), folder / "front.csv")
        return {"trials": len(found), "measure": rule.measure.name, **vars(choice.calibration)}

    return run("search", job, inputs, write)


def _tried(traces: Traces, plan: Plan, journal: Path, name: str, listener: Listener) -> list[Candidate]:
    """Every score that may be chosen."""
    measures = measures_of(measures_tried(plan.search.rule))
    fixed: dict[str, Smoothing] = {}
    if plan.search.smoothing is not None and plan.search.alpha is not None:
        smoothing = Smoothing.from_dict({"form": plan.search.smoothing, "alpha": plan.search.alpha})
        fixed = {measure.name: smoothing for measure in measures if measure.reads_smoothing}
    studied = [one for one in measures if one.searches_smoothing and one.name not in fixed and large_enough(traces, one)]
    found: list[Candidate] = []
    for measure in studied:
        found += _studied(traces, measure, plan, journal, f"{name}-{measure.name}", listener)
    rest = [measure for measure in measures if measure not in studied]
    return found + candidates(traces, plan.seed, rest, fixed) if rest else found


def _studied(
    traces: Traces, measure: ConfidenceMeasure, plan: Plan, journal: Path, name: str, listener: Listener
) -> list[Candidate]:
    """One measure with the smoothing of every trial, those of an interrupted study included."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend
    from optuna.study import MaxTrialsCallback
    from optuna.trial import TrialState

    logging.getLogger("optuna").setLevel(logging.WARNING)
    journal.parent.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        study_name=name,
        storage=JournalStorage(JournalFileBackend(str(journal))),
        directions=["maximize", "minimize"],
        load_if_exists=True,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names(["accuracy", "mean_steps"])
    finished = len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))
    # The same seed would repeat the start-up trials of the part that was done before an interruption.
    study.sampler = optuna.samplers.TPESampler(seed=(plan.seed * 1_000_003 + finished) % 2**32)
    if not study.trials:
        study.set_user_attr("setting", plan.setting)
        study.set_user_attr("profile", plan.profile)
        study.enqueue_trial(DEMO)
    correct = traces.correct()

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        form = plan.search.smoothing or trial.suggest_categorical("form", list(ALL_FORMS))
        alpha = plan.search.alpha or trial.suggest_float("alpha", *ALPHAS, log=True)
        exponent = trial.suggest_float("exponent", *EXPONENTS) if form == "power" else None
        smoothing = Smoothing.from_dict({"form": form, "alpha": alpha, "exponent": exponent})
        tried = Candidate.fitted(measure, smoothing, traces, plan.seed)
        front = paired_front(next(calibration_scores([tried], traces)), correct)
        point = promised_point(front, plan.search.max_drop)
        listener(trial.number + 1, plan.search.trials, f"{front.mean_steps[point]:.2f} mean steps")
        return float(correct[:, -1].mean() - front.loss[point]), float(front.mean_steps[point])

    if finished < plan.search.trials:
        study.optimize(objective, callbacks=[MaxTrialsCallback(plan.search.trials, states=(TrialState.COMPLETE,))])
    return [
        Candidate.fitted(measure, _smoothing(plan, trial.params), traces, plan.seed)
        for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    ]


def _smoothing(plan: Plan, params: Mapping[str, Any]) -> Smoothing:
    form, alpha = plan.search.smoothing or params["form"], plan.search.alpha or params["alpha"]
    return Smoothing.from_dict({"form": form, "alpha": alpha, "exponent": params.get("exponent")})
