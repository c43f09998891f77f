"""Temperatures suited to given traces: a sequence of alphas to try, and a step-dependent temperature fitted by likelihood.

Fitting alpha_t = alpha t^exponent is temperature scaling (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017,
sec. 4.2) for all steps at once, with two parameters: it minimises the mean negative log likelihood of the labels under
softmax(z_t / alpha_t). This calibrates the softmax of every step, but does not by itself give the best exits, because the
accuracy that an exit loses is a different quantity (`dynconf_core.confidence.learned`).
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
# Elements of z that are kept (128 MiB); beyond that, evenly spaced samples are used.
ELEMENTS = 2**24
# alpha is searched within this factor of the spread of the logits, in both directions.
WIDEST = 1e4
# In units of the median gap at T: beyond these the softmax is nearly 0 or 1, or nearly uniform.
ALPHAS = tuple(float(alpha) for alpha in np.geomspace(0.03, 3.0, 21))


def fitting_alphas(traces: Traces, form: Form = "sum") -> list[float]:
    """21 alphas for the form `sum` or `mean`, ascending: two decades around the median gap at T (around 1 if that is 0).

    The gap is that between the two largest logits, of z_T for `sum` and of z_T / T for `mean`.
    """
    last = torch.from_numpy(traces.ends)
    smoothing = Smoothing(form, 1.0)
    gaps = [gap(smoothing.smoothed(torch.from_numpy(z[:, -1]), last[piece])).numpy() for piece, z in traces.accumulated()]
    median = float(np.median(np.concatenate(gaps)))
    return [alpha * (median if median > 0 else 1.0) for alpha in ALPHAS]


def fit_power(traces: Traces, exponent: float | None = None) -> Smoothing:
    """The smoothing `power` of maximum likelihood, at up to 16 steps from 1 to T that are evenly spaced in log t; samples take
    part up to their end.

    Args:
        traces: the calibration split; the likelihood is that of its labels.
        exponent: if given, only alpha is fitted (0 and 1 fit the alpha of the forms `sum` and `mean`).

    Returns:
        `Smoothing("power", alpha, exponent)`. If the labels are perfectly separable, the likelihood keeps growing as alpha
        falls, and alpha ends at a ten-thousandth of the spread of the logits.

    Raises:
        InputError: for an exponent outside -8 to 8, or logits that are all equal.
    """
    if exponent is not None:
        exponent = Smoothing("power", 1.0, exponent).exponent
    from scipy.optimize import minimize

    steps = np.unique(np.geomspace(1, traces.time_steps, STEPS).round().astype(np.int64))
    behind, of_label = _behind(traces, steps)
    spread = float(np.sqrt(np.mean(np.square(behind))))
    if not spread > 0:
        raise InputError("the logits are all equal at every step: no temperature can be fitted to them.")
    behind /= spread
    of_label /= spread
    log_steps = np.log(steps)
    if traces.lengths is not None:
        stride = _stride(traces, steps)
        sample, step = np.nonzero(steps <= traces.lengths[::stride, None])
        behind, of_label, log_steps = behind[sample, step], of_label[sample, step], log_steps[step]

    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Mean negative log likelihood, and its gradient with respect to log alpha and the exponent."""
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
    """z_t - max z_t (n, K, C) at K steps, and the same for the label (n, K), for as many samples as memory allows."""
    stride = _stride(traces, steps)
    kept = [z[(-piece.start) % stride :: stride, steps - 1] for piece, z in traces.accumulated()]
    behind = np.concatenate(kept)
    behind -= behind.max(axis=-1, keepdims=True)
    labels = traces.labels[::stride]
    return behind, np.take_along_axis(behind, labels[:, None, None], axis=-1)[..., 0]


def _stride(traces: Traces, steps: NDArray[np.int64]) -> int:
    """Every stride-th sample is used."""
    room = max(1, ELEMENTS // (len(steps) * traces.classes))
    return math.ceil(traces.samples / room)
