"""The scores that a study tries: every measure, with a few ways to smooth it, and what had to be fitted for them.

Alpha matters: the smaller it is, the closer log-odds and entropy come to the gap of the two highest logits, which is best for
some networks; about as large as that gap is, they tell apart what is less sure. So constant temperatures from a hundredth of
the median gap to all of it are tried (the paper's form), and a few that depend on the step.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dynconf_core.confidence.fit_learned import FOLDS, fit_learned_score
from dynconf_core.confidence.learned import LearnedScore
from dynconf_core.confidence.scores import MEASURES, checked_measure, score
from dynconf_core.confidence.smoothing import Smoothing
from dynconf_core.confidence.temperature import fit_power
from dynconf_core.errors import InputError
from dynconf_core.exit.robustness import fitting_alphas
from dynconf_core.exit.rule import Rule
from dynconf_core.traces.schema import Traces

PLAIN = Smoothing("sum", 1.0)


@dataclass(frozen=True, eq=False)
class Candidate:
    """A score that may be chosen.

    Attributes:
        measure, smoothing, learned: as a rule holds them.
        out_of_fold: scores (N, T) of the traces that fitted it, each by weights that had not seen the sample; None: not fitted.
    """

    measure: str
    smoothing: Smoothing
    learned: LearnedScore | None = None
    out_of_fold: NDArray[np.float64] | None = None

    def rule(self, threshold: float) -> Rule:
        """The exit rule of this score."""
        return Rule(self.measure, self.smoothing, threshold, self.learned)

    def scores(self, traces: Traces) -> NDArray[np.float64]:
        """(N, T) of traces that had no part in fitting it."""
        return score(traces, self.measure, self.smoothing, self.learned)


def candidates(traces: Traces, seed: int, measures: Sequence[str] = MEASURES) -> list[Candidate]:
    """The candidates for calibration ``traces``, in the order of ``measures``; a measure that cannot be fitted is left out.

    Args:
        traces: the calibration split.
        seed: of the folds of the learned score.
        measures: names in ``MEASURES``.

    Raises:
        InputError: for an unknown measure, or where none is left.
    """
    found: list[Candidate] = []
    for measure in measures:
        checked_measure(measure)
        if measure == "learned":
            found += _learned(traces, seed)
        else:
            found += [Candidate(measure, smoothing) for smoothing in _smoothings(traces, measure)]
    if not found:
        raise InputError(f"rules {', '.join(measures)} need traces of at least 2 time steps and {FOLDS} samples.")
    return found


def calibration_scores(found: Sequence[Candidate], traces: Traces) -> Iterator[NDArray[np.float64]]:
    """Scores (N, T) of each candidate on the traces that it was made for."""
    for candidate in found:
        yield candidate.scores(traces) if candidate.out_of_fold is None else candidate.out_of_fold


def _smoothings(traces: Traces, measure: str) -> list[Smoothing]:
    if measure == "patience":
        return [PLAIN]
    if measure == "gap":  # alpha alone changes nothing about a gap
        return [PLAIN, *(Smoothing("power", 1.0, exponent) for exponent in (0.25, 0.5))]
    alphas = fitting_alphas(traces)
    small = [Smoothing("sum", alphas[0] / 5), Smoothing("sum", alphas[0])]
    if measure == "entropy":
        return [*small, *(Smoothing("sum", alphas[place]) for place in (7, 12))]
    found = [*small, *(Smoothing("sum", alphas[place]) for place in (5, 9, 13))]
    # Early steps are made surer than by the sum, which builds in a least latency: alike at T, where alpha_T is the same.
    sharper = traces.time_steps**0.5
    found += [Smoothing("power", alphas[place] * sharper, -0.5) for place in (5, 9)]
    found.append(Smoothing("mean", fitting_alphas(traces, "mean")[9]))
    with contextlib.suppress(InputError):  # constant logits: there is nothing to fit
        found.append(fit_power(traces))
    return found


def _learned(traces: Traces, seed: int) -> list[Candidate]:
    if traces.time_steps < 2 or traces.samples < FOLDS:
        return []
    learned, out_of_fold = fit_learned_score(traces, seed)
    return [Candidate("learned", PLAIN, learned, out_of_fold)]
