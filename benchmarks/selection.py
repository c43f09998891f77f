"""The accuracy that the chosen rule loses on unseen samples, and how far its mean steps spread, by resampling.

    python benchmarks/selection.py [--samples 1000 2500 5000] [--draws 40] [--scores few|one] [--methods all] [POOL ...]

A pool is the calibration and the test traces of a published network together (they tune the procedure here and judge no rule;
the default is all four, at the T at which they are studied, and a synthetic fifth), or any traces file. Calibration sets of n
samples are drawn from it without replacement, the whole procedure chooses score and threshold on each (fitted scores excepted:
`learned` is cross-fitted once on the pool), and the rule is judged on the samples that were not drawn. The table shows the mean
points of accuracy lost there (with its standard error; drawn sets overlap), and mean and standard deviation of the mean steps:

- before: the first net loss too many ends the descent, one unseen sample counted as lost; the promise is at least 1 / (n + 1);
- now: `cross_fitted_choice`: smoothed expected losses, mean budget of resamples.

With `--methods all`, on the same paths:

- luckiest: the smallest budget at which the net losses are allowed; what the winner's curse costs;
- isotonic: net losses by isotonic regression over the budget, one unseen sample counted as lost;
- kernel: net losses smoothed by a Gaussian kernel of a tenth in log budget, one unseen sample counted as lost;
- exponential: the loss fitted as A exp(-k budget), over the budgets that lose less than 2 points;
- averaged: the mean budget of resamples, each stopping as `before`;
- smoothed: smoothed expected losses without resamples.

At the end the acceptance figures: the loss of `now` at the default promise, and its spread over that of `before` at the same
promise and at 0, which was the default.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import measuring
import numpy as np
from numpy.typing import NDArray
from scored import made_up

from dynconf_core.choosing.candidates import calibration_scored, candidates
from dynconf_core.choosing.cross_fitting import FOLDS, RESAMPLES, mean_budget
from dynconf_core.choosing.paths import CrossFit, cross_fit
from dynconf_core.choosing.selection import allowed_losses, expected_losses, promised_loss
from dynconf_core.exit.front import paired_front, points_at
from dynconf_core.experiment.plan import MAX_DROP
from dynconf_core.traces.schema import Traces

PUBLISHED = Path(__file__).parents[1] / "results" / "2026-11-26-h100"
POOLS = {
    "cifar10-resnet18-qcfs": 27,
    "cifar10-vgg16-qcfs": 32,
    "cifar10-resnet18-qffs": 4,
    "cifar10-vgg16-qffs": 4,
    "synthetic": 32,
}
FEW = ("max_softmax", "entropy", "gap", "patience", "learned")
MOST_OF_A_MEASURE = 3
ALLOWED = (0.0, 0.0005, 0.001, 0.002, 0.005)
DEFAULT = MAX_DROP
Method = Callable[[CrossFit, float, np.random.Generator], int]


@dataclass(frozen=True, eq=False)
class Pool:
    """Scores (N, T), each with whether the prediction is correct (N, T)."""

    name: str
    scored: list[tuple[NDArray[np.float64], NDArray[np.bool_]]]

    @property
    def samples(self) -> int:
        return len(self.scored[0][0])


def pool_of(name: str, scores: str) -> Pool:
    if name == "synthetic":
        _, found, correct = made_up()
        kept = list(found.values())[:: len(found) // 8]
        return Pool(name, [(score, correct) for score in (kept[:1] if scores == "one" else kept)])
    if name in POOLS:
        parts = [Traces.load(PUBLISHED / f"{name}-{split}.npz") for split in ("calibration", "test")]
        logits, labels = (np.concatenate([getattr(part, field) for part in parts]) for field in ("logits", "labels"))
        traces = Traces(logits, labels).cut(POOLS[name])
    else:
        traces = Traces.load(name)
    measures = FEW[:1] if scores == "one" else FEW
    tried = candidates(traces, 0, list(measures))
    if scores == "one":
        tried = tried[3:4]
    elif scores == "few":
        of_measure = {name: [one for one in tried if one.measure.name == name] for name in measures}
        tried = [one for found in of_measure.values() for one in found[:: max(1, len(found) // MOST_OF_A_MEASURE)]]
    return Pool(name, list(calibration_scored(tried, traces)))


def net_losses(fitted: CrossFit) -> NDArray[np.int64]:
    return fitted.net.sum(axis=0, dtype=np.int64)


def allowed_before(samples: int, allowed: float) -> float:
    """The net losses among n samples, an unseen one being counted as lost too."""
    return max((samples + 1) * allowed - 1.0, 0.0) + 1e-6


def first_passage(losses: NDArray[np.float64] | NDArray[np.int64], limit: float) -> int:
    worst = np.maximum.accumulate(losses[::-1])[::-1]
    within = np.flatnonzero(worst <= limit)
    return int(within[0]) if within.size else len(losses) - 1


def before(fitted: CrossFit, allowed: float, random: np.random.Generator) -> int:
    return first_passage(net_losses(fitted), allowed_before(len(fitted.net), allowed))


def now(fitted: CrossFit, allowed: float, random: np.random.Generator) -> int:
    return mean_budget(fitted.net, fitted.budgets, allowed_losses(len(fitted.net), allowed), random)


def luckiest(fitted: CrossFit, allowed: float, random: np.random.Generator) -> int:
    return int(np.argmax(net_losses(fitted) <= allowed_before(len(fitted.net), allowed)))


def isotonic(fitted: CrossFit, allowed: float, random: np.random.Generator) -> int:
    from scipy.optimize import isotonic_regression

    losses = isotonic_regression(net_losses(fitted).astype(np.float64), increasing=False).x
    return first_passage(losses, allowed_before(len(fitted.net), allowed))


def kernel(fitted: CrossFit, allowed: float, random: np.random.Generator) -> int:
    log = np.log(fitted.budgets)
    weights = np.exp(-0.5 * ((log[:, None] - log) / 0.1) ** 2)
    return first_passage(weights @ net_losses(fitted) / weights.sum(axis=1), allowed_before(len(fitted.net), allowed))


def exponential(fitted: CrossFit, allowed: float, random: np.random.Generator) -> int:
    samples, losses = len(fitted.net), net_losses(fitted).astype(np.float64)
    taken = losses < 0.02 * samples
    weights = 1.0 / np.maximum(np.abs(fitted.net).sum(axis=0), 1.0)
    best, curve = np.inf, losses
    for rate in np.geomspace(0.01, 30.0, 120):
        shape = np.exp(-rate * (fitted.budgets - fitted.budgets[taken][0]))
        size = np.sum((weights * losses * shape)[taken]) / np.sum((weights * shape**2)[taken])
        error = float(np.sum((weights * (losses - size * shape) ** 2)[taken]))
        if error < best:
            best, curve = error, size * shape
    # Half a sample, where not even one is allowed: the fitted curve is never 0.
    return first_passage(curve, max(allowed_before(samples, allowed), 0.5))


def averaged(fitted: CrossFit, allowed: float, random: np.random.Generator) -> int:
    differ = fitted.net.any(axis=1)
    times = random.poisson(1.0, (RESAMPLES, len(fitted.net)))[:, differ].astype(np.float32)
    limit = allowed_before(len(fitted.net), allowed)
    stops = [fitted.budgets[first_passage(losses, limit)] for losses in times @ fitted.net[differ].astype(np.float32)]
    return int(np.searchsorted(fitted.budgets, np.mean(stops) - 1e-9))


def smoothed(fitted: CrossFit, allowed: float, random: np.random.Generator) -> int:
    differing = np.abs(fitted.net).sum(axis=0, dtype=np.int64)
    expected = expected_losses(net_losses(fitted), differing, len(fitted.net))
    return first_passage(expected, allowed_losses(len(fitted.net), allowed))


METHODS: dict[str, Method] = {"before": before, "now": now}
OTHERS: dict[str, Method] = {
    method.__name__: method for method in (luckiest, isotonic, kernel, exponential, averaged, smoothed)
}
Found = dict[tuple[str, float], NDArray[np.float64]]


def resampled(pool: Pool, samples: int, draws: int, methods: dict[str, Method]) -> Found:
    """For each method and allowed loss (draws, 2): the points lost by the samples not drawn, and their mean steps."""
    found: dict[tuple[str, float], list[tuple[float, float]]] = {}
    for draw in range(draws):
        order = np.random.default_rng([samples, draw]).permutation(pool.samples)
        drawn, unseen = order[:samples], order[samples:]
        random = np.random.default_rng(draw)
        fitted = cross_fit([(scores[drawn], correct[drawn]) for scores, correct in pool.scored], random, FOLDS)
        truth = np.empty((2, len(fitted.budgets)))
        for index in np.unique(fitted.index):
            scores, correct = pool.scored[index]
            taken = fitted.index == index
            front = paired_front(scores[unseen], correct[unseen])
            at = points_at(front, fitted.thresholds[taken])
            truth[:, taken] = 100 * front.loss[at], front.mean_steps[at]
        for name, method in methods.items():
            for allowed in ALLOWED:
                budget = method(fitted, allowed, np.random.default_rng(draw))
                found.setdefault((name, allowed), []).append((truth[0, budget], truth[1, budget]))
    return {key: np.array(values) for key, values in found.items()}


def accepted(found: Found, samples: int) -> str:
    lost, steps = found["now", DEFAULT].T
    error = lost.std(ddof=1) / np.sqrt(len(lost))
    promised = 100 * promised_loss(samples, DEFAULT)
    spread, same, none = (found[key][:, 1].std(ddof=1) for key in (("now", DEFAULT), ("before", DEFAULT), ("before", 0.0)))
    return (
        f"promised {promised:.3f}, lost {lost.mean():6.3f}+-{error:.3f} {'kept  ' if lost.mean() <= promised else 'BROKEN'}  "
        f"spread {spread:.3f}, before {same:.3f} (x{spread / same:.2f}), before at 0 {none:.3f} (x{spread / none:.2f})  "
        f"mean steps {steps.mean():.2f}, before {found['before', DEFAULT][:, 1].mean():.2f}, "
        f"at 0 {found['before', 0.0][:, 1].mean():.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pools", nargs="*", default=list(POOLS))
    parser.add_argument("--samples", type=int, nargs="+", default=[1000, 2500, 5000])
    parser.add_argument("--draws", type=int, default=40)
    parser.add_argument("--scores", choices=("few", "one"), default="few", help="the scores among which is chosen")
    parser.add_argument("--methods", choices=("acceptance", "all"), default="acceptance")
    given = parser.parse_args()
    methods = METHODS | (OTHERS if given.methods == "all" else {})
    print(f"{measuring.environment_line(1)}, numpy {np.__version__}")
    lines = []
    for name in given.pools:
        pool = pool_of(name, given.scores)
        for samples in given.samples:
            found = resampled(pool, samples, given.draws, methods)
            print(f"\n{name}, {len(pool.scored)} scores, n = {samples}, {given.draws} draws")
            heading = (
                f"allowed {100 * allowed:g}, promised {100 * promised_loss(samples, allowed):.2f}" for allowed in ALLOWED
            )
            print(" " * 12 + "".join(f"{cell:32s}" for cell in heading))
            for method in methods:
                cells = []
                for allowed in ALLOWED:
                    lost, steps = found[method, allowed].T
                    error = lost.std(ddof=1) / np.sqrt(given.draws)
                    cells.append(f"{lost.mean():6.3f}+-{error:.3f} @{steps.mean():6.3f}+-{steps.std(ddof=1):.3f}")
                print(f"{method:12s}" + "".join(f"{cell:32s}" for cell in cells), flush=True)
            lines.append(f"{name:22s} n = {samples:5d}  {accepted(found, samples)}")
    print(f"\nAllowed {100 * DEFAULT:g} points\n" + "\n".join(lines))


if __name__ == "__main__":
    main()
