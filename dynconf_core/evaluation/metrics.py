"""Metrics of an exit rule on test traces.

The latency saving of an exit with s mean steps against a fixed number of time steps t is 1 - s/t. Using T as the baseline
overstates the saving, since most SNNs reach their accuracy earlier; savings are therefore given against several baselines. Only
the iso-accuracy baseline depends on the calibration traces. Samples that end before t steps count their own length.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from dynconf_core.choosing.cross_fitting import Choice
from dynconf_core.choosing.entries import RuleEntry, recorded
from dynconf_core.confidence.calibration_error import (
    expected_calibration_error,
    max_probability,
    negative_log_likelihood,
)
from dynconf_core.confidence.smoothing import Smoothing
from dynconf_core.confidence.temperature import fit_power
from dynconf_core.errors import InputError
from dynconf_core.evaluation.energy import Energy, FullAndExit, MultiplyAccumulates, energy_estimate
from dynconf_core.exit.front import ROUNDING
from dynconf_core.exit.judgement import ExitFigures, Judgement, exit_figures, loss_at_exit
from dynconf_core.exit.oracles import OracleGap, Oracles, oracle_gap, oracles
from dynconf_core.exit.rule import Rule
from dynconf_core.traces.schema import Traces


@dataclass(frozen=True)
class Baseline:
    """A fixed number of time steps with which an exit is compared.

    Attributes:
        name: see ``baselines``.
        time_steps: t.
        accuracy: accuracy after t time steps on the test traces.
        latency_saving: latency saving of the exit against t, 1 - mean steps / t (or / the mean of the steps up to t or the
            sample's end).
    """

    name: str
    time_steps: int
    accuracy: float
    latency_saving: float


@dataclass(frozen=True)
class RuleExit(ExitFigures):
    """The figures of an exit rule, and the rule itself."""

    rule: RuleEntry


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """All metrics of an exit rule on test traces.

    Attributes:
        accuracy_at_t: accuracies a_1 .. a_T of the SNN without early exit, read from the plain sum.
        snn_accuracy: a_T.
        ann_accuracy: accuracy of the trained network; None if the traces have no ``ann_logits``.
        reference_accuracy: accuracy of the quantised network that the SNN equals; None if the traces have no
            ``reference_logits``.
        exit: figures of the exit rule.
        baselines: see ``baselines``.
        oracles, oracle_gap: see ``dynconf_core.exit.oracles``; of the predictions that the rule makes, behind its readout.
        spikes_per_inference: None if the traces have no spikes.
        spikes_per_neuron: None if the traces have no spikes, or their meta data no number of neurons.
        synaptic_operations_per_inference, multiply_accumulates, energy: None if the traces have no such counts.
        ece, nll: expected calibration error (15 bins) and negative log likelihood (nats) of softmax(z') under the rule's
            smoothing, at T and at each sample's exit.
    """

    accuracy_at_t: tuple[float, ...]
    snn_accuracy: float
    ann_accuracy: float | None
    reference_accuracy: float | None
    exit: RuleExit
    baselines: tuple[Baseline, ...]
    oracles: Oracles
    oracle_gap: OracleGap
    spikes_per_inference: FullAndExit | None
    spikes_per_neuron: FullAndExit | None
    synaptic_operations_per_inference: FullAndExit | None
    multiply_accumulates: MultiplyAccumulates | None
    energy: Energy | None
    ece: FullAndExit
    nll: FullAndExit

    def baseline(self, name: str) -> Baseline:
        """The baseline called ``name``: "full", "iso_accuracy", "peak", "within_0.1_points" or, if known, "paper"."""
        return baseline_called(name, self.baselines)


def evaluate(
    test: Traces,
    calibration: Traces,
    rule: Rule,
    paper_time_steps: int | None = None,
    choice: Choice | None = None,
    seed: int = 0,
) -> Evaluation:
    """Evaluate an exit rule on test traces.

    Args:
        test: the test traces, with T time steps.
        calibration: the traces on which the rule was chosen, with the same T and C.
        rule: the exit rule.
        paper_time_steps: T in the paper, for the baseline "paper"; that baseline is omitted if it is None or above T.
        choice: how the rule was chosen, for the calibration figures in the rule's entry.
        seed: seed of the bootstrap.

    Raises:
        InputError: if the traces differ in time steps or classes.
    """
    if (test.time_steps, test.classes) != (calibration.time_steps, calibration.classes):
        raise InputError(
            f"the test traces have {test.time_steps} time steps and {test.classes} classes, the calibration "
            f"traces {calibration.time_steps} and {calibration.classes}; both must be of one SNN and one T."
        )
    correct = rule.correct(test)
    calibration_correct = calibration.correct()
    accuracy = (correct if rule.readout is None else test.correct()).mean(axis=0)
    steps = rule.exit_steps(test)
    figures = exit_figures(correct, steps, seed, test.lengths)
    entry = RuleEntry(
        **recorded(rule),
        calibration=choice.calibration if choice else loss_at_exit(rule.correct(calibration), rule.exit_steps(calibration)),
        cross_fitted=choice.cross_fitted if choice else None,
        calibrated=choice.calibrated if choice else None,
        test=Judgement(**{field.name: getattr(figures, field.name) for field in fields(Judgement)}),
    )
    ece, nll = _reliability(rule.decoded(test), _read_smoothing(rule, calibration), correct, steps)
    return Evaluation(
        accuracy_at_t=tuple(accuracy.tolist()),
        snn_accuracy=float(accuracy[-1]),
        ann_accuracy=_accuracy(test, test.ann_logits),
        reference_accuracy=_accuracy(test, test.reference_logits),
        exit=RuleExit(**vars(figures), rule=entry),
        baselines=baselines(accuracy, calibration_correct.mean(axis=0), figures.mean_steps, paper_time_steps, test.lengths),
        oracles=oracles(correct, test.lengths),
        oracle_gap=oracle_gap(correct, figures, test.lengths),
        **_counts(test, steps),
        ece=ece,
        nll=nll,
    )


def baseline_called(name: str, known: Sequence[Baseline]) -> Baseline:
    """The baseline of this name.

    Raises:
        InputError: if there is none, as in results that somebody else has written.
    """
    found = next((one for one in known if one.name == name), None)
    if found is None:
        raise InputError(f"there is no baseline {name!r}, only {', '.join(repr(one.name) for one in known) or 'none'}.")
    return found


def baselines(
    accuracy: NDArray[np.float64],
    calibration_accuracy: NDArray[np.float64],
    mean_steps: float,
    paper_time_steps: int | None = None,
    lengths: NDArray[np.int64] | None = None,
) -> tuple[Baseline, ...]:
    """The latency saving of an exit against fixed numbers of time steps.

    - full: T.
    - iso_accuracy: the first step whose calibration accuracy is at least that at T, which a user could fix in advance.
    - peak: the first step with the highest test accuracy; being chosen on test data, it favours the baseline.
    - within_0.1_points: the first step whose test accuracy is within 0.1 points of that at T.
    - paper: T in the paper, if known and not above T.

    Args:
        accuracy: accuracies ``(T,)`` on the test traces.
        calibration_accuracy: accuracies ``(T,)`` on the calibration traces.
        mean_steps: s, the mean exit step on the test traces.
        paper_time_steps: T in the paper, or None.
        lengths: the step at which each test sample ends; None: all end at T.
    """
    time_steps = len(accuracy)

    def taken(step: int) -> float:
        return step if lengths is None else float(np.minimum(lengths, step).mean())

    found = {
        "full": time_steps,
        "iso_accuracy": _first(calibration_accuracy >= calibration_accuracy[-1] - ROUNDING),
        "peak": int(np.argmax(accuracy)) + 1,
        "within_0.1_points": _first(accuracy >= accuracy[-1] - 0.001 - ROUNDING),
    }
    if paper_time_steps is not None and 1 <= paper_time_steps <= time_steps:
        found["paper"] = paper_time_steps
    return tuple(
        Baseline(name, step, float(accuracy[step - 1]), 1.0 - mean_steps / taken(step)) for name, step in found.items()
    )


def _first(holds: NDArray[np.bool_]) -> int:
    """The first step, from 1, for which ``holds (T,)`` is true."""
    return int(np.argmax(holds)) + 1


def _accuracy(test: Traces, logits: NDArray[Any] | None) -> float | None:
    """The accuracy of ``logits (N, C)``; None without logits."""
    return None if logits is None else float(np.mean(logits.argmax(axis=1) == test.labels))


def _up_to(test: Traces, counts: NDArray[Any], steps: NDArray[np.int64]) -> FullAndExit:
    """Mean over the samples of ``counts (N, T)`` summed up to their ends, and up to their exit steps."""
    running = np.cumsum(test.until_end(counts), axis=1)
    return FullAndExit(float(running[:, -1].mean()), float(running[np.arange(len(steps)), steps - 1].mean()))


class _Counts(TypedDict):
    spikes_per_inference: FullAndExit | None
    spikes_per_neuron: FullAndExit | None
    synaptic_operations_per_inference: FullAndExit | None
    multiply_accumulates: MultiplyAccumulates | None
    energy: Energy | None


def _counts(test: Traces, steps: NDArray[np.int64]) -> _Counts:
    """The fields of ``Evaluation`` that count spikes and operations."""
    per_inference = None if test.spikes is None else _up_to(test, test.spikes, steps)
    neurons = test.meta.get("neurons")
    per_neuron = None
    if per_inference is not None and isinstance(neurons, (int, float)) and neurons > 0:
        per_neuron = FullAndExit(per_inference.full / neurons, per_inference.exit / neurons)
    operations = None if test.synaptic_operations is None else _up_to(test, test.synaptic_operations, steps)
    multiplied, counts, energy = test.meta.get("multiply_accumulates"), None, None
    if operations is not None and isinstance(multiplied, dict):
        counts = MultiplyAccumulates.of(multiplied)
        energy = energy_estimate(counts, operations, FullAndExit(float(test.ends.mean()), float(steps.mean())))
    return {
        "spikes_per_inference": per_inference,
        "spikes_per_neuron": per_neuron,
        "synaptic_operations_per_inference": operations,
        "multiply_accumulates": counts,
        "energy": energy,
    }


def _read_smoothing(rule: Rule, calibration: Traces) -> Smoothing:
    """The smoothing of the softmax: the rule's own or, if its score is not a softmax, one fitted on the calibration traces."""
    if not rule.measure.of_softmax:
        with suppress(InputError):  # constant logits: nothing to fit
            return fit_power(rule.decoded(calibration))
    return rule.smoothing


def _reliability(
    test: Traces, smoothing: Smoothing, correct: NDArray[np.bool_], steps: NDArray[np.int64]
) -> tuple[FullAndExit, FullAndExit]:
    """Expected calibration error and negative log likelihood of softmax(z'), at T and at the exit."""
    ends = {"full": test.ends, "exit": steps}
    smoothed = {name: np.empty((test.samples, test.classes)) for name in ends}
    for piece, accumulated in test.accumulated():
        everywhere = smoothing.apply(accumulated)
        for name, end in ends.items():
            smoothed[name][piece] = everywhere[np.arange(len(everywhere)), end[piece] - 1]
    right = {name: correct[np.arange(test.samples), end - 1] for name, end in ends.items()}
    errors = {name: expected_calibration_error(max_probability(smoothed[name]), right[name]) for name in ends}
    costs = {name: negative_log_likelihood(smoothed[name], test.labels) for name in ends}
    return FullAndExit(**errors), FullAndExit(**costs)
