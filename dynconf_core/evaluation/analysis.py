"""The analysis of somebody's traces: what can be saved, by which rule, at what loss, with what certainty.

The calibration traces choose; the test traces judge and choose nothing. With epsilon and delta one half of the calibration
traces chooses the rule and the other half, which chose nothing, certifies a threshold for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from dynconf_core.choosing.candidates import candidates
from dynconf_core.choosing.comparison import DROPS, compared
from dynconf_core.choosing.contest import Chosen, Contest
from dynconf_core.choosing.cross_fitting import Choice
from dynconf_core.choosing.entries import RuleEntry, recorded
from dynconf_core.choosing.guarantee import Guarantee, candidate_thresholds, certify
from dynconf_core.confidence.calibration_error import calibration_over_time
from dynconf_core.confidence.measure import MEASURES, ConfidenceMeasure, MeasureLike, measure_of
from dynconf_core.confidence.smoothing import Smoothing
from dynconf_core.confidence.temperature import fit_power
from dynconf_core.errors import InputError
from dynconf_core.evaluation.metrics import evaluate
from dynconf_core.evaluation.precautions import check_options, check_pair, warnings_about
from dynconf_core.evaluation.record import (
    AccuracyAtT,
    AnalysisRecord,
    Bins,
    GuaranteeEntry,
    Halves,
    LeastLatency,
    OraclesOfSplits,
    Reliability,
)
from dynconf_core.exit.front import Front, exact_front, paired_front, points_at
from dynconf_core.exit.judgement import ExitFigures, Loss
from dynconf_core.exit.oracles import oracle_gap, oracles
from dynconf_core.exit.robustness import RobustnessMap, robustness_map
from dynconf_core.exit.rule import Rule
from dynconf_core.traces.parts import LEAST_FOR_HALVES, Parts, Split, halves, taken
from dynconf_core.traces.schema import Traces

SHOWN_STEPS = 4
"""Steps, beside the exit, at which reliability diagrams are made."""


@dataclass(frozen=True, eq=False)
class Analysis:
    """What an analysis found: the record, and what pictures are drawn from.

    Attributes:
        record: every figure.
        rule: the chosen one.
        choice: how it was chosen.
        front: of the chosen score on the calibration traces, every operating point.
        test_fronts: by the name of the measure, every operating point on the test traces; to be shown.
        exit_steps: (M,) where each test sample exits by the chosen rule, from 1.
        guarantee: where it was asked for.
        robustness: of max softmax on the test traces.
    """

    record: AnalysisRecord
    rule: Rule
    choice: Choice
    front: Front
    test_fronts: dict[str, Front]
    exit_steps: NDArray[np.int64]
    guarantee: Guarantee | None
    robustness: RobustnessMap


def analyse(
    calibration: Traces,
    test: Traces,
    *,
    epsilon: float | None = None,
    delta: float | None = None,
    max_drop: float = 0.0,
    measures: Sequence[MeasureLike] | None = None,
    measure: MeasureLike | None = None,
    smoothing: Smoothing | None = None,
    seed: int = 0,
    drops: Sequence[float] = DROPS,
    split: Split | None = None,
) -> Analysis:
    """Analyse two sets of traces of one SNN.

    Args:
        calibration: chooses.
        test: judges.
        epsilon, delta: of the guarantee; both or neither.
        max_drop: accuracy that may be lost in expectation by the chosen rule, a fraction.
        measures: that take part in the comparison; None: all that are known.
        measure: of the chosen rule, which takes part too; None: the one with the fewest mean steps.
        smoothing: of that measure; None: it is chosen. The threshold always is.
        seed: of folds, halves and bootstraps.
        drops: of the comparison at equal accuracy.
        split: which samples are which, where one set of traces was split; for the record.

    Raises:
        InputError: where the traces do not fit together, or an option cannot work.
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
    taking_part: list[MeasureLike] = list(MEASURES.names() if measures is None else measures)
    wanted = None if measure is None else measure_of(measure)
    fixed = fixed_smoothing(wanted, smoothing)
    if wanted is not None:
        taking_part.append(wanted)
    contest = Contest(candidates(choosing, seed, taking_part, fixed), choosing, test, seed)
    if wanted is not None and wanted.name not in contest.measures:
        candidates(choosing, seed, (wanted,))  # raises: it says what the measure needs
    chosen = contest.choose(max_drop, None if wanted is None else wanted.name)
    best_of = {name: contest.choose(max_drop, name) for name in contest.measures}
    best_of[chosen.rule.measure.name] = chosen
    right = calibration.correct()
    fronts = {name: _front(contest, own.index, parts, certifying, right) for name, own in best_of.items()}
    guarantee = None
    if epsilon is not None and delta is not None:
        guarantee = _certified(contest, chosen.index, certifying, epsilon, delta)
    exiting = contest.exiting(chosen.index, chosen.rule.threshold)
    figures = evaluate(test, calibration, chosen.rule, seed=seed)
    robustness = robustness_map(test)
    record = AnalysisRecord(
        time_steps=test.time_steps,
        classes=test.classes,
        calibration=calibration.samples,
        test=test.samples,
        seed=seed,
        split=split,
        max_drop=max_drop,
        accuracy_at_t=AccuracyAtT(tuple(right.mean(axis=0).tolist()), figures.accuracy_at_t),
        oracles=OraclesOfSplits(oracles(right), figures.oracles),
        rules=tuple(_entry(contest, own, fronts[name], right) for name, own in best_of.items()),
        chosen=list(best_of).index(chosen.rule.measure.name),
        guarantee=None if guarantee is None else _guarantee_entry(guarantee, contest, chosen.index, parts),
        exit=ExitFigures(**{field.name: getattr(figures.exit, field.name) for field in fields(ExitFigures)}),
        baselines=figures.baselines,
        ann_accuracy=figures.ann_accuracy,
        reference_accuracy=figures.reference_accuracy,
        spikes_per_inference=figures.spikes_per_inference,
        spikes_per_neuron=figures.spikes_per_neuron,
        synaptic_operations_per_inference=figures.synaptic_operations_per_inference,
        multiply_accumulates=figures.multiply_accumulates,
        energy=figures.energy,
        oracle_gap=oracle_gap(contest.test_right, figures.exit),
        reliability=_reliability(choosing, test, chosen.rule, exiting),
        robustness=robustness.widths(),
        least_latency=LeastLatency(int(exiting.min()), float((exiting == exiting.min()).mean())),
        comparison=compared(contest, drops).rows,
        warnings=tuple(warnings),
    )
    return Analysis(
        record,
        chosen.rule,
        chosen.choice,
        fronts[chosen.rule.measure.name],
        {name: contest.test_front(own.index) for name, own in best_of.items()},
        exiting,
        guarantee,
        robustness,
    )


def fixed_smoothing(measure: ConfidenceMeasure | None, smoothing: Smoothing | None) -> dict[str, Smoothing]:
    """``smoothing`` by the name of the measure that it is fixed for; empty where there is none.

    Raises:
        InputError: where there is no measure, or one that reads no smoothing.
    """
    if smoothing is None:
        return {}
    if measure is None or not measure.reads_smoothing:
        whose = "of a rule whose measure is given" if measure is None else f"not read by the measure {measure.name!r}"
        raise InputError(f"smoothing = {smoothing.form} with alpha = {smoothing.alpha} is {whose}: leave it out.")
    return {measure.name: smoothing}


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


def _entry(contest: Contest, own: Chosen, front: Front, right: NDArray[np.bool_]) -> RuleEntry:
    """A rule, how it was chosen, and its figures on all calibration traces and on the test traces."""
    point = int(points_at(front, own.rule.threshold))
    accuracy = float(front.accuracy[point])
    return RuleEntry(
        **recorded(own.rule),
        calibration=Loss(accuracy, float(front.mean_steps[point]), float(right[:, -1].mean()) - accuracy),
        cross_fitted=own.choice.cross_fitted,
        calibrated=own.choice.calibrated,
        test=contest.judged(own.index, own.rule.threshold),
    )


def _certified(contest: Contest, index: int, certifying: Traces | None, epsilon: float, delta: float) -> Guarantee:
    """The lowest threshold of the chosen score that the half certifies which chose nothing."""
    seen = contest.calibration.trained_on_calibration
    if certifying is None:  # too few to be parted: nothing can be promised
        return certify(contest.scores[index], contest.right, [], epsilon, delta, seen)
    thresholds = candidate_thresholds(paired_front(contest.scores[index], contest.right), epsilon)
    return certify(contest.found[index].scores(certifying), certifying.correct(), thresholds, epsilon, delta, seen)


def _guarantee_entry(guarantee: Guarantee, contest: Contest, index: int, parts: Parts | None) -> GuaranteeEntry:
    halved = None if parts is None else Halves(tuple(parts[0].tolist()), tuple(parts[1].tolist()))
    return GuaranteeEntry(**vars(guarantee.record()), test=contest.judged(index, guarantee.threshold), halves=halved)


def _reliability(choosing: Traces, test: Traces, rule: Rule, exiting: NDArray[np.int64]) -> Reliability:
    """Of the softmax that the rule looks at; where it looks at none, of the likeliest one on the calibration traces."""
    if rule.measure.of_softmax:
        smoothing = rule.smoothing
    else:
        try:
            smoothing = fit_power(choosing)
        except InputError:  # constant logits: any will do
            smoothing = Smoothing("sum", 1.0)
    marks = sorted({max(1, round(test.time_steps * share)) for share in np.linspace(0.25, 1, SHOWN_STEPS)})
    found = calibration_over_time(test, smoothing, exiting, marks)
    diagrams = {**{str(step): diagram for step, diagram in found.diagrams.items()}, "exit": found.diagram_at_exit}
    return Reliability(
        smoothing,
        found.ece_at_t,
        found.nll_at_t,
        found.ece_at_exit,
        found.nll_at_exit,
        {step: Bins(*diagram.columns()) for step, diagram in diagrams.items()},
    )
