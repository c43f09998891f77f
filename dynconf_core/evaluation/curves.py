"""What is drawn of a rule on the test traces beyond its figures: curves, maps, and its easiest and hardest samples.

Whoever has the traces computes them once. They are small, so that a picture or a report needs no traces.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dynconf_core.confidence.calibration_error import calibration_over_time
from dynconf_core.confidence.smoothing import Smoothing
from dynconf_core.evaluation.record import Bins
from dynconf_core.exit.front import exact_front, thinned
from dynconf_core.exit.oracles import oracle_curve
from dynconf_core.exit.robustness import RobustnessMap, robustness_map
from dynconf_core.exit.rule import Rule, exit_steps
from dynconf_core.traces.schema import Traces

CURVES = "curves.json"
"""The file of ``Curves`` beside an evaluation."""
MOST_POINTS = 400
SHOWN_SAMPLES = 4
PLACES = 6


@dataclass(frozen=True)
class Line:
    """Operating points: mean steps and accuracies, both ``(K,)``."""

    mean_steps: tuple[float, ...]
    accuracy: tuple[float, ...]


@dataclass(frozen=True)
class ReliabilityOverTime:
    """Reliability of the softmax under ``smoothing``, the rule's own.

    Attributes:
        smoothing: the smoothing.
        ece_at_t, nll_at_t: expected calibration error, and negative log likelihood in nats, at each time step: ``(T,)``.
        ece_at_exit: the error at each sample's exit.
        at_full, at_exit: reliability diagrams at T and at the exits.
    """

    smoothing: Smoothing
    ece_at_t: tuple[float, ...]
    nll_at_t: tuple[float, ...]
    ece_at_exit: float
    at_full: Bins
    at_exit: Bins


@dataclass(frozen=True)
class RobustnessGrid:
    """The robustness map of max softmax: accuracies and mean steps, a row for each alpha and a column for each threshold."""

    form: str
    alphas: tuple[float, ...]
    thresholds: tuple[float, ...]
    accuracy: tuple[tuple[float, ...], ...]
    mean_steps: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class SampleOverTime:
    """One sample over the time steps.

    Attributes:
        index: its place in the test split, from 0.
        label: its class.
        exit_step: where it exits, from 1.
        predictions: the predicted class at each step up to the sample's end.
        scores: the rule's score at each step.
        shown: the score as people read it, such as a softmax probability, at each step.
    """

    index: int
    label: int
    exit_step: int
    predictions: tuple[int, ...]
    scores: tuple[float, ...]
    shown: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Curves:
    """Curves of a rule on the test traces.

    Attributes:
        time_steps, samples: T and N.
        label: what ``threshold_shown`` and the samples' ``shown`` are, such as "softmax".
        threshold, threshold_shown: the rule's.
        front: operating points of all thresholds, at most some hundred.
        oracle: the best that any rule can reach for each budget of mean steps.
        reliability: None if the rule's score is not a softmax.
        robustness: see the type.
        easiest, hardest: the samples that exit first, the surest first, and those that exit last, the least sure first.
        mean_length: the mean number of steps of a sample, if some end before T.
    """

    time_steps: int
    samples: int
    label: str
    threshold: float
    threshold_shown: float
    front: Line
    oracle: Line
    reliability: ReliabilityOverTime | None
    robustness: RobustnessGrid
    easiest: tuple[SampleOverTime, ...]
    hardest: tuple[SampleOverTime, ...]
    mean_length: float | None = None


def curves_of(test: Traces, rule: Rule, robustness: RobustnessMap | None = None) -> Curves:
    """The curves of a rule on test traces.

    Args:
        test: the test traces.
        rule: the rule.
        robustness: their robustness map, if it is known: it takes longer than all the rest.
    """
    scores, correct, found = rule.scores(test), rule.correct(test), robustness or robustness_map(test)
    exits = exit_steps(scores, rule.threshold, test.lengths)
    easiest, hardest = _extremes(scores, exits)
    oracle = oracle_curve(correct)
    return Curves(
        time_steps=test.time_steps,
        samples=test.samples,
        label=rule.measure.label,
        threshold=rule.threshold,
        threshold_shown=rule.measure.shown(rule.threshold),
        front=_line(*thinned(exact_front(scores, correct, test.lengths), MOST_POINTS)),
        oracle=_line(*oracle),
        reliability=_reliability(test, rule, exits) if rule.measure.of_softmax else None,
        robustness=RobustnessGrid(
            found.form,
            _rounded(found.alphas),
            _rounded(found.thresholds),
            tuple(map(_rounded, found.accuracy)),
            tuple(map(_rounded, found.mean_steps)),
        ),
        easiest=tuple(_sample(test, rule, scores, exits, index) for index in easiest),
        hardest=tuple(_sample(test, rule, scores, exits, index) for index in hardest),
        mean_length=test.mean_length,
    )


def _extremes(scores: NDArray[np.float64], exits: NDArray[np.int64]) -> tuple[list[int], list[int]]:
    """The samples that exit first and those that exit last; no sample is among both."""
    at_exit = scores[np.arange(len(exits)), exits - 1]
    order = np.lexsort((-at_exit, exits))
    most = min(SHOWN_SAMPLES, len(order) // 2) or 1
    return order[:most].tolist(), order[most:][::-1][:most].tolist()


def _sample(test: Traces, rule: Rule, scores: NDArray[np.float64], exits: NDArray[np.int64], index: int) -> SampleOverTime:
    end = int(test.ends[index])
    outputs = rule.decoded(test).outputs(slice(index, index + 1))[0, :end]
    predictions = np.cumsum(outputs, axis=0).argmax(axis=1)
    return SampleOverTime(
        index,
        int(test.labels[index]),
        int(exits[index]),
        tuple(predictions.tolist()),
        tuple(float(f"{score:.6g}") for score in scores[index, :end].tolist()),
        tuple(rule.measure.shown(score) for score in scores[index, :end].tolist()),
    )


def _reliability(test: Traces, rule: Rule, exits: NDArray[np.int64]) -> ReliabilityOverTime:
    found = calibration_over_time(rule.decoded(test), rule.smoothing, exits, [test.time_steps])
    return ReliabilityOverTime(
        rule.smoothing,
        found.ece_at_t,
        found.nll_at_t,
        found.ece_at_exit,
        Bins(*found.diagrams[test.time_steps].columns()),
        Bins(*found.diagram_at_exit.columns()),
    )


def _line(mean_steps: NDArray[np.float64], accuracy: NDArray[np.float64]) -> Line:
    return Line(_rounded(mean_steps), _rounded(accuracy))


def _rounded(values: NDArray[np.float64]) -> tuple[float, ...]:
    """Rounded to what can be seen in a picture."""
    return tuple(round(value, PLACES) for value in values.tolist())
