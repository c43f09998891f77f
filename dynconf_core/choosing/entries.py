"""Rules as stored in results: plain values, so that reading them needs neither the class nor the code of the measure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from dynconf_core.choosing.cross_fitting import HowChosen, UnseenLoss
from dynconf_core.confidence.measure import source_of
from dynconf_core.confidence.smoothing import Smoothing
from dynconf_core.exit.judgement import Judgement, Loss
from dynconf_core.exit.rule import Rule


@dataclass(frozen=True, kw_only=True)
class RuleRecord:
    """An exit rule.

    Attributes:
        measure: the name of the confidence measure.
        readout: "decoded" if the accumulated logits are corrected by a fitted readout, whose parameters are in rule.json; None:
            they are used as they are.
        smoothing: of the accumulated logits.
        threshold: a score: the largest calibration score that does not exit.
        threshold_shown: the threshold as shown to people, such as a softmax probability.
        parameters: of a fitted measure, as in its rule.json.
        source: "package.module:Class" of a measure from outside.
    """

    measure: str
    readout: Literal["decoded"] | None
    smoothing: Smoothing
    threshold: float
    threshold_shown: float
    parameters: dict[str, Any] | None = None
    source: str | None = None


@dataclass(frozen=True, kw_only=True)
class RuleEntry(RuleRecord):
    """A rule with its figures.

    Attributes:
        calibration: on all calibration samples.
        cross_fitted: what the same procedure loses on samples that it did not see; None: not chosen by cross-fitting.
        calibrated: how the rule was chosen; None: not chosen by cross-fitting.
        test: on the test samples.
    """

    calibration: Loss
    cross_fitted: UnseenLoss | None = None
    calibrated: HowChosen | None = None
    test: Judgement


@dataclass(frozen=True, kw_only=True)
class ComparisonRow(RuleRecord):
    """A measure at an allowed drop.

    Attributes:
        name: of the row, such as "gap_drop_0.1" (in percentage points).
        max_drop: the accuracy that may be lost in expectation, a fraction.
        calibration, cross_fitted, test: as in `RuleEntry`.
        rival: whether the measure is another method's.
        coverage: of a measure that predicts sets of classes, the share of test samples whose class is in the set at their exit;
            None: it predicts no sets.
    """

    name: str
    max_drop: float
    calibration: Loss
    cross_fitted: UnseenLoss
    test: Judgement
    rival: bool = False
    coverage: float | None = None


@dataclass(frozen=True, kw_only=True)
class OwnThresholdRow(RuleRecord):
    """A measure at the threshold that its method proposes, whatever it loses.

    Attributes:
        test, rival, coverage: as in `ComparisonRow`.
    """

    test: Judgement
    rival: bool = False
    coverage: float | None = None


class RuleFields(TypedDict):
    """The fields of a `RuleRecord`, by name: the arguments that its subclasses share."""

    measure: str
    readout: Literal["decoded"] | None
    smoothing: Smoothing
    threshold: float
    threshold_shown: float
    parameters: dict[str, Any] | None
    source: str | None


def recorded(rule: Rule, with_parameters: bool = True) -> RuleFields:
    """The fields of a `RuleRecord` for a rule; `with_parameters`: including those of a fitted measure."""
    measure = rule.measure
    return {
        "measure": measure.name,
        "readout": None if rule.readout is None else "decoded",
        "smoothing": rule.smoothing,
        "threshold": rule.threshold,
        "threshold_shown": float(measure.shown(rule.threshold)),
        "parameters": (measure.to_json() or None) if with_parameters else None,
        "source": source_of(measure),
    }
