"""How many losses still certify that the mean net loss is below epsilon: an exact test for values in {-1, 0, 1}.

The net loss of a sample is 1[correct at T] - 1[correct at its exit]. Among n independent samples let B be lost (1) and C gained
(-1); their probabilities p and q are unknown, and only p - q matters. The hypothesis to be rejected is p - q >= epsilon. The
test is a table: with c gains, up to b(c) losses reject it.

**The shape** is that of the best test for a known q: b(c) is the largest number of losses for which B - C <= b - c has a
probability of at most delta, at p = q + epsilon and the maximum-likelihood q. Not knowing q then costs little: the table is
within one or two losses of that of the normal approximation, which guarantees nothing.

**The guarantee** does not rest on this. It is computed, for every p and q of the hypothesis:
1. Since b(c) never decreases with c, a sample that changes from lost to unchanged, or from unchanged to gained, never leads out
   of the region b <= b(c). The probability of the region therefore falls as p rises and rises as q does, so it is largest at p
   = q + epsilon.
2. For the same reason, for all q between q_0 and q_1 it is at most that at (p, q) = (q_0 + epsilon, q_1). A chain of such
   intervals covers all possible q, each with one finite sum. This is a proven bound, not a check at selected points.
3. Where a bound exceeds delta, the table is computed again for a smaller level, until none does.

The test uses that the samples are independent and identically distributed and take three values. It is therefore tighter than
bounds for arbitrary bounded variables, by betting or by Bentkus's inequality, with which `benchmarks/guarantee.py` compares it.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from dynconf_core.exit.intervals import likeliest_gains

# Width of an interval of q, in standard deviations of B - C: the narrower, the tighter the chain of bounds.
WIDTH = 0.02
# Sums run over the gains within this many standard deviations; the probability beyond is added in full.
REACH = 8.0
ATTEMPTS = 40


def samples_needed(epsilon: float, delta: float) -> int:
    """The fewest samples that can certify anything if exits gain nothing; with fewer, even zero losses are too likely by
    chance.

    At p = epsilon, none of n samples is lost with probability (1 - epsilon)^n, which must be at most delta.
    """
    return math.ceil(math.log(delta) / math.log1p(-epsilon) - 1e-9)


@lru_cache(maxsize=64)
def critical_losses(samples: int, epsilon: float, delta: float) -> NDArray[np.int64]:
    """b(c) for c = 0, 1, ...: with c gains, up to b(c) losses certify a mean net loss below epsilon; -1: no number does.

    Args:
        samples: n, independent and identically distributed.
        epsilon: within (0, 1); the hypothesis to be rejected is a mean net loss of epsilon or more.
        delta: within (0, 1), the maximum probability of rejecting it although it is true.

    Returns:
        (G,) int64, non-decreasing; for more gains than the table has, its last entry applies. The same array is returned for
        the same arguments and is read-only.

    Raises:
        ValueError: for arguments out of range.
    """
    if not (samples > 0 and 0.0 < epsilon < 1.0 and 0.0 < delta < 1.0):
        raise ValueError(f"samples = {samples}, epsilon = {epsilon}, delta = {delta}: n > 0, the others within (0, 1)")
    # More gains than this are not counted: a network that loses and gains so often hardly loses less than epsilon.
    most_gains = min(samples, max(200, samples // 20))
    floor = 0 if samples >= samples_needed(epsilon, delta) else -1
    level = delta
    for _ in range(ATTEMPTS):
        table = np.maximum(_drawn(samples, epsilon, level, most_gains), floor)
        # Every 16th interval first: if those exceed delta already, the others need not be computed.
        bound = _largest_probability(table, samples, epsilon, delta, every=16)
        if bound <= delta:
            bound = _largest_probability(table, samples, epsilon, delta)
        if bound <= delta:
            break
        level *= 0.998 * max(delta / bound, 0.8)
    else:
        table = np.full(most_gains + 1, floor, dtype=np.int64)  # certified only without any losses: valid by `samples_needed`
    table.flags.writeable = False
    return table


def most_lost_certifying(gained: NDArray[np.int64], samples: int, epsilon: float, delta: float) -> NDArray[np.int64]:
    """(...) the most losses that, with these gains (...) among n samples, certify a mean net loss below epsilon; -1: none."""
    table = critical_losses(samples, epsilon, delta)
    most: NDArray[np.int64] = table[np.minimum(gained, len(table) - 1)]
    return most


def _drawn(samples: int, epsilon: float, level: float, most_gains: int) -> NDArray[np.int64]:
    """The table (G,) for one level: exact for few gains, computed at selected numbers of gains beyond that and interpolated
    between."""
    exact = np.arange(min(most_gains, 32) + 1)
    sparse = np.geomspace(32, most_gains, 40) if most_gains > 32 else np.empty(0)
    nodes = np.unique(np.concatenate((exact, np.rint(sparse).astype(np.int64))))
    distance = np.array([gained + samples * epsilon - _most_losses(int(gained), samples, epsilon, level) for gained in nodes])
    gains = np.arange(most_gains + 1)
    table = np.floor(gains + samples * epsilon - np.interp(gains, nodes, distance) + 1e-9).astype(np.int64)
    return np.maximum.accumulate(np.maximum(table, -1))


def _most_losses(gained: int, samples: int, epsilon: float, level: float) -> int:
    """The largest b for which B - C <= b - gained has a probability of at most `level` at the maximum-likelihood q; -1:
    none."""
    few, many = -1, math.ceil(gained + samples * epsilon)
    while many - few > 1:
        lost = (few + many) // 2
        gains = likeliest_gains(lost, gained, samples, epsilon)
        count, weight = _gains(samples, gains)
        limit = count + lost - gained
        if float(weight @ _at_most(limit, samples, count, gains, gains + epsilon)) <= level:
            few = lost
        else:
            many = lost
    return few


def _largest_probability(table: NDArray[np.int64], samples: int, epsilon: float, delta: float, every: int = 1) -> float:
    """A bound on the probability of the region over all p and q with p - q >= epsilon; over some of them only, if `every` >
    1."""
    from scipy.special import bdtr

    largest, low = 0.0, 0.0
    # Beyond this, even the table's last entry, regardless of the gains, is too improbable to matter.
    while 2.0 * low + epsilon < 1.0 and table[-1] >= 0 and bdtr(table[-1], samples, low + epsilon) > 0.5 * delta:
        width = WIDTH * math.sqrt((2.0 * low + epsilon) / samples)
        high = min(low + width, 1.0 - epsilon - low)
        count, weight = _gains(samples, high)
        limit = table[np.minimum(count, len(table) - 1)]
        inside = float(weight @ _at_most(limit, samples, count, high, low + epsilon))
        largest = max(largest, inside + max(0.0, 1.0 - float(weight.sum())))
        low = high + (every - 1) * width
    return largest


def _gains(samples: int, gains: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The relevant numbers of gains C and their probabilities, C being binomial with the fraction `gains`."""
    from scipy.special import gammaln, xlog1py, xlogy

    spread = REACH * math.sqrt(samples * gains * (1.0 - gains))
    first = max(0, math.floor(samples * gains - spread) - 10)
    count = np.arange(first, min(samples, math.ceil(samples * gains + spread) + 20) + 1)
    choices = gammaln(samples + 1.0) - gammaln(count + 1.0) - gammaln(samples - count + 1.0)
    return count, np.exp(choices + xlogy(count, gains) + xlog1py(samples - count, -gains))


def _at_most(
    limit: NDArray[np.int64], samples: int, count: NDArray[np.int64], gains: float, losses: float
) -> NDArray[np.float64]:
    """The probabilities of at most `limit` losses among the samples that are not among the `count` gains."""
    from scipy.special import bdtr

    others = samples - count
    share = min(losses / (1.0 - gains), 1.0) if gains < 1.0 else 1.0
    found: NDArray[np.float64] = np.where(limit < 0, 0.0, bdtr(np.clip(limit, 0, others), others, share))
    return found
