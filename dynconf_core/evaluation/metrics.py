"""The figures that traces and a rule determine, all on test traces; the calibration traces choose `iso_accuracy` and no more.

The latency saving of an exit with mean steps s against a fixed t is 1 - s/t. Using T as the baseline overstates the saving,
since most SNNs reach their accuracy earlier; so it is given against several fixed t, by name.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, fields
from typing import Any

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
    """A fixed number of time steps that an exit is compared with.

    Attributes:
        name: see `baselines`.
        time_steps: t.
        accuracy: on the test traces.
        latency_saving: of the exit against it, 1 - mean steps / t.
    """

    name: str
    time_steps: int
    accuracy: float
    latency_saving: float


@dataclass(frozen=True)
class RuleExit(ExitFigures):
    """The figures of a rule's exits, and the rule."""

    rule: RuleEntry


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Every figure that traces and a rule determine.

    Attributes:
        accuracy_at_t: a_1 .. a_T of the SNN without exit.
        snn_accuracy: a_T.
        ann_accuracy: of the network as trained; None where the traces lack `ann_logits`.
        reference_accuracy: of the quantised network that the SNN equals; None where they lack `reference_logits`.
        exit: of the rule.
        baselines: see `baselines`.
        oracles, oracle_gap: see `dynconf_core.exit.oracles`.
        spikes_per_inference: None where the traces lack spikes; spikes_per_neuron also where their meta lacks the neurons.
        synaptic_operations_per_inference, multiply_accumulates, energy: None where the traces lack the counts.
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
        """The baseline of this name; every evaluation has `full`, `iso_accuracy`, `peak` and `within_0.1_points`."""
        return next(one for one in self.baselines if one.name == name)


def evaluate(
    test: Traces,
    calibration: Traces,
    rule: Rule,
    paper_time_steps: int | None = None,
    choice: Choice | None = None,
    seed: int = 0,
) -> Evaluation:
    """Judge a rule on test traces.

    Args:
        test: the test traces, T time steps.
        calibration: those on which the rule was chosen, of the same T and C.
        rule: the exit rule.
        paper_time_steps: the paper's own T for this setting, for the baseline `paper`; None, or above T: left out.
        choice: how the rule was chosen; its figures on the calibration traces then stand in the rule's entry.
        seed: of the bootstrap.

    Raises:
        InputError: where the two traces differ in time steps or classes.
    """
    if (test.time_steps, test.classes) != (calibration.time_steps, calibration.classes):
        raise InputError(
            f"the test traces have {test.time_steps} time steps and {test.classes} classes, the calibration "
            f"traces {calibration.time_steps} and {calibration.classes}; both must be of one SNN and one T."
        )
    correct = test.correct()
    calibration_correct = calibration.correct()
    accuracy = correct.mean(axis=0)
    steps = rule.exit_steps(test)
    figures = exit_figures(correct, steps, seed)
    entry = RuleEntry(
        **recorded(rule),
        calibration=choice.calibration if choice else loss_at_exit(calibration_correct, rule.exit_steps(calibration)),
        cross_fitted=choice.cross_fitted if choice else None,
        calibrated=choice.calibrated if choice else None,
        test=Judgement(**{field.name: getattr(figures, field.name) for field in fields(Judgement)}),
    )
    ece, nll = _reliability(test, _read_smoothing(rule, calibration), correct, steps)
    return Evaluation(
        accuracy_at_t=tuple(accuracy.tolist()),
        snn_accuracy=float(accuracy[-1]),
        ann_accuracy=_accuracy(test, test.ann_logits),
        reference_accuracy=_accuracy(test, test.reference_logits),
        exit=RuleExit(**vars(figures), rule=entry),
        baselines=baselines(accuracy, calibration_correct.mean(axis=0), figures.mean_steps, paper_time_steps),
        oracles=oracles(correct),
        oracle_gap=oracle_gap(correct, figures),
        **_counts(test, steps),
        ece=ece,
        nll=nll,
    )


def baselines(
    accuracy: NDArray[np.float64],
    calibration_accuracy: NDArray[np.float64],
    mean_steps: float,
    paper_time_steps: int | None = None,
) -> tuple[Baseline, ...]:
    """The exit's latency saving against fixed t.

    - full: T.
    - iso_accuracy: the first step whose calibration accuracy is at least that at T; what a user could fix in advance.
    - peak: the step of the best test accuracy, the first among equals; being chosen on test, it favours the fixed t.
    - within_0.1_points: the first step whose test accuracy is within 0.1 points of that at T.
    - paper: the paper's T, where it is known and not above T.

    Args:
        accuracy: (T,) on the test traces; each baseline's `accuracy` is taken from it.
        calibration_accuracy: (T,) on the calibration traces.
        mean_steps: s, the mean exit step on the test traces.
        paper_time_steps: the paper's T, or None.
    """
    time_steps = len(accuracy)
    found = {
        "full": time_steps,
        "iso_accuracy": _first(calibration_accuracy >= calibration_accuracy[-1] - ROUNDING),
        "peak": int(np.argmax(accuracy)) + 1,
        "within_0.1_points": _first(accuracy >= accuracy[-1] - 0.001 - ROUNDING),
    }
    if paper_time_steps is not None and 1 <= paper_time_steps <= time_steps:
        found["paper"] = paper_time_steps
    return tuple(Baseline(name, step, float(accuracy[step - 1]), 1.0 - mean_steps / step) for name, step in found.items())


def _first(holds: NDArray[np.bool_]) -> int:
    """The first step, from 1, for which `holds` (T,) is true."""
    return int(np.argmax(holds)) + 1


def _accuracy(test: Traces, logits: NDArray[Any] | None) -> float | None:
    """Of one output (N, C) a sample."""
    return None if logits is None else float(np.mean(logits.argmax(axis=1) == test.labels))


def _up_to(counts: NDArray[Any], steps: NDArray[np.int64]) -> FullAndExit:
    """Mean over the samples of counts (N, T) summed up to T and up to each sample's exit step."""
    running = np.cumsum(counts, axis=1, dtype=np.float64)
    return FullAndExit(float(running[:, -1].mean()), float(running[np.arange(len(steps)), steps - 1].mean()))


def _counts(test: Traces, steps: NDArray[np.int64]) -> dict[str, Any]:
    """The fields of an `Evaluation` that count spikes and operations."""
    per_inference = None if test.spikes is None else _up_to(test.spikes, steps)
    neurons = test.meta.get("neurons")
    per_neuron = None
    if per_inference is not None and isinstance(neurons, (int, float)) and neurons > 0:
        per_neuron = FullAndExit(per_inference.full / neurons, per_inference.exit / neurons)
    operations = None if test.synaptic_operations is None else _up_to(test.synaptic_operations, steps)
    multiplied, counts, energy = test.meta.get("multiply_accumulates"), None, None
    if operations is not None and isinstance(multiplied, dict):
        counts = MultiplyAccumulates.of(multiplied)
        energy = energy_estimate(counts, operations, FullAndExit(float(test.time_steps), float(steps.mean())))
    return {
        "spikes_per_inference": per_inference,
        "spikes_per_neuron": per_neuron,
        "synaptic_operations_per_inference": operations,
        "multiply_accumulates": counts,
        "energy": energy,
    }


def _read_smoothing(rule: Rule, calibration: Traces) -> Smoothing:
    """What the softmax is read under: the rule's own smoothing, or one fitted on calibration where its score is no softmax."""
    if not rule.measure.of_softmax:
        with suppress(InputError):  # constant logits: nothing to fit
            return fit_power(calibration)
    return rule.smoothing


def _reliability(
    test: Traces, smoothing: Smoothing, correct: NDArray[np.bool_], steps: NDArray[np.int64]
) -> tuple[FullAndExit, FullAndExit]:
    """`ece` and `nll` at T and at the exit step, of softmax(z')."""
    ends = {"full": np.full(test.samples, test.time_steps), "exit": steps}
    smoothed = {name: np.empty((test.samples, test.classes)) for name in ends}
    for piece, accumulated in test.accumulated():
        everywhere = smoothing.apply(accumulated)
        for name, end in ends.items():
            smoothed[name][piece] = everywhere[np.arange(len(everywhere)), end[piece] - 1]
    right = {name: correct[np.arange(test.samples), end - 1] for name, end in ends.items()}
    errors = {name: expected_calibration_error(max_probability(smoothed[name]), right[name]) for name in ends}
    costs = {name: negative_log_likelihood(smoothed[name], test.labels) for name in ends}
    return FullAndExit(**errors), FullAndExit(**costs)
