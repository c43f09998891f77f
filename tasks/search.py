"""Stage ``search``: the exit rule, chosen on the calibration traces alone.

Optuna looks for the smoothing (its form and alpha), with two aims, high accuracy and few mean steps; for each smoothing the
threshold is not searched but solved, by the exact front. Chosen is the smoothing whose operating point has the fewest mean
steps. Artefact: ``rule.json``, ``front.csv``, ``trials.csv``. The study stays in the home's journal, under the key.
"""

import csv
import json
import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prefect import task
from prefect.states import State

from dynconf_core.confidence.smoothing import FORMS, Smoothing
from dynconf_core.exit.front import Front, front_of
from dynconf_core.exit.rules import Rule
from dynconf_core.exit.selection import operating_point
from dynconf_core.plan import Plan, Search
from dynconf_core.traces import Traces
from tasks.listening import Listener
from tasks.stage import TASK_OPTIONS, Handle, Stage, Workplace

ALPHAS = (0.3, 300.0)
"""Between these every useful alpha lies for logits of a trained network summed over up to 64 steps."""
DEMO = {"form": "sum", "alpha": 30.0}
"""The smoothing of the authors' demo: the first trial."""


@dataclass(frozen=True)
class Candidate:
    """A smoothing with its operating point on the calibration traces."""

    smoothing: Smoothing
    threshold: float
    accuracy: float
    mean_steps: float


def code(plan: Plan) -> tuple[Path, ...]:
    """Where this stage's code begins."""
    return (Path(__file__),)


def stage(plan: Plan, calibration: Handle) -> Stage:
    """The stage of this plan."""
    config = {**asdict(plan.search), "seed": plan.seed}
    return Stage("search", plan.setting, config, {"calibration": calibration}, code(plan))


@task(name="search", task_run_name="{plan.setting} · search", **TASK_OPTIONS)
def search(plan: Plan, work: Workplace, calibration: Handle) -> State[Handle] | Handle:
    """Choose smoothing and threshold with the fewest mean steps at no more than the allowed loss of calibration accuracy."""
    this = stage(plan, calibration)

    def write(folder: Path, listener: Listener) -> Mapping[str, Any]:
        traces = Traces.load(calibration.folder)
        full = float(traces.correct()[:, -1].mean())
        candidates = _studied(traces, full, plan, work.home / "optuna.journal", this.key().key, listener)
        best = min(candidates, key=lambda found: (found.mean_steps, -found.accuracy))
        rule = Rule(plan.search.rule, best.smoothing, best.threshold)
        chosen = {"accuracy": best.accuracy, "mean_steps": best.mean_steps}
        record = {
            **rule.to_json(),
            "calibration": chosen,
            "calibrated": {
                "samples": traces.samples,
                "accuracy_at_full": full,
                "max_drop": plan.search.max_drop,
            },
        }
        (folder / "rule.json").write_text(json.dumps(record, indent=2))
        _write_front(front_of(traces, rule.measure, rule.smoothing), folder / "front.csv")
        _write_trials(candidates, folder / "trials.csv")
        return {"trials": len(candidates), **chosen}

    return this.run(work, write)


def candidate(traces: Traces, search: Search, full: float, smoothing: Smoothing) -> Candidate:
    """The operating point of one smoothing."""
    front = front_of(traces, search.rule, smoothing)
    point = operating_point(front, full, search.max_drop)
    return Candidate(
        smoothing,
        float(front.thresholds[point]),
        float(front.accuracy[point]),
        float(front.mean_steps[point]),
    )


def _studied(traces: Traces, full: float, plan: Plan, journal: Path, name: str, listener: Listener) -> list[Candidate]:
    """The candidates of every trial, those of an interrupted study included."""
    if plan.search.smoothing is not None and plan.search.alpha is not None:
        return [candidate(traces, plan.search, full, Smoothing(plan.search.smoothing, plan.search.alpha))]
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

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        form = plan.search.smoothing or trial.suggest_categorical("form", list(FORMS))
        alpha = plan.search.alpha or trial.suggest_float("alpha", *ALPHAS, log=True)
        found = candidate(traces, plan.search, full, Smoothing(form, alpha))
        listener(trial.number + 1, plan.search.trials, f"{found.mean_steps:.2f} mean steps")
        return found.accuracy, found.mean_steps

    if finished < plan.search.trials:
        study.optimize(objective, callbacks=[MaxTrialsCallback(plan.search.trials, states=(TrialState.COMPLETE,))])
    return [
        candidate(
            traces,
            plan.search,
            full,
            Smoothing(plan.search.smoothing or trial.params["form"], plan.search.alpha or trial.params["alpha"]),
        )
        for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    ]


def _write_front(front: Front, path: Path) -> None:
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("threshold", "accuracy", "mean_steps"))
        rows.writerows(zip(front.thresholds.tolist(), front.accuracy.tolist(), front.mean_steps.tolist(), strict=True))


def _write_trials(candidates: Sequence[Candidate], path: Path) -> None:
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("form", "alpha", "threshold", "accuracy", "mean_steps"))
        for found in candidates:
            smoothing = found.smoothing
            rows.writerow((smoothing.form, smoothing.alpha, found.threshold, found.accuracy, found.mean_steps))
