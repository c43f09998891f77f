"""The whole study of somebody's traces: what can be saved, by which rule, at what loss, with what certainty.

The calibration traces choose; the test traces judge and choose nothing. With epsilon and delta one half of the calibration
traces chooses the rule and the other half, which chose nothing, certifies a threshold for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dynconf_core.choosing.candidates import Candidate, candidates
from dynconf_core.choosing.comparison import DROPS, compared
from dynconf_core.choosing.contest import Chosen, Contest
from dynconf_core.choosing.cross_fitting import CrossFitted
from dynconf_core.choosing.guarantee import Guarantee, candidate_thresholds, certify, halves
from dynconf_core.confidence.calibration_error import calibration_over_time
from dynconf_core.confidence.scores import MEASURES
from dynconf_core.confidence.smoothing import Smoothing
from dynconf_core.confidence.temperature import fit_power
from dynconf_core.errors import InputError
from dynconf_core.evaluation.metrics import evaluate
from dynconf_core.evaluation.precautions import check_options, check_pair, warnings_about
from dynconf_core.exit.front import Front, exact_front, paired_front, points_at
from dynconf_core.exit.oracles import oracle_gap, oracles
from dynconf_core.exit.robustness import RobustnessMap, robustness_map
from dynconf_core.exit.rule import Rule
from dynconf_core.results.json_text import plain
from dynconf_core.traces.parts import LEAST_FOR_HALVES, Parts, taken
from dynconf_core.traces.parts import split_in_two as split_in_two
from dynconf_core.traces.schema import Traces

SCHEMA = 1
SHOWN_STEPS = 4
"""Steps, beside the exit, at which reliability diagrams are made."""
ALSO = (
    "ann_accuracy",
    "reference_accuracy",
    "spikes_per_inference",
    "spikes_per_neuron",
    "synaptic_operations_per_inference",
    "multiply_accumulates",
    "energy",
)
"""What the record takes from ``metrics.evaluate`` as it is, where the traces hold what it needs."""


@dataclass(frozen=True, eq=False)
class Analysis:
    """What a study found; ``to_json`` is ``analysis.json``.

    Attributes:
        record: the JSON.
        rule: the chosen one.
        choice: how it was chosen.
        front: of the chosen score on the calibration traces, every operating point.
        test_fronts: by the name of the rule, every operating point on the test traces; to be shown.
        exit_steps: (M,) where each test sample leaves by the chosen rule, from 1.
        guarantee: where it was asked for.
        robustness: of max softmax on the test traces.
        warnings: for people.
    """

    record: dict[str, Any]
    rule: Rule
    choice: CrossFitted
    front: Front
    test_fronts: dict[str, Front]
    exit_steps: NDArray[np.int64]
    guarantee: Guarantee | None
    robustness: RobustnessMap
    warnings: tuple[str, ...]

    @property
    def chosen(self) -> dict[str, Any]:
        """The entry of the chosen rule."""
        entry: dict[str, Any] = self.record["rules"][self.record["chosen"]]
        return entry

    def to_json(self) -> dict[str, Any]:
        """``analysis.json``."""
        return self.record


def analyse(
    calibration: Traces,
    test: Traces,
    *,
    epsilon: float | None = None,
    delta: float | None = None,
    max_drop: float = 0.0,
    measures: Sequence[str] = MEASURES,
    fixed: Rule | None = None,
    seed: int = 0,
    drops: Sequence[float] = DROPS,
) -> Analysis:
    """Study two sets of traces of one SNN.

    Args:
        calibration: chooses.
        test: judges.
        epsilon, delta: of the guarantee; both or neither.
        max_drop: accuracy that may be lost in expectation by the chosen rule, a fraction.
        measures: that take part.
        fixed: a rule whose measure and smoothing are taken as they are; its threshold is still chosen.
        seed: of folds, halves and bootstraps.
        drops: of the comparison at equal accuracy.

    Raises:
        InputError: where the traces do not fit together, or a wish cannot work.
    """
    check_options(epsilon, delta, max_drop)
    check_pair(calibration, test)
    warnings = warnings_about(calibration, test)
    parts = None
    if epsilon is not None and calibration.samples >= LEAST_FOR_HALVES:
        parts = halves(calibration.samples, seed)
    choosing, certifying = calibration, None
    if parts is not None:
        choosing, certifying = (taken(calibration, part) for part in parts)
    if fixed is not None:
        found = [Candidate(fixed.measure, fixed.smoothing, fixed.learned)]
    else:
        found = candidates(choosing, seed, measures)
    contest = Contest(found, choosing, test, seed)
    chosen = contest.choose(max_drop)
    best_of = {measure: contest.choose(max_drop, measure) for measure in contest.measures}
    best_of[chosen.rule.measure] = chosen
    right = calibration.correct()
    fronts = {measure: _front(contest, own.index, parts, certifying, right) for measure, own in best_of.items()}
    guarantee = None
    if epsilon is not None and delta is not None:
        guarantee = _certified(contest, chosen.index, certifying, epsilon, delta)
    steps = contest.exiting(chosen.index, chosen.rule.threshold)
    figures = evaluate(test, calibration, chosen.rule)
    judged = contest.judged(chosen.index, chosen.rule.threshold)
    exiting = {**{name: figure for name, figure in figures["exit"].items() if name != "rule"}, **judged}
    robustness = robustness_map(test)
    record = {
        "schema": SCHEMA,
        "time_steps": test.time_steps,
        "classes": test.classes,
        "calibration": calibration.samples,
        "test": test.samples,
        "seed": seed,
        "split": None,
        "max_drop": max_drop,
        "accuracy_at_t": {"calibration": right.mean(axis=0).tolist(), "test": figures["accuracy_at_t"]},
        "oracles": {"calibration": oracles(right), "test": figures["oracles"]},
        "rules": [_entry(contest, own, fronts[measure], right) for measure, own in best_of.items()],
        "chosen": list(best_of).index(chosen.rule.measure),
        "guarantee": None if guarantee is None else _guarantee_entry(guarantee, contest, chosen.index, parts),
        "exit": exiting,
        "baselines": figures["baselines"],
        **{name: figures[name] for name in ALSO if name in figures},
        "oracle_gap": oracle_gap(contest.test_right, exiting),
        "reliability": _reliability(choosing, test, chosen.rule, steps),
        "robustness": {**robustness.widths(), "tolerance": robustness.tolerance, "split": "test"},
        "least_latency": {"at_step": int(steps.min()), "share_of_samples": float((steps == steps.min()).mean())},
        "comparison": compared(contest, drops) if fixed is None else [],
        "warnings": warnings,
    }
    return Analysis(
        plain(record),
        chosen.rule,
        chosen.choice,
        fronts[chosen.rule.measure],
        {measure: contest.test_front(own.index) for measure, own in best_of.items()},
        steps,
        guarantee,
        robustness,
        tuple(warnings),
    )


def _front(contest: Contest, index: int, parts: Parts | None, certifying: Traces | None, right: NDArray[np.bool_]) -> Front:
    """Every operating point of a candidate on all calibration traces, also where a half of them had no say.

    A fitted score is taken of each sample by weights that had not seen it.
    """
    scores = contest.scores[index]
    if parts is not None and certifying is not None:
        choosing, unseen = scores, contest.found[index].scores(certifying)
        scores = np.empty(right.shape)
        scores[parts[0]], scores[parts[1]] = choosing, unseen
    return exact_front(scores, right)


def _entry(contest: Contest, own: Chosen, front: Front, right: NDArray[np.bool_]) -> dict[str, Any]:
    """A rule, how it was chosen, and its figures on all calibration traces and on the test traces."""
    point = int(points_at(front, own.rule.threshold))
    accuracy = float(front.accuracy[point])
    calibration = {
        "accuracy": accuracy,
        "mean_steps": float(front.mean_steps[point]),
        "loss": float(right[:, -1].mean()) - accuracy,
    }
    judged = contest.judged(own.index, own.rule.threshold)
    return {**own.rule.to_json(), **own.choice.to_json(), "calibration": calibration, "test": judged}


def _certified(contest: Contest, index: int, certifying: Traces | None, epsilon: float, delta: float) -> Guarantee:
    """The lowest threshold of the chosen score that the half certifies which chose nothing."""
    seen = contest.calibration.trained_on_calibration
    if certifying is None:  # too few to be parted: nothing can be promised
        return certify(contest.scores[index], contest.right, [], epsilon, delta, seen)
    thresholds = candidate_thresholds(paired_front(contest.scores[index], contest.right), epsilon)
    return certify(contest.found[index].scores(certifying), certifying.correct(), thresholds, epsilon, delta, seen)


def _guarantee_entry(guarantee: Guarantee, contest: Contest, index: int, parts: Parts | None) -> dict[str, Any]:
    halved = None if parts is None else {"choosing": parts[0].tolist(), "certifying": parts[1].tolist()}
    return {**guarantee.to_json(), "test": contest.judged(index, guarantee.threshold), "halves": halved}


def _reliability(choosing: Traces, test: Traces, rule: Rule, steps: NDArray[np.int64]) -> dict[str, Any]:
    """Of the softmax that the rule looks at; where it looks at none, of the likeliest one on the calibration traces."""
    if rule.measure in ("max_softmax", "entropy"):
        smoothing = rule.smoothing
    else:
        try:
            smoothing = fit_power(choosing)
        except InputError:  # constant logits: any will do
            smoothing = Smoothing("sum", 1.0)
    marks = sorted({max(1, round(test.time_steps * share)) for share in np.linspace(0.25, 1, SHOWN_STEPS)})
    return {"smoothing": smoothing.to_dict(), **calibration_over_time(test, smoothing, marks, steps)}
