"""Scores and correct predictions for the benchmarks of choosing rules, from traces or synthetic."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dynconf_core.confidence.max_softmax import MaxSoftmax
from dynconf_core.confidence.patience import Patience
from dynconf_core.confidence.smoothing import Smoothing
from dynconf_core.confidence.temperature import fitting_alphas
from dynconf_core.traces.schema import Traces

Pool = tuple[str, dict[str, NDArray[np.float64]], NDArray[np.bool_]]
FIRST = "max_softmax sum"
"""The score of benchmarks that need only one: the paper's, with an alpha of a third of the typical lead at T."""


def pool_of(path: str | None) -> Pool:
    """(name, scores ``(N, T)`` by name, correct ``(N, T)``); without a path, 20 000 synthetic samples, T = 32."""
    if path is None:
        return made_up()
    traces = Traces.load(path)
    scores: dict[str, NDArray[np.float64]] = {}
    softmax, alphas = MaxSoftmax(), fitting_alphas(traces, "sum")
    scores[FIRST] = softmax.scores(traces, Smoothing("sum", alphas[10]))
    for alpha in alphas[::2]:
        scores[f"sum {alpha:.3g}"] = softmax.scores(traces, Smoothing("sum", alpha))
    for alpha in fitting_alphas(traces, "mean")[2::4]:
        scores[f"mean {alpha:.3g}"] = softmax.scores(traces, Smoothing("mean", alpha))
    for exponent in (0.25, 0.5):
        for alpha in alphas[4:18:4]:
            scaled = alpha / traces.time_steps**exponent
            scores[f"power {exponent} {scaled:.3g}"] = softmax.scores(traces, Smoothing("power", scaled, exponent))
    scores["patience"] = Patience().scores(traces)
    return f"{Path(path).parent.name}/{Path(path).name}", scores, traces.correct()


def made_up(samples: int = 20_000, time_steps: int = 32, seed: int = 0) -> Pool:
    """Synthetic samples: the lead of the correct class is a random walk with upward drift, faster for easy samples."""
    rng = np.random.default_rng(seed)
    drift = 0.45 * rng.gamma(1.2, 1.0, (samples, 1))
    lead = (drift + rng.normal(size=(samples, time_steps))).cumsum(axis=1)
    steps = np.arange(1, time_steps + 1)
    scores = {FIRST: np.abs(lead)}
    for power in np.linspace(-0.3, 1.0, 24):
        scores[f"lead / t^{power:.2f}"] = np.abs(lead) / steps**power
    return "synthetic", scores, lead > 0
