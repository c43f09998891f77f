"""Some hundreds of random networks of all operations; ``python tests/network_fuzz.py --networks 5000`` for more."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from network_fuzz import check

OUTCOMES = Counter[str]()


@settings(max_examples=170, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None)
@given(st.integers(0, 10**6))
def test_a_settled_snn_is_its_network(seed: int) -> None:
    """To the bit: the module's own code where its numbers are exact in binary, else the reference on the grid, and float64."""
    OUTCOMES[check(random.Random(seed).choice)] += 1


def test_most_of_them_convert_and_settle() -> None:
    """The property above means little otherwise."""
    made = OUTCOMES or Counter(check(random.Random(seed).choice) for seed in range(40))
    refused = sum(count for outcome, count in made.items() if outcome.startswith("refused"))
    assert made["whole"] > 0.25 * made.total() and made["fixed point"] > 0.2 * made.total(), made
    assert made["not settled"] <= 0.05 * made.total() and refused <= 0.1 * made.total(), made
