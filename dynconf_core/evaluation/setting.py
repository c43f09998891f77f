"""The figures of a setting: the chosen rule, and beside it every measure, also with T as in the paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dynconf_core.choosing.comparison import compare
from dynconf_core.choosing.cross_fitting import Choice
from dynconf_core.choosing.entries import ComparisonRow
from dynconf_core.confidence.measure import MeasureLike
from dynconf_core.evaluation.metrics import Evaluation, evaluate
from dynconf_core.exit.robustness import Robustness
from dynconf_core.exit.rule import Rule
from dynconf_core.traces.schema import Traces

EVALUATION = "evaluation.json"
"""The file of a `SettingEvaluation`."""


@dataclass(frozen=True)
class AtPaperTimeSteps:
    """Every measure on the traces cut at the T at which the paper runs this setting or its family."""

    time_steps: int
    snn_accuracy: float
    comparison: tuple[ComparisonRow, ...]


@dataclass(frozen=True, kw_only=True)
class SettingFigures(Evaluation):
    """Every figure of a setting.

    Attributes:
        comparison: every measure at every allowed drop.
        at_paper_time_steps: None where the paper's T is unknown or no shorter.
        robustness: of max softmax.
    """

    comparison: tuple[ComparisonRow, ...]
    at_paper_time_steps: AtPaperTimeSteps | None
    robustness: Robustness


@dataclass(frozen=True)
class Samples:
    """Numbers of images."""

    calibration: int
    test: int


@dataclass(frozen=True, kw_only=True)
class SettingEvaluation(SettingFigures):
    """The same, with the number of images that they are of: the artefact of the stage `evaluate`."""

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
) -> SettingEvaluation:
    """Judge a setting on its test traces.

    Args:
        calibration: the traces that chose the rule.
        test: the traces that judge.
        rule: the exit rule.
        choice: how it was chosen.
        robustness: of max softmax on the test traces.
        paper_time_steps: the T at which the paper runs this setting, where known.
        seed: of folds and bootstraps of the comparison.
        measures: that take part in the comparison; None: all that are known.
    """
    figures = evaluate(test, calibration, rule, paper_time_steps, choice)
    return SettingEvaluation(
        **vars(figures),
        comparison=compare(calibration, test, measures=measures, seed=seed).rows,
        at_paper_time_steps=_cut(calibration, test, paper_time_steps, seed, measures),
        robustness=robustness,
        samples=Samples(calibration.samples, test.samples),
    )


def _cut(
    calibration: Traces, test: Traces, time_steps: int | None, seed: int, measures: Sequence[MeasureLike] | None
) -> AtPaperTimeSteps | None:
    """With a generous T as the baseline savings are overstated; hence also with the paper's own, where that is shorter."""
    if time_steps is None or time_steps >= test.time_steps:
        return None
    calibration, test = calibration.cut(time_steps), test.cut(time_steps)
    accuracy = float(test.correct()[:, -1].mean())
    return AtPaperTimeSteps(time_steps, accuracy, compare(calibration, test, measures=measures, seed=seed).rows)
