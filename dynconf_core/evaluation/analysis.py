"""The analysis of traces: the exit rule, the time steps it saves, the accuracy it loses, and a guarantee.

The rule is chosen on the calibration traces alone and judged on the test traces. If a guarantee is asked for (epsilon and
delta), one half of the calibration traces chooses the rule, and the other half certifies a threshold for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from dynconf_core.arguments import instance
from dynconf_core.choosing.candidates import CHOOSE, candidates, check_readout
from dynconf_core.choosing.comparison import DROPS, checked_seed, compared
from dynconf_core.choosing.contest import Chosen, Contest
from dynconf_core.choosing.cross_fitting import Choice
from dynconf_core.choosing.entries import RuleEntry, recorded
from dynconf_core.choosing.group_guarantee import GroupGuarantee, certify_groups
from dynconf_core.choosing.guarantee import Guarantee, candidate_thresholds, certify
from dynconf_core.choosing.paths import Scored
from dynconf_core.confidence.calibration_error import calibration_over_time
from dynconf_core.confidence.measure import ConfidenceMeasure, MeasureLike, measure_of, own_measures
from dynconf_core.confidence.smoothing import Smoothing
from dynconf_core.confidence.temperature import fit_power
from dynconf_core.errors import InputError
from dynconf_core.evaluation.by_group import checked_groups, group_entries
from dynconf_core.evaluation.metrics import evaluate
from dynconf_core.evaluation.precautions import check_options, check_pair
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
from dynconf_core.evaluation.rule_warnings import (
    choice_warnings,
    class_warnings,
    guarantee_warnings,
    promise_warnings,
    sample_warnings,
)
from dynconf_core.evaluation.trace_warnings import trace_warnings
from dynconf_core.exit.by_class import figures_by_class
from dynconf_core.exit.front import Front, exact_front, paired_front, points_at
from dynconf_core.exit.judgement import ExitFigures, Loss
from dynconf_core.exit.oracles import oracles
from dynconf_core.exit.robustness import RobustnessMap, robustness_map
from dynconf_core.exit.rule import Rule
from dynconf_core.exit.shown import points_in_words
from dynconf_core.experiment.plan import MAX_DROP
from dynconf_core.traces.groups import Groups
from dynconf_core.traces.parts import LEAST_FOR_HALVES, Parts, Split, halves, taken
from dynconf_core.traces.schema import Traces

SHOWN_STEPS = 4
"""Number of time steps, besides the exit, for which reliability diagrams are made."""


@dataclass(frozen=True, eq=False)
class Analysis:
    """The result of an analysis: its record, and the data for its figures.

    Attributes:
        record: all numbers.
        rule: the exit rule that one gets: the chosen one or, if a guarantee was asked for, the certified one.
        uncertified: the rule as it was chosen; the same as ``rule`` without a guarantee.
        choice: how it was chosen.
        front: all operating points of the chosen score on the calibration traces.
        test_fronts: by measure, all operating points on the test traces; for display only.
        exit_steps: the exit step of each test sample under ``rule``, ``(M,)``, from 1.
        guarantee: the guarantee, if one was asked for.
        robustness: robustness of max softmax on the test traces.
    """

    record: AnalysisRecord
    rule: Rule
    uncertified: Rule
    choice: Choice
    front: Front
    test_fronts: dict[str, Front]
    exit_steps: NDArray[np.int64]
    guarantee: Guarantee | None
    robustness: RobustnessMap

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader of the figures has to know, one sentence each."""
        return self.record.warnings

    def __str__(self) -> str:
        """The rule and its figures on the test traces, in two lines; the guarantee, if there is one, and each warning in a
        line of its own."""
        rule, judged = self.rule, self.record.exit
        lines = [
            f"{rule.measure.name} {rule.in_words()}",
            f"test: {100 * judged.accuracy:.2f} % @ {judged.mean_steps:.2f} of {self.record.full_steps_text} time steps, "
            f"{100 * judged.latency_saving:.1f} % fewer; {points_in_words(judged.loss)}",
            *([] if self.guarantee is None else [self.guarantee.statement()]),
            *(f"warning: {one}" for one in self.warnings),
        ]
        return "\n".join(lines)


def analyse(
    calibration: Traces,
    test: Traces,
    *,
    epsilon: float | None = None,
    delta: float | None = None,
    max_drop: float = MAX_DROP,
    measures: Sequence[MeasureLike] | None = None,
    measure: MeasureLike | None = None,
    smoothing: Smoothing | None = None,
    seed: int = 0,
    drops: Sequence[float] = DROPS,
    split: Split | None = None,
    readout: str = CHOOSE,
    groups: Groups | str | None = None,
) -> Analysis:
    """Analyse the calibration and test traces of an SNN.

    Args:
        calibration: the traces on which rules are chosen.
        test: the traces on which they are judged.
        epsilon, delta: parameters of the guarantee; both or neither.
        max_drop: the accuracy that the chosen rule may lose in expectation, a fraction.
        measures: the measures to compare; None compares all registered ones but rivals.
        measure: the measure of the chosen rule, compared as well; None chooses the one with the fewest mean steps.
        smoothing: the smoothing of ``measure``; None chooses it. The threshold is always chosen.
        seed: seed of folds, halves and bootstraps.
        drops: the allowed drops for the comparison at equal accuracy.
        split: if one set of traces was split, which samples went where; for the record.
        readout: "plain" (rules read the sum of the logits), "decoded" (they read it behind a readout fitted for each step) or
            "choose" (the better of the two on calibration).
        groups: the guarantee is to hold for every group of samples: "class", or groups that are known; None: for all together.

    Raises:
        InputError: if the traces do not fit together, or an option cannot work.
    """
    check_options(epsilon, delta, max_drop)
    seed = checked_seed(measures, drops, seed)
    if measure is None and measures is not None and not measures:
        raise InputError("measures=[]: give at least one, or None for all.")
    if smoothing is not None:
        instance("smoothing", smoothing, Smoothing, 'give a Smoothing, such as Smoothing("sum", 1.0), or None')
    check_pair(calibration, test)
    grouped = checked_groups(groups, calibration, test, epsilon)
    parts = None
    if epsilon is not None and calibration.samples >= LEAST_FOR_HALVES:
        parts = halves(calibration.samples, seed)
    choosing, certifying = calibration, None
    if parts is not None:
        choosing, certifying = (taken(calibration, part) for part in parts)
    taking_part: list[MeasureLike] = list(own_measures() if measures is None else measures)
    wanted = None if measure is None else measure_of(measure)
    check_readout(readout, wanted)
    fixed = fixed_smoothing(wanted, smoothing)
    if wanted is not None:
        taking_part.append(wanted)
    contest = Contest(candidates(choosing, seed, taking_part, fixed, readout), choosing, test, seed)
    if wanted is not None and wanted.name not in contest.measures:
        candidates(choosing, seed, (wanted,), readout=readout)  # raises an error that states what the measure needs
    chosen = contest.choose(max_drop, None if wanted is None else wanted.name)
    best_of = {name: contest.choose(max_drop, name) for name in contest.measures}
    best_of[chosen.rule.measure.name] = chosen
    right = calibration.correct()
    known = {name: _scored(contest, own.index, parts, certifying, calibration) for name, own in best_of.items()}
    fronts = {name: exact_front(*scored, calibration.lengths) for name, scored in known.items()}
    guarantee, by_group = None, None
    if epsilon is not None and delta is not None:
        of_half = None if grouped is None or parts is None else replace(grouped, calibration=grouped.calibration[parts[1]])
        guarantee, by_group = _certified(contest, chosen.index, certifying, epsilon, delta, of_half)
    got = chosen.rule if guarantee is None else replace(chosen.rule, threshold=guarantee.threshold)
    exiting = contest.exiting(chosen.index, got.threshold)
    figures = evaluate(test, calibration, got, seed=seed)
    promise = None if guarantee is None else _guarantee_entry(guarantee, contest, chosen, parts)
    if promise is not None and by_group is not None and grouped is not None:
        promise = replace(promise, groups=group_entries(by_group, contest, chosen, exiting, grouped.test))
    by_class = figures_by_class(contest.test_scored(chosen.index)[1], exiting, test.labels)
    how = chosen.choice.calibrated
    warnings = [*trace_warnings(calibration, test), *choice_warnings(chosen.choice), *class_warnings(by_class, how)]
    if guarantee is not None and promise is not None:
        warnings += guarantee_warnings(guarantee, promise.test)
    else:
        warnings += [*sample_warnings(how), *promise_warnings(chosen.choice, figures.exit)]
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
        steps_at_t=test.steps_at_t(),
        oracles=OraclesOfSplits(oracles(known[chosen.rule.measure.name][1], calibration.lengths), figures.oracles),
        rules=tuple(_entry(contest, own, fronts[name], right) for name, own in best_of.items()),
        chosen=list(best_of).index(chosen.rule.measure.name),
        guarantee=promise,
        exit=ExitFigures(**{field.name: getattr(figures.exit, field.name) for field in fields(ExitFigures)}),
        baselines=figures.baselines,
        ann_accuracy=figures.ann_accuracy,
        reference_accuracy=figures.reference_accuracy,
        spikes_per_inference=figures.spikes_per_inference,
        spikes_per_neuron=figures.spikes_per_neuron,
        synaptic_operations_per_inference=figures.synaptic_operations_per_inference,
        multiply_accumulates=figures.multiply_accumulates,
        energy=figures.energy,
        oracle_gap=figures.oracle_gap,
        reliability=_reliability(choosing, test, got, exiting),
        robustness=robustness.widths(),
        least_latency=LeastLatency(int(exiting.min()), float((exiting == exiting.min()).mean())),
        comparison=compared(contest, drops).rows,
        warnings=tuple(warnings),
        by_class=by_class,
    )
    return Analysis(
        record,
        got,
        chosen.rule,
        chosen.choice,
        fronts[chosen.rule.measure.name],
        {name: contest.test_front(own.index) for name, own in best_of.items()},
        exiting,
        guarantee,
        robustness,
    )


def fixed_smoothing(measure: ConfidenceMeasure | None, smoothing: Smoothing | None) -> dict[str, Smoothing]:
    """``smoothing`` by the name of the measure it is fixed for; empty if it is None.

    Raises:
        InputError: if there is no measure, or one that uses no smoothing.
    """
    if smoothing is None:
        return {}
    if measure is None or not measure.reads_smoothing:
        why = "no measure is given" if measure is None else f"the measure {measure.name!r} uses no smoothing"
        raise InputError(f"smoothing = {smoothing.form} with alpha = {smoothing.alpha}: {why}; leave it out.")
    return {measure.name: smoothing}


def _scored(contest: Contest, index: int, parts: Parts | None, certifying: Traces | None, calibration: Traces) -> Scored:
    """A candidate on all calibration traces, including a half reserved for certifying.

    What was fitted is out of fold: each sample is scored, and its prediction read, by parameters fitted on other samples.
    """
    scores, correct = contest.scored[index]
    if parts is not None and certifying is not None:
        choosing, unseen = contest.scored[index], contest.found[index].scored(certifying)
        shape = calibration.samples, calibration.time_steps
        scores, correct = np.empty(shape), np.empty(shape, dtype=np.bool_)
        for part, (of_part, right) in zip(parts, (choosing, unseen), strict=True):
            scores[part], correct[part] = of_part, right
    return scores, correct


def _entry(contest: Contest, own: Chosen, front: Front, right: NDArray[np.bool_]) -> RuleEntry:
    """The entry of a rule: how it was chosen, and its figures on all calibration traces and on the test traces."""
    point = int(points_at(front, own.rule.threshold))
    accuracy = float(front.accuracy[point])
    return RuleEntry(
        **recorded(own.rule),
        calibration=Loss(accuracy, float(front.mean_steps[point]), float(right[:, -1].mean()) - accuracy),
        cross_fitted=own.choice.cross_fitted,
        calibrated=own.choice.calibrated,
        test=contest.judged(own.index, own.rule.threshold),
    )


def _certified(
    contest: Contest, index: int, certifying: Traces | None, epsilon: float, delta: float, groups: Groups | None
) -> tuple[Guarantee, tuple[GroupGuarantee, ...] | None]:
    """The guarantee of the lowest threshold that the half reserved for certifying certifies; with ``groups`` of these samples,
    for each of them."""
    seen = contest.calibration.trained_on_calibration
    if certifying is None:  # too few samples for two halves: nothing can be certified
        return certify(*contest.scored[index], [], epsilon, delta, seen, contest.calibration.lengths), None
    front = paired_front(*contest.scored[index], contest.calibration.lengths)
    scored, thresholds = contest.found[index].scored(certifying), candidate_thresholds(front, epsilon)
    if groups is None:
        return certify(*scored, thresholds, epsilon, delta, seen, certifying.lengths), None
    labels, known = groups.calibration, groups.known_at_exit
    return certify_groups(*scored, labels, thresholds, epsilon, delta, seen, certifying.lengths, known)


def _guarantee_entry(guarantee: Guarantee, contest: Contest, chosen: Chosen, parts: Parts | None) -> GuaranteeEntry:
    halved = None if parts is None else Halves(tuple(parts[0].tolist()), tuple(parts[1].tolist()))
    return GuaranteeEntry(
        **vars(guarantee.record()),
        threshold_shown=float(chosen.rule.measure.shown(guarantee.threshold)),
        test=contest.judged(chosen.index, guarantee.threshold),
        halves=halved,
    )


def _reliability(choosing: Traces, test: Traces, rule: Rule, exiting: NDArray[np.int64]) -> Reliability:
    """Reliability of the softmax that the rule uses or, if it uses none, of one fitted on the calibration traces; behind the
    rule's readout."""
    choosing, test = rule.decoded(choosing), rule.decoded(test)
    if rule.measure.of_softmax:
        smoothing = rule.smoothing
    else:
        try:
            smoothing = fit_power(choosing)
        except InputError:  # constant logits: any smoothing will do
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
