"""The candidate scores: every measure with a few smoothings, fitted where necessary."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dynconf_core.choosing.paths import Scored
from dynconf_core.confidence.measure import (
    MEASURES,
    ConfidenceMeasure,
    MeasureLike,
    checked_scores,
    measures_of,
    own_measures,
    scores_of,
)
from dynconf_core.confidence.smoothing import Smoothing
from dynconf_core.confidence.trial import check_measure
from dynconf_core.errors import InputError
from dynconf_core.exit.readout_fit import FittedReadout, fit_readout, large_enough_for_readout
from dynconf_core.exit.rule import Rule
from dynconf_core.traces.schema import Traces

PLAIN, DECODED, CHOOSE = READOUTS = ("plain", "decoded", "choose")
"""The readouts that may be asked for: the plain sum, a fitted readout, or the one of them that is better on calibration."""
BEST = "best"
"""In place of a measure's name: the one that is best on the calibration split."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """A score that may be chosen.

    Attributes:
        measure, smoothing: as in a rule.
        out_of_fold: scores (N, T) of the traces used for fitting, each computed with parameters fitted without the sample;
            None: the scores of the measure itself.
        readout: the readout in front of the measure; None: the plain sum.
    """

    measure: ConfidenceMeasure
    smoothing: Smoothing
    out_of_fold: NDArray[np.float64] | None = None
    readout: FittedReadout | None = None

    @classmethod
    def fitted(
        cls,
        measure: ConfidenceMeasure,
        smoothing: Smoothing,
        traces: Traces,
        seed: int,
        readout: FittedReadout | None = None,
    ) -> Candidate:
        """The measure under a smoothing, fitted on calibration traces if it has anything to fit; behind a readout, the traces
        are those that the readout gives for calibration."""
        fitted = measure.fit(traces, smoothing, seed)
        if not isinstance(fitted, tuple) or len(fitted) != 2 or type(fitted[0]) is not type(measure):
            raise InputError(f"measure {measure.name!r}: fit must give two things, the fitted measure and scores or None.")
        known, out_of_fold = fitted
        if out_of_fold is not None:
            checked_scores(known, out_of_fold, traces)
        return cls(known, smoothing, out_of_fold, readout)

    def rule(self, threshold: float) -> Rule:
        """The exit rule of this score."""
        return Rule(self.measure, self.smoothing, threshold, None if self.readout is None else self.readout.readout)

    def scored(self, traces: Traces) -> Scored:
        """The scores (N, T), and whether the predictions (N, T) are correct, for traces that were not used to fit it."""
        rule = self.rule(math.inf)
        return rule.scores(traces), rule.correct(traces)


def candidates(
    traces: Traces,
    seed: int,
    measures: Sequence[MeasureLike] | None = None,
    fixed: Mapping[str, Smoothing] | None = None,
    readout: str = CHOOSE,
) -> list[Candidate]:
    """The candidates for the calibration ``traces``, by measure; a measure for which the traces are too small is left out.

    With the readout ``choose``, every measure is tried both on the plain sum and behind a readout, unless the traces are too
    small for a readout or have lengths.

    Args:
        traces: the calibration split.
        seed: of the folds of fitted measures.
        measures: the measures to include, in this order; None: all known ones but rivals.
        fixed: by measure name, the only smoothing to try with it; as it is made for the plain sum, "choose" then tries only
            that.
        readout: "plain", "decoded" or "choose"; rivals always read the plain sum.

    Raises:
        InputError: for an unknown measure or readout, if no measure is left, or if the traces are too small for a readout that
            is asked for.
    """
    wanted, fixed = measures_of(own_measures() if measures is None else measures), fixed or {}
    for measure in wanted:
        check_measure(measure)
    found = []
    for fitted in _readouts(traces, seed, readout):
        read = traces if fitted is None else fitted.calibration(traces)
        found += [
            Candidate.fitted(measure, one, read, seed, fitted)
            for measure in wanted
            if large_enough(traces, measure) and _reads(measure, fitted, readout, measure.name in fixed)
            for one in ((fixed[measure.name],) if measure.name in fixed else _smoothings(measure, read))
        ]
    if not found:
        steps, samples = (min(getattr(one, name) for one in wanted) for name in ("least_steps", "least_samples"))
        names = ", ".join(measure.name for measure in wanted)
        raise InputError(f"measures {names} need traces of at least {steps} time steps and {samples} samples.")
    return found


def check_readout(readout: str, rule: ConfidenceMeasure | None = None) -> None:
    """Raise InputError unless the readout is known, and one that a rule by this measure can have."""
    if not isinstance(readout, str) or readout not in READOUTS:
        raise InputError(f"readout = {readout!r} is not known; give one of {', '.join(READOUTS)}.")
    if readout == DECODED and rule is not None and rule.rival:
        raise InputError(
            f"readout = {readout}: the rule {rule.name} is another method's and reads the plain sum of the logits: give "
            f"{PLAIN} or {CHOOSE}, or another rule."
        )


def _readouts(traces: Traces, seed: int, readout: str) -> list[FittedReadout | None]:
    """The readouts to try; None is the plain sum."""
    check_readout(readout)
    if readout == PLAIN or (readout == CHOOSE and not large_enough_for_readout(traces)):
        return [None]
    try:
        return [None, fit_readout(traces, seed)]
    except InputError:  # logits beyond what float64 can square have no readout
        if readout == DECODED:
            raise
        return [None]


def _reads(measure: ConfidenceMeasure, fitted: FittedReadout | None, readout: str, fixed: bool) -> bool:
    """Whether a measure is tried behind this readout."""
    if fitted is None:
        return readout != DECODED or measure.rival
    return not measure.rival and not (readout == CHOOSE and fixed)


def _smoothings(measure: ConfidenceMeasure, traces: Traces) -> Sequence[Smoothing]:
    found = measure.smoothings(traces)
    if not found or not all(isinstance(one, Smoothing) for one in found):
        raise InputError(f"measure {measure.name!r}: smoothings gives {found!r}; give a list of one Smoothing or more.")
    return found


def measures_tried(rule: str) -> tuple[str, ...]:
    """The measures among which a setting's rule is chosen: the one that ``rule`` names, or all known ones but rivals."""
    return own_measures() if rule == BEST else (rule,)


def measures_compared(rule: str) -> tuple[str, ...]:
    """All known measures, and the one that ``rule`` names if it is from outside."""
    return tuple(dict.fromkeys((*MEASURES.names(), *measures_tried(rule))))


def large_enough(traces: Traces, measure: ConfidenceMeasure) -> bool:
    """Whether these traces are large enough to fit the measure."""
    return traces.samples >= measure.least_samples and traces.time_steps >= measure.least_steps


def calibration_scored(found: Sequence[Candidate], traces: Traces) -> Iterator[Scored]:
    """Each candidate on the calibration traces from which it was made: its scores (N, T), and whether its predictions (N, T)
    are correct."""
    readings: dict[FittedReadout | None, tuple[Traces, NDArray[np.bool_]]] = {}
    for candidate in found:
        readout = candidate.readout
        if readout not in readings:
            read = traces if readout is None else readout.calibration(traces)
            readings[readout] = read, read.correct()
        read, correct = readings[readout]
        own = candidate.out_of_fold
        yield scores_of(candidate.measure, read, candidate.smoothing) if own is None else own, correct
