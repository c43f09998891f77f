"""A guarantee: with confidence 1 - delta, the accuracy lost relative to the full T steps on unseen samples is at most epsilon.

Learn then Test (Angelopoulos et al., Annals of Applied Statistics, 2025), by fixed-sequence testing. The candidate thresholds
are fixed before the guarantee samples are looked at. From the highest threshold down, each is tested for the hypothesis "the
mean net loss is epsilon or more" at the level delta, with the exact test of `dynconf_core.choosing.critical_losses`. The
sequence ends at the first threshold for which the hypothesis is not rejected; the one before is the answer. The promise can be
false only if the hypothesis is rejected for the first candidate that truly loses too much, which has a probability of at most
delta, for any number of candidates and any dependence between them.

It holds if the guarantee samples and the unseen samples are drawn independently from the same distribution, and the guarantee
samples were not used to choose the score, its smoothing or the candidates. To achieve this, split the samples first
(`dynconf_core.traces.parts.halves`), choose on one half (`candidate_thresholds` included) and certify on the other. Images that
the network was trained on do not count as drawn like unseen ones.
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
from dynconf_core.wording import counted

CANDIDATES = 100
METHOD = "Learn then Test: fixed-sequence testing from the highest threshold down, exact test of the net loss"
ASSUMES = (
    "the guarantee samples are drawn independently from the same source as the unseen ones, "
    "and chose neither the score nor the candidate thresholds"
)
SEEN = "; not met here: the network was trained on these samples"


@dataclass(frozen=True, eq=False)
class CandidateTests:
    """The candidates (K,), highest threshold first, on the n guarantee samples. Candidates after the first that is not
    certified are included but mean nothing.

    Attributes:
        thresholds: in units of the score.
        mean_steps: mean exit step.
        lost, gained: number of samples correct only at T, and only at their exit.
        most_lost: the largest number of lost samples that certifies the candidate, given `gained`; -1: none does.
    """

    thresholds: NDArray[np.float64]
    mean_steps: NDArray[np.float64]
    lost: NDArray[np.int64]
    gained: NDArray[np.int64]
    most_lost: NDArray[np.int64]

    @property
    def passed(self) -> int:
        """The number of candidates certified, one after another."""
        holds = self.lost <= self.most_lost
        return len(holds) if holds.all() else int(np.argmin(holds))


@dataclass(frozen=True)
class GuaranteeRecord:
    """A guarantee as stored in files.

    Attributes:
        epsilon, delta, threshold, certified, seen_in_training, mean_steps, lost, gained, samples_needed: as in `Guarantee`.
        method, assumes: how it was certified, and under which assumptions.
        calibration: the number of guarantee samples.
        candidates, passed: the number of candidate thresholds, and how many of them were certified.
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
    """What n samples certify about unseen samples.

    Attributes:
        epsilon: the accuracy that may be lost, a fraction.
        delta: the maximum probability that the promise is false.
        threshold: the lowest certified threshold, in units of the score; inf (never exit) if none is certified.
        certified: whether any threshold is certified.
        samples: n, the number of guarantee samples.
        lost, gained: number of samples correct only at T, and only at their exit, at the threshold.
        mean_steps: mean exit step at the threshold.
        samples_needed: the fewest samples that can certify anything if exits gain nothing.
        seen_in_training: whether the network was trained on the samples, which violates the assumption; None: not known.
        tests: the tests of the candidates.
        full_steps: the mean steps without exit: T, or the mean length of the samples.
        groups: the number of groups for each of which the promise holds; 0: for all samples together.
        fewest: the number of samples of the smallest group.
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
    full_steps: float
    groups: int = 0
    fewest: int = 0

    def record(self) -> GuaranteeRecord:
        """The form that is stored in files."""
        return GuaranteeRecord(
            epsilon=self.epsilon,
            delta=self.delta,
            threshold=self.threshold,
            certified=self.certified,
            method=METHOD if not self.groups else f"{METHOD} of every group",
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
        """The guarantee as a sentence."""
        sure = f"{100 * (1 - self.delta):.4g} %"
        lost = f"at most {counted(100 * self.epsilon, 'point', form='.4g')} of accuracy"
        lost += f" in each of {self.groups} groups" if self.groups else ""
        samples = counted(self.samples, "sample")
        if self.certified:
            but = "; not assured, because the network was trained on them" if self.seen_in_training else ""
            return f"with confidence {sure} an exit at {self.mean_steps:.2f} mean steps loses {lost} ({samples}{but})"
        few = (self.fewest if self.groups else self.samples) < self.samples_needed
        where = f" in every group (the smallest has {self.fewest})" if self.groups else ""
        needed = f": at least {self.samples_needed} are needed{where} if exits gain nothing" if few else ""
        return f"{samples} cannot certify with confidence {sure} that any exit loses {lost}{needed}"


def certify(
    scores: NDArray[np.float64],
    correct: NDArray[np.bool_],
    thresholds: Sequence[float] | NDArray[np.float64],
    epsilon: float,
    delta: float,
    seen_in_training: bool | None = None,
    lengths: NDArray[np.int64] | None = None,
) -> Guarantee:
    """The lowest of `thresholds` at which, with confidence 1 - delta, at most epsilon of the accuracy at T is lost.

    Args:
        scores: (N, T) of the guarantee samples, larger means more confident.
        correct: (N, T), whether the prediction at each step is correct.
        thresholds: the candidates, in any order, fixed before these samples were looked at.
        epsilon: the accuracy that may be lost, a fraction within (0, 1).
        delta: the maximum probability that the promise is false, within (0, 1).
        seen_in_training: whether the network was trained on the samples; None: not known.
        lengths: (N,) the step at which each sample ends; None: all end at T.

    Raises:
        InputError: for an epsilon, a delta or a threshold that is not possible.
        ValueError: for scores and correct predictions that do not match.
    """
    checked_epsilon_and_delta(epsilon, delta)
    candidates = np.asarray(thresholds, dtype=np.float64)
    if candidates.ndim != 1 or np.isnan(candidates).any():
        raise InputError("the candidate thresholds must be a sequence of numbers without nan.")
    candidates = np.unique(candidates[candidates < np.inf])[::-1]
    front = paired_front(scores, correct, lengths)
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
        full_steps=float(front.mean_steps[-1]),
    )


def candidate_thresholds(front: PairedFront, epsilon: float, count: int = CANDIDATES) -> NDArray[np.float64]:
    """Candidates worth testing, from samples that are not used for the guarantee: at most `count` thresholds, the highest
    first.

    Their mean steps are evenly spaced, from T down to where twice epsilon and two more samples are lost here. Few candidates
    are coarse; many give chance more opportunities to end the sequence early. Between 50 and 1000 made no difference.

    Args:
        front: operating points of the score on the samples used to choose it.
        epsilon: the accuracy that may be lost, a fraction.
        count: the maximum number of candidates.
    """
    hopeless = worst_so_far(front) > 2.0 * (front.samples * epsilon + 1.0)
    lowest = int(np.argmin(hopeless))
    wanted = np.linspace(front.mean_steps[-1], front.mean_steps[lowest], count + 1)[1:]
    points = np.unique(np.searchsorted(front.mean_steps, wanted * (1.0 - 1e-12)))
    return front.thresholds[points][::-1]


def checked_epsilon_and_delta(epsilon: float, delta: float) -> None:
    """Raise InputError unless both are numbers between 0 and 1."""
    for name, value, remedy in (
        ("epsilon", epsilon, "the accuracy that may be lost, such as 0.005 for half a point (for none, never exit)"),
        ("delta", delta, "how often the promise may be broken, such as 0.05"),
    ):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.0 < value < 1.0:
            raise InputError(f"{name} = {value!r} is not between 0 and 1; give {remedy}.")
