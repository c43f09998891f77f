"""Stage ``search``: the exit rule, chosen on the calibration traces alone.

Optuna looks for the smoothing (its form, alpha and exponent), with two aims, high accuracy and few mean steps; for each
smoothing the threshold is not searched but solved, by the exact front. Measures without a smoothing (patience, the learned
score) need no search. Among all that was tried the rule is chosen by cross-fitting, so that what it is allowed to lose is what
it loses in expectation. Artefact: ``rule.json``, ``front.csv``. The study stays in the home's journal, under the key.
"""

import logging
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prefect import task
from prefect.states import State

from dynconf_core.choosing.candidates import Candidate, calibration_scores, candidates
from dynconf_core.choosing.comparison import choose
from dynconf_core.choosing.selection import promised_point
from dynconf_core.confidence.scores import MEASURES
from dynconf_core.confidence.smoothing import ALL_FORMS, Smoothing
from dynconf_core.exit.front import exact_front, paired_front
from dynconf_core.exit.front_file import write_front
from dynconf_core.experiment.plan import Plan
from dynconf_core.traces.schema import Traces
from dynconf_tasks.listening import Listener
from dynconf_tasks.stage import TASK_OPTIONS, Handle, Stage, Workplace

ALPHAS = (0.3, 300.0)
"""Between these every useful alpha lies for logits of a trained network summed over up to 64 steps."""
EXPONENTS = (-1.0, 1.0)
DEMO = {"form": "sum", "alpha": 30.0}
"""The smoothing of the authors' demo: the first trial."""
SMOOTHED = ("max_softmax", "entropy")
"""Measures whose smoothing Optuna looks for."""


def code(plan: Plan) -> tuple[Path, ...]:
    """Where this stage's code begins."""
    return (Path(__file__),)


def stage(plan: Plan, calibration: Handle) -> Stage:
    """The stage of this plan."""
    config = {**asdict(plan.search), "seed": plan.seed}
    return Stage("search", plan.setting, config, {"calibration": calibration}, code(plan))


@task(name="search", task_run_name="{plan.setting} · search", **TASK_OPTIONS)
def search(plan: Plan, work: Workplace, calibration: Handle) -> State[Handle] | Handle:
    """Choose the score and the threshold with the fewest mean steps at no more than the allowed loss, in expectation."""
    this = stage(plan, calibration)

    def write(folder: Path, listener: Listener) -> Mapping[str, Any]:
        traces = Traces.load(calibration.folder)
        found = _tried(traces, plan, work.home / "optuna.journal", this.key().key, listener)
        rule, choice = choose(found, traces, plan.search.max_drop, plan.seed)
        rule.save(folder / "rule.json", choice.to_json())
        scores = next(calibration_scores([found[choice.index]], traces))
        write_front(exact_front(scores, traces.correct()), folder / "front.csv")
        return {"trials": len(found), "measure": rule.measure, **vars(choice.calibration)}

    return this.run(work, write)


def _tried(traces: Traces, plan: Plan, journal: Path, name: str, listener: Listener) -> list[Candidate]:
    """Every score that may be chosen."""
    wanted = MEASURES if plan.search.rule == "best" else (plan.search.rule,)
    found: list[Candidate] = []
    for measure in wanted:
        if plan.search.smoothing is not None and plan.search.alpha is not None and measure not in ("patience", "learned"):
            found.append(Candidate(measure, Smoothing(plan.search.smoothing, plan.search.alpha)))
        elif measure in SMOOTHED:
            found += _studied(traces, measure, plan, journal, f"{name}-{measure}", listener)
        else:
            found += candidates(traces, plan.seed, (measure,))
    return found


def _studied(traces: Traces, measure: str, plan: Plan, journal: Path, name: str, listener: Listener) -> list[Candidate]:
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
        scores = Candidate(measure, Smoothing(form, alpha, exponent)).scores(traces)
        front = paired_front(scores, correct)
        point = promised_point(front, plan.search.max_drop)
        listener(trial.number + 1, plan.search.trials, f"{front.mean_steps[point]:.2f} mean steps")
        return float(correct[:, -1].mean() - front.loss[point]), float(front.mean_steps[point])

    if finished < plan.search.trials:
        study.optimize(objective, callbacks=[MaxTrialsCallback(plan.search.trials, states=(TrialState.COMPLETE,))])
    return [
        Candidate(measure, _smoothing(plan, trial.params))
        for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    ]


def _smoothing(plan: Plan, params: Mapping[str, Any]) -> Smoothing:
    form = plan.search.smoothing or params["form"]
    return Smoothing(form, plan.search.alpha or params["alpha"], params.get("exponent"))
