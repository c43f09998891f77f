"""The evaluation of a setting: its chosen rule, and all measures compared, also with T as in the paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dynconf_core.choosing.candidates import CHOOSE
from dynconf_core.choosing.comparison import compare
from dynconf_core.choosing.cross_fitting import Choice
from dynconf_core.choosing.entries import ComparisonRow
from dynconf_core.confidence.measure import MeasureLike
from dynconf_core.evaluation.metrics import Evaluation, evaluate
from dynconf_core.evaluation.rule_warnings import choice_warnings, class_warnings, promise_warnings, sample_warnings
from dynconf_core.evaluation.trace_warnings import trace_warnings
from dynconf_core.exit.by_class import ClassFigures, figures_by_class
from dynconf_core.exit.robustness import Robustness
from dynconf_core.exit.rule import Rule
from dynconf_core.traces.schema import Traces

EVALUATION = "evaluation.json"
"""The file of a ``SettingEvaluation``."""


@dataclass(frozen=True)
class AtPaperTimeSteps:
    """All measures compared on traces cut to T as in the paper, for this setting or its family."""

    time_steps: int
    snn_accuracy: float
    comparison: tuple[ComparisonRow, ...]


@dataclass(frozen=True, kw_only=True)
class SettingFigures(Evaluation):
    """All figures of a setting.

    Attributes:
        comparison: every measure at every allowed drop.
        at_paper_time_steps: the comparison with T as in the paper; None if that is unknown or not shorter.
        robustness: robustness of max softmax.
        by_class: the figures of each class; in ``results.json`` of many classes only the ones that lose most.
        warnings: warnings for readers, one sentence each.
    """

    comparison: tuple[ComparisonRow, ...]
    at_paper_time_steps: AtPaperTimeSteps | None
    robustness: Robustness
    by_class: tuple[ClassFigures, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Samples:
    """Numbers of images in both splits."""

    calibration: int
    test: int


@dataclass(frozen=True, kw_only=True)
class SettingEvaluation(SettingFigures):
    """All figures of a setting with their numbers of images: the artefact of the stage ``evaluate``."""

    samples: Samples


def evaluate_setting(
    calibration: Traces,
    test: Traces,
    rule: Rule,
    choice: Choice,
    robustness: Robustness,
    paper_time_steps: int | None,
    seed: int,
    measures: Sequence[MeasureLike] | None = None,
    readout: str = CHOOSE,
) -> SettingEvaluation:
    """Evaluate a setting on its test traces.

    Args:
        calibration: the traces on which the rule was chosen.
        test: the test traces.
        rule: the exit rule.
        choice: how the rule was chosen.
        robustness: robustness of max softmax on the test traces.
        paper_time_steps: T in the paper, if known.
        seed: seed of the comparison's folds and bootstraps.
        measures: the measures to compare; None compares all registered ones.
        readout: "plain", "decoded" or "choose", for the comparison.
    """
    figures = evaluate(test, calibration, rule, paper_time_steps, choice)
    classes = figures_by_class(rule.correct(test), rule.exit_steps(test), test.labels)
    return SettingEvaluation(
        **vars(figures),
        comparison=compare(calibration, test, measures=measures, seed=seed, readout=readout).rows,
        at_paper_time_steps=_cut(calibration, test, paper_time_steps, seed, measures, readout),
        robustness=robustness,
        by_class=classes,
        warnings=(
            *trace_warnings(calibration, test),
            *choice_warnings(choice),
            *sample_warnings(choice.calibrated),
            *promise_warnings(choice, figures.exit),
            *class_warnings(classes, choice.calibrated),
        ),
        samples=Samples(calibration.samples, test.samples),
    )


def _cut(
    calibration: Traces,
    test: Traces,
    time_steps: int | None,
    seed: int,
    measures: Sequence[MeasureLike] | None,
    readout: str,
) -> AtPaperTimeSteps | None:
    """The comparison with T as in the paper, if that is shorter: a larger T as the baseline overstates savings."""
    if time_steps is None or time_steps >= test.time_steps:
        return None
    calibration, test = calibration.cut(time_steps), test.cut(time_steps)
    accuracy = float(test.correct()[:, -1].mean())
    return AtPaperTimeSteps(
        time_steps, accuracy, compare(calibration, test, measures=measures, seed=seed, readout=readout).rows
    )
