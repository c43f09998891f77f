"""Temperatures that suit given traces: a row of alphas to try, and one that depends on the step, fitted by likelihood.

The fit of alpha_t = alpha t^exponent is temperature scaling (Guo et al., "On Calibration of Modern Neural Networks", ICML
2017, sec. 4.2) for all steps at once, with two parameters: the mean negative log likelihood of the labels under
softmax(z_t / alpha_t) is least. It makes the softmax of every step mean what it says; it does not thereby exit at the best
moment, for what an exit loses is another matter (`dynconf_core.confidence.learned`).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dynconf_core.confidence.elementary import gap
from dynconf_core.confidence.smoothing import LARGEST_EXPONENT, Form, Smoothing
from dynconf_core.errors import InputError
from dynconf_core.traces.schema import Traces

STEPS = 16
# Elements of z that are kept (128 MiB): of more, samples evenly spread are taken.
ELEMENTS = 2**24
# alpha is looked for within this factor of the spread of the logits, either way.
WIDEST = 1e4
# In units of the median gap at T: beyond these the softmax is nearly 0 and 1, or even.
ALPHAS = tuple(float(alpha) for alpha in np.geomspace(0.03, 3.0, 21))


def fitting_alphas(traces: Traces, form: Form = "sum") -> list[float]:
    """21 alphas for the form `sum` or `mean`, rising: two decades about the median gap at T (about 1 where that is 0).

    The gap is that of the two largest logits, of z_T for `sum` and of z_T / T for `mean`.
    """
    last = torch.tensor([traces.time_steps])
    smoothing = Smoothing(form, 1.0)
    gaps = [gap(smoothing.smoothed(torch.from_numpy(z[:, -1]), last)).numpy() for _, z in traces.accumulated()]
    median = float(np.median(np.concatenate(gaps)))
    return [alpha * (median if median > 0 else 1.0) for alpha in ALPHAS]


def fit_power(traces: Traces, exponent: float | None = None) -> Smoothing:
    """The smoothing `power` of the greatest likelihood, at up to 16 steps from 1 to T that lie evenly in log t.

    Args:
        traces: the calibration split; its labels are what the likelihood is of.
        exponent: where it is given, alpha alone is fitted (0 and 1 fit the alpha of the forms `sum` and `mean`).

    Returns:
        `Smoothing("power", alpha, exponent)`. Where the labels are separated without error, whose likelihood grows for ever
        as alpha falls, alpha ends at a ten-thousandth of the spread of the logits.

    Raises:
        InputError: for an exponent that is not from -8 to 8, or logits that are all alike.
    """
    if exponent is not None:
        exponent = Smoothing("power", 1.0, exponent).exponent
    from scipy.optimize import minimize

    steps = np.unique(np.geomspace(1, traces.time_steps, STEPS).round().astype(np.int64))
    behind, of_label = _behind(traces, steps)
    spread = float(np.sqrt(np.mean(np.square(behind))))
    if not spread > 0:
        raise InputError("the logits are all alike at every step: no temperature can be fitted to them.")
    behind /= spread
    of_label /= spread
    log_steps = np.log(steps)

    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Mean negative log likelihood, and its gradient by log alpha and the exponent."""
        power = parameters[1] if exponent is None else exponent
        inverse = np.exp(-parameters[0] - power * log_steps)
        weights = np.exp(behind * inverse[:, None])
        totals = weights.sum(axis=-1)
        loss_of = np.log(totals) - of_label * inverse
        by_log_alpha = (of_label - (weights * behind).sum(axis=-1) / totals) * inverse
        gradient = [by_log_alpha.mean(), (by_log_alpha * log_steps).mean()]
        return float(loss_of.mean()), np.array(gradient[: len(parameters)])

    widest = math.log(WIDEST)
    bounds = [(-widest, widest), (-LARGEST_EXPONENT, LARGEST_EXPONENT)]
    start = [0.0, 0.5] if exponent is None else [0.0]
    options = {"ftol": 1e-12, "gtol": 1e-8, "maxiter": 500}
    found: Any = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds[: len(start)], options=options)
    fitted = float(found.x[1]) if exponent is None else exponent
    return Smoothing("power", math.exp(float(found.x[0])) * spread, fitted)


def _behind(traces: Traces, steps: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """z_t - max z_t (n, K, C) at K steps, and that of the label (n, K), of as many samples as there is room for."""
    room = max(1, ELEMENTS // (len(steps) * traces.classes))
    stride = math.ceil(traces.samples / room)
    kept = [z[(-piece.start) % stride :: stride, steps - 1] for piece, z in traces.accumulated()]
    behind = np.concatenate(kept)
    behind -= behind.max(axis=-1, keepdims=True)
    labels = traces.labels[::stride]
    return behind, np.take_along_axis(behind, labels[:, None, None], axis=-1)[..., 0]
