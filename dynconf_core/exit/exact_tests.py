"""Exact tests of whether a group of samples differs from the rest by more than chance.

Both condition on what was counted over all samples. If the group is like the rest, it is a random part of them, and its counts
are hypergeometric; no approximation for few events is needed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def share_probability(right: int, samples: int, all_right: int, all_samples: int) -> float:
    """The probability that at least ``right`` of a random part of ``samples`` are right (Fisher's exact test, one-sided).

    Args:
        right, samples: number of right ones in the group, and its size.
        all_right, all_samples: the same of the group and the rest together.
    """
    counts = np.arange(right, min(samples, all_right) + 1)
    ways = _ways(all_right, counts) + _ways(all_samples - all_right, samples - counts) - _ways(all_samples, samples)
    return min(float(np.exp(ways).sum()), 1.0)


def net_loss_probability(group: tuple[int, int, int], whole: tuple[int, int, int]) -> float:
    """The probability that a random part loses at least as many samples net of gains as the group did (one-sided).

    Args:
        group: its size, and the numbers of its samples that are lost and gained.
        whole: the same of all samples, the group included.
    """
    samples, lost, gained = group
    all_samples, all_lost, all_gained = whole
    losses, gains = np.arange(min(samples, all_lost) + 1)[:, None], np.arange(min(samples, all_gained) + 1)
    ways = _ways(all_lost, losses) + _ways(all_gained, gains)
    ways = ways + _ways(all_samples - all_lost - all_gained, samples - losses - gains) - _ways(all_samples, samples)
    return min(float(np.exp(ways[losses - gains >= lost - gained]).sum()), 1.0)


def _ways(of: int, chosen: NDArray[np.int64] | int) -> NDArray[np.float64]:
    """The logarithm of the number of ways to choose so many (...); -inf if there is none."""
    from scipy.special import gammaln

    possible = (np.asarray(chosen) >= 0) & (np.asarray(chosen) <= of)
    many = np.where(possible, chosen, 0)
    return np.where(possible, gammaln(of + 1.0) - gammaln(many + 1.0) - gammaln(of - many + 1.0), -np.inf)
