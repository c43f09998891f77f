"""A guarantee: with confidence 1 - delta the accuracy lost against the full T, on unseen samples, is at most epsilon.

Learn then Test (Angelopoulos et al., Annals of Applied Statistics, 2025), by fixed-sequence testing. The candidate thresholds
stand before the guarantee samples are looked at. From the surest down, each is tested for "the mean net loss is epsilon or
more", at the level delta and with the exact test of `dynconf_core.choosing.critical_losses`; the first that cannot be refuted
ends it, and the last before is the answer. To promise too much, the first candidate that truly loses too much must be refuted,
which happens with at most the probability delta, however many candidates there are and however they hang together.

It holds for samples drawn independently from one source, the guarantee samples and the unseen ones alike, where the former
chose neither the score nor its smoothing nor the candidates: split them off first (`dynconf_core.traces.parts.halves`), choose
on the one half (`candidate_thresholds` too), certify on the other. Images that the network was trained on are not drawn like
unseen ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dynconf_core.choosing.critical_losses import most_lost_certifying, samples_needed
from dynconf_core.choosing.selection import worst_so_far
from dynconf_core.errors import InputError
from dynconf_core.exit.front import PairedFront, paired_front, points_at

CANDIDATES = 100
METHOD = "Learn then Test: fixed-sequence testing down from the surest threshold, exact test of the net loss"
ASSUMES = (
    "the guarantee samples are drawn independently from the same source as the unseen ones, "
    "and chose neither the score nor the candidate thresholds"
)
SEEN = "; not given here: the network was trained on these samples"


@dataclass(frozen=True, eq=False)
class CandidateTests:
    """The candidates (K,), the surest first, on the n guarantee samples: all of them, though those after the first that is not
    certified say nothing.

    Attributes:
        thresholds: in units of the score.
        mean_steps: mean exit step.
        lost, gained: number of samples right at T alone, and at their exit alone.
        most_lost: up to so many lost certify the candidate, given `gained`; -1: none does.
    """

    thresholds: NDArray[np.float64]
    mean_steps: NDArray[np.float64]
    lost: NDArray[np.int64]
    gained: NDArray[np.int64]
    most_lost: NDArray[np.int64]

    @property
    def passed(self) -> int:
        """How many are certified, one after another."""
        holds = self.lost <= self.most_lost
        return len(holds) if holds.all() else int(np.argmin(holds))


@dataclass(frozen=True)
class GuaranteeRecord:
    """A guarantee as files hold it.

    Attributes:
        epsilon, delta, threshold, certified, seen_in_training, mean_steps, lost, gained, samples_needed: as in `Guarantee`.
        method, assumes: how it was certified, and what it rests on.
        calibration: the number of guarantee samples.
        candidates, passed: how many thresholds were to be tested, and how many of them were certified.
    """

    epsilon: float
    delta: float
    threshold: float
    certified: bool
    method: str
    assumes: str
    calibration: int
    seen_in_training: bool | None
    mean_steps: float
    lost: int
    gained: int
    candidates: int
    passed: int
    samples_needed: int


@dataclass(frozen=True, eq=False)
class Guarantee:
    """What n samples certify about unseen ones.

    Attributes:
        epsilon: the accuracy that may be lost, a fraction.
        delta: how often at most such a promise is broken.
        threshold: the lowest that is certified, in units of the score; inf (never exit) where none is.
        certified: whether a threshold is.
        samples: n, the number of guarantee samples.
        lost, gained: how many of them are right at T alone, and at their exit alone, at the threshold.
        mean_steps: their mean exit step at the threshold.
        samples_needed: the fewest samples that certify anything where exits gain nothing.
        seen_in_training: whether the network was trained on the samples, which takes the assumption away; None: not known.
        tests: how the candidates fared.
    """

    epsilon: float
    delta: float
    threshold: float
    certified: bool
    samples: int
    lost: int
    gained: int
    mean_steps: float
    samples_needed: int
    seen_in_training: bool | None
    tests: CandidateTests

    def record(self) -> GuaranteeRecord:
        """What files hold of it."""
        return GuaranteeRecord(
            epsilon=self.epsilon,
            delta=self.delta,
            threshold=self.threshold,
            certified=self.certified,
            method=METHOD,
            assumes=ASSUMES + (SEEN if self.seen_in_training else ""),
            calibration=self.samples,
            seen_in_training=self.seen_in_training,
            mean_steps=self.mean_steps,
            lost=self.lost,
            gained=self.gained,
            candidates=len(self.tests.thresholds),
            passed=self.tests.passed,
            samples_needed=self.samples_needed,
        )

    def statement(self) -> str:
        """The guarantee in a sentence, for people."""
        sure, lost = f"{100 * (1 - self.delta):.4g} %", f"at most {self.epsilon * 100:.4g} points of accuracy"
        if self.certified:
            but = ", had the network not been trained on these" if self.seen_in_training else ""
            return (
                f"with confidence {sure} an exit at {self.mean_steps:.2f} mean steps loses {lost} ({self.samples} samples{but})"
            )
        few = self.samples < self.samples_needed
        needed = f": at least {self.samples_needed} are needed where exits gain nothing" if few else ""
        return f"{self.samples} samples cannot certify with confidence {sure} that any exit loses {lost}{needed}"


def certify(
    scores: NDArray[np.float64],
    correct: NDArray[np.bool_],
    thresholds: Sequence[float] | NDArray[np.float64],
    epsilon: float,
    delta: float,
    seen_in_training: bool | None = None,
) -> Guarantee:
    """The lowest of `thresholds` at which, with confidence 1 - delta, no more than epsilon of the accuracy at T is lost.

    Args:
        scores: (N, T) of the guarantee samples, larger is surer.
        correct: (N, T), whether the prediction at each step is right.
        thresholds: the candidates, fixed before these samples were looked at, in any order.
        epsilon: what may be lost, a fraction within (0, 1).
        delta: how often at most the promise may be broken, within (0, 1).
        seen_in_training: whether the network was trained on the samples; None: not known.

    Raises:
        InputError: for an epsilon, a delta or a threshold that cannot be.
        ValueError: for scores and correct predictions that do not fit together.
    """
    checked_epsilon_and_delta(epsilon, delta)
    candidates = np.asarray(thresholds, dtype=np.float64)
    if candidates.ndim != 1 or np.isnan(candidates).any():
        raise InputError("the candidate thresholds must be a row of numbers; leave out what is not a number.")
    candidates = np.unique(candidates[candidates < np.inf])[::-1]
    front = paired_front(scores, correct)
    points = points_at(front, candidates)
    lost, gained = front.lost[points], front.gained[points]
    most_lost = most_lost_certifying(gained, front.samples, epsilon, delta)
    tests = CandidateTests(candidates, front.mean_steps[points], lost, gained, most_lost)
    last = tests.passed - 1
    point = int(points[last]) if last >= 0 else len(front) - 1
    return Guarantee(
        epsilon=epsilon,
        delta=delta,
        threshold=float(candidates[last]) if last >= 0 else math.inf,
        certified=last >= 0,
        samples=front.samples,
        lost=int(front.lost[point]),
        gained=int(front.gained[point]),
        mean_steps=float(front.mean_steps[point]),
        samples_needed=samples_needed(epsilon, delta),
        seen_in_training=seen_in_training,
        tests=tests,
    )


def candidate_thresholds(front: PairedFront, epsilon: float, count: int = CANDIDATES) -> NDArray[np.float64]:
    """Candidates worth testing, from samples that have no part in the guarantee: (<= count,) thresholds, the surest first.

    Their mean steps are equally far apart, from T down to where twice epsilon and two samples more are lost here. Few
    candidates are coarse, many give chance more occasions to end the sequence early; 50 to 1000 came out alike.

    Args:
        front: operating points of the score on the samples that chose it.
        epsilon: what may be lost, a fraction.
        count: how many candidates, at most.
    """
    hopeless = worst_so_far(front) > 2.0 * (front.samples * epsilon + 1.0)
    lowest = int(np.argmin(hopeless))
    wanted = np.linspace(front.mean_steps[-1], front.mean_steps[lowest], count + 1)[1:]
    points = np.unique(np.searchsorted(front.mean_steps, wanted * (1.0 - 1e-12)))
    return front.thresholds[points][::-1]


def checked_epsilon_and_delta(epsilon: float, delta: float) -> None:
    """An InputError where one of them is no number between 0 and 1."""
    for name, value, remedy in (
        ("epsilon", epsilon, "the accuracy that may be lost, such as 0.005 for half a point (for none, never exit)"),
        ("delta", delta, "how often the promise may be broken, such as 0.05"),
    ):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.0 < value < 1.0:
            raise InputError(f"{name} = {value!r} is not between 0 and 1; give {remedy}.")
