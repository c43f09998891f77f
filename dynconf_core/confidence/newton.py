"""Newton's method with step halving, for the convex fits of measures and readouts."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

ITERATIONS, HALVINGS = 50, 30
Numbers = NDArray[np.float64]
Found = TypeVar("Found")


def one_thread() -> AbstractContextManager[object]:
    """A block in which linear algebra uses one thread, so that its bits are the same on every machine."""
    return _libraries().limit(limits=1, user_api="blas")  # type: ignore[no-any-return]


@cache
def _libraries() -> Any:
    """The libraries of linear algebra, numpy's among them, which take milliseconds to find."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def minimum(
    start: Numbers,
    cost_of: Callable[[Numbers], tuple[float, Found]],
    derivatives: Callable[[Numbers, Found], tuple[Numbers, Numbers]],
    tolerance: float = 1e-9,
) -> Numbers:
    """The parameters (P,) with the smallest cost, from `start`.

    The order of sums, and with it the last digits, depends on the number of threads: fit within `one_thread`.

    Args:
        start: (P,)
        cost_of: the cost of parameters, and what else `derivatives` needs of them.
        derivatives: the gradient (P,) and the matrix of second derivatives (P, P), which is positive definite.
        tolerance: a step that gains less than this, relative to the cost if that is above 1, is the last one.
    """
    here = start
    cost, found = cost_of(here)
    for _ in range(ITERATIONS):
        gradient, curvature = derivatives(here, found)
        move = np.linalg.solve(curvature, gradient)
        for _ in range(HALVINGS):
            new_cost, new = cost_of(here - move)
            if new_cost <= cost:
                break
            move /= 2
        else:
            break
        gained, here, cost, found = cost - new_cost, here - move, new_cost, new
        if gained <= tolerance * max(1.0, cost):
            break
    return here
