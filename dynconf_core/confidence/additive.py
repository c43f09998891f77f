"""A logistic regression on piecewise linear functions of a few terms: non-linear, small, and with a single optimum.

    log-odds = intercept + sum over the terms i of  w_i x_i + sum over its knots j of  v_ij max(k_ij - x_i, 0)

The knots of a term are quantiles of it; more of them lie below its median, where predictions still change. The fit penalises
the weights a little (`PULL`), so that they stay finite where a few samples are perfectly separable; the terms may be similar,
and a strong penalty would blur their differences.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dynconf_core.confidence.newton import minimum
from dynconf_core.confidence.step_parameters import checked_numbers, log_odds
from dynconf_core.errors import InputError

KNOTS = (0.02, 0.1, 0.3, 0.6, 0.85)
"""The quantiles at which the functions bend."""
PULL = 0.03
"""The penalty: half of it times the square of each weight, of columns scaled to a standard deviation of 1."""
# Keeps the intercept's curvature above 0 where all rows are beyond doubt.
TINY = 1e-9


@dataclass(frozen=True)
class Additive:
    """Fitted parameters, for the terms as they are.

    Attributes:
        intercept: the constant.
        weights: w by the name of the term.
        knots, bends: k, ascending, and v by the name of the term, as many of one as of the other; may be empty.

    Raises:
        InputError: for parameters that do not fit together, or a number that is not finite or exceeds 1e100.
    """

    intercept: float
    weights: Mapping[str, float]
    knots: Mapping[str, Sequence[float]]
    bends: Mapping[str, Sequence[float]]

    def __post_init__(self) -> None:
        for name in ("weights", "knots", "bends"):
            given = getattr(self, name)
            if not isinstance(given, Mapping) or set(given) != set(self.weights):
                raise InputError(f"regression {name} = {str(given)[:80]}; give an object with one entry for each term.")
        object.__setattr__(self, "intercept", checked_numbers("regression intercept", (self.intercept,))[0])
        weights = {term: checked_numbers(f"regression weight {term}", (value,))[0] for term, value in self.weights.items()}
        object.__setattr__(self, "weights", weights)
        for name in ("knots", "bends"):
            rows = {
                term: checked_numbers(f"regression {name} {term}", row) if row else ()
                for term, row in getattr(self, name).items()
            }
            object.__setattr__(self, name, {term: rows[term] for term in weights})
        if uneven := [term for term in weights if len(self.knots[term]) != len(self.bends[term])]:
            raise InputError(f"regression {', '.join(uneven)}: the numbers of knots and bends differ; give as many of each.")

    def log_odds(self, terms: Mapping[str, Tensor]) -> Tensor:
        """(...) float64 for terms (...) float64 by name, summed in a fixed order."""
        odds = torch.full_like(next(iter(terms.values())), self.intercept)
        for name, weight in self.weights.items():
            odds += terms[name] * weight
            for knot, bend in zip(self.knots[name], self.bends[name], strict=True):
                odds += (knot - terms[name]).clamp(min=0.0) * bend
        return odds

    @classmethod
    def from_json(cls, entry: Any) -> Self:
        """The inverse of `dataclasses.asdict`; an InputError names what is missing or wrong."""
        names = [field.name for field in fields(cls)]
        if not isinstance(entry, Mapping) or set(entry) != set(names):
            raise InputError(f"regression = {str(entry)[:80]}; give an object of {', '.join(names)}.")
        return cls(**entry)


def fit_additive(
    terms: Mapping[str, NDArray[np.float64]], true: NDArray[np.bool_], importance: NDArray[np.float64]
) -> Additive:
    """The regression with the largest penalised likelihood.

    Args:
        terms: (R,) by name, finite, within +-1e100.
        true: (R,) what is to be estimated.
        importance: (R,) the weight of each row.
    """
    if true.all() or not true.any():  # the same log-odds for all
        share = float(true.mean()) if len(true) else 1.0
        nothing: dict[str, tuple[float, ...]] = dict.fromkeys(terms, ())
        return Additive(log_odds(share, max(len(true), 1)), dict.fromkeys(terms, 0.0), nothing, nothing)
    knots = {name: _knots(term) for name, term in terms.items()}
    columns = [
        column for name, term in terms.items() for column in (term, *(np.maximum(knot - term, 0.0) for knot in knots[name]))
    ]
    rows = np.stack(columns, axis=1)
    mean, deviation = rows.mean(axis=0), rows.std(axis=0)
    deviation[~((deviation > 0) & np.isfinite(deviation))] = 1.0
    rows -= mean
    rows /= deviation
    scaled = _likeliest(np.column_stack((rows, np.ones(len(rows)))), true, importance)
    found = scaled[:-1] / deviation
    intercept = float(scaled[-1] - found @ mean)
    weights: dict[str, float] = {}
    bends: dict[str, tuple[float, ...]] = {}
    place = 0
    for name, of_term in knots.items():
        weights[name], *rest = found[place : place + 1 + len(of_term)].tolist()
        bends[name] = tuple(rest)
        place += 1 + len(of_term)
    return Additive(intercept, weights, knots, bends)


def _knots(term: NDArray[np.float64]) -> tuple[float, ...]:
    """Quantiles, each once and none at the smallest value, below which the function would bend for no row."""
    found = np.unique(np.quantile(term, KNOTS))
    return tuple(found[found > term.min()].tolist())


def _likeliest(rows: NDArray[np.float64], true: NDArray[np.bool_], importance: NDArray[np.float64]) -> NDArray[np.float64]:
    """The weights of the columns (R, F), the last of which is constant and not penalised, by Newton's method with step
    halving. (Scikit-learn's leaves this method where columns are as similar as here.)"""
    pulls = np.append(np.full(rows.shape[1] - 1, PULL), 0.0)
    share = float(importance @ true / importance.sum())
    found = np.append(np.zeros(rows.shape[1] - 1), np.log(share / (1.0 - share)))
    sign = np.where(true, -1.0, 1.0)

    def cost_of(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        odds = rows @ weights
        return float(importance @ np.logaddexp(0.0, sign * odds) + 0.5 * (pulls * weights**2).sum()), odds

    def derivatives(weights: NDArray[np.float64], odds: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        chance = 0.5 * (1.0 + np.tanh(0.5 * odds))
        slope = rows.T @ (importance * (chance - true)) + pulls * weights
        return slope, (rows.T * (importance * chance * (1.0 - chance))) @ rows + np.diag(pulls + TINY)

    return minimum(found, cost_of, derivatives)
