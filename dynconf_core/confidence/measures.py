"""Measures: how sure an SNN is of its prediction, from the smoothed logits z'_t or from how long the prediction has stood.

Each is one torch function for a whole array of traces and for one step of a running network, made of operations that give
the same bits in both (`dynconf_core.confidence.elementary`).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dynconf_core.confidence.elementary import exponential, logarithm, logarithm_1p, total


def log_odds(smoothed: Tensor) -> Tensor:
    """Log-odds of the largest softmax: -logsumexp over the classes but the first largest of (z'_j - z'_max).

    Args:
        smoothed: z' (..., C) float64, C >= 2.

    Returns:
        (...) float64 in nats; 0 is a softmax of one half, and nothing saturates: it grows as the gap does.
    """
    others = _others_behind(smoothed)
    # The runner-up's distance is taken out of the sum, so that exp never underflows to a sum of 0.
    runner_up = others.amax(dim=-1, keepdim=True)
    return -(runner_up[..., 0] + logarithm(total(exponential(others - runner_up))))


def negative_entropy(smoothed: Tensor) -> Tensor:
    """Minus the entropy of softmax(z') over log C: 0 is certainty, -1 a uniform softmax.

    With d_j = z'_j - z'_max and u the sum of exp(d_j) over the classes but the first largest, -log softmax_j is
    log(1 + u) - d_j, and the entropy log(1 + u) + sum_j (-d_j) exp(d_j) / (1 + u): a sum of terms that are not negative,
    as precise near 0 as anywhere.

    Args:
        smoothed: z' (..., C) float64, C >= 2.

    Returns:
        (...) float64 in [-1, 0].
    """
    others = _others_behind(smoothed)
    weights = exponential(others)
    # The first largest itself, at -inf, adds nothing to either sum.
    weighted = total(weights * torch.where(torch.isinf(others), 0.0, others))
    weight = total(weights)
    entropy = logarithm_1p(weight) - weighted / (1.0 + weight)
    return -(entropy / logarithm(torch.full_like(entropy, smoothed.shape[-1])))


def gap(smoothed: Tensor) -> Tensor:
    """The largest z' minus the second largest: (...) float64 >= 0 of z' (..., C), C >= 2."""
    return -_others_behind(smoothed).amax(dim=-1)


def _others_behind(smoothed: Tensor) -> Tensor:
    """z' - z'_max (..., C), with the first largest class at -inf."""
    behind = smoothed - smoothed.amax(dim=-1, keepdim=True)
    return behind.scatter(-1, smoothed.argmax(dim=-1, keepdim=True), -math.inf)


def standing(predictions: Tensor) -> Tensor:
    """(n, T) int64: for how many steps, this one included, each prediction (n, T) has stood unchanged."""
    steps = torch.arange(predictions.shape[1]).expand(predictions.shape)
    changed = torch.ones_like(predictions, dtype=torch.bool)
    changed[:, 1:] = predictions[:, 1:] != predictions[:, :-1]
    since = torch.where(changed, steps, 0).cummax(dim=1).values
    return steps - since + 1
