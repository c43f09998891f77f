"""The guarantee: which test certifies the fewest mean steps, and how often guarantees fail.

    python benchmarks/guarantee.py [TRACES.npz ...] [--samples 2500] [--draws 100]

For each pool of samples (synthetic scores if no traces are given) and each epsilon and delta, candidate thresholds are taken
from one random draw of n samples and tested on another, repeatedly; the pool itself is the ground truth. The table shows the
certified mean steps (T if nothing is certified) and, in brackets, the percentage of guarantees that failed, at most delta being
allowed. All tests use the same draws:

- exact: `dynconf_core.choosing.critical_losses`, the test in use;
- binomial: the exact test of lost samples alone, ignoring gained ones (Clopper and Pearson);
- given changes: a binomial test of lost among changed samples, with an upper bound on the number of changes (for which a tenth
  of delta is spent); it certifies nothing, since at the highest thresholds nothing changes;
- betting, mixed: the mean of the capital (1 + l (epsilon - L)) ... over bets of 1 to 99 % of the largest; independent of order;
- betting, in order: the bets of Waudby-Smith and Ramdas (2024) for fixed n, in a seeded order, with the highest capital;
- Hoeffding-Bentkus: Bates et al. (2021), on (L + 1) / 2;
- normal: the approximate score test, for comparison; it guarantees nothing.

All but the last are valid: if the mean of L is at least epsilon, the capitals are supermartingales of mean at most 1, which by
Ville's inequality reach 1 / delta with a probability of at most delta.

Finally, `certify` itself is run on 1000 draws, and the number of failed guarantees is compared with the 99.9 % quantile of
Binomial(1000, delta).
"""

import argparse
from collections.abc import Callable

import measuring
import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, bdtri, ndtri
from scipy.stats import binom
from scored import FIRST, pool_of

from dynconf_core.choosing.critical_losses import most_lost_certifying
from dynconf_core.choosing.guarantee import candidate_thresholds, certify
from dynconf_core.exit.front import PairedFront, paired_front, points_at
from dynconf_core.exit.intervals import net_loss_score

PROMISES = ((0.002, 0.05), (0.005, 0.05), (0.01, 0.05), (0.005, 0.1), (0.01, 0.1))
Counts = NDArray[np.int64]
Test = Callable[[Counts, Counts, int, float, float], NDArray[np.bool_]]


def exact(lost: Counts, gained: Counts, samples: int, epsilon: float, delta: float) -> NDArray[np.bool_]:
    return lost <= most_lost_certifying(gained, samples, epsilon, delta)


def binomial(lost: Counts, gained: Counts, samples: int, epsilon: float, delta: float) -> NDArray[np.bool_]:
    return bdtr(lost, samples, epsilon) <= delta


def given_changes(lost: Counts, gained: Counts, samples: int, epsilon: float, delta: float) -> NDArray[np.bool_]:
    spent = delta / 10
    changed = lost + gained
    most = bdtri(np.minimum(changed, samples - 1), samples, spent)
    share = np.minimum(0.5 + epsilon / (2 * np.maximum(most, epsilon)), 1.0)
    return np.where(changed > 0, bdtr(lost, np.maximum(changed, 1), share), 1.0) <= delta - spent


def betting_mixed(lost: Counts, gained: Counts, samples: int, epsilon: float, delta: float) -> NDArray[np.bool_]:
    bets = np.linspace(0.01, 0.99, 99)[:, None] / (1 - epsilon)
    same = samples - lost - gained
    capital = lost * np.log1p(bets * (epsilon - 1)) + gained * np.log1p(bets * (epsilon + 1)) + same * np.log1p(bets * epsilon)
    return np.logaddexp.reduce(capital, axis=0) - np.log(len(bets)) >= -np.log(delta)


def betting_in_order(lost: Counts, gained: Counts, samples: int, epsilon: float, delta: float) -> NDArray[np.bool_]:
    found = np.empty(len(lost), bool)
    rng = np.random.default_rng(0)
    count = np.arange(1, samples + 1)
    for number, (more, less) in enumerate(zip(lost, gained, strict=True)):
        values = np.repeat([1.0, -1.0, 0.0], [more, less, samples - more - less])
        rng.shuffle(values)
        mean = (values.cumsum() + epsilon) / (count + 1)
        variance = (0.25 * epsilon + ((values - mean) ** 2).cumsum()) / (count + 1)
        before = np.concatenate(([0.25 * epsilon], variance[:-1]))
        bets = np.minimum(np.sqrt(2 * np.log(1 / delta) / (samples * before)), 0.9 / (1 - epsilon))
        found[number] = np.log1p(bets * (epsilon - values)).cumsum().max() >= -np.log(delta)
    return found


def hoeffding_bentkus(lost: Counts, gained: Counts, samples: int, epsilon: float, delta: float) -> NDArray[np.bool_]:
    level = (1 + epsilon) / 2
    mean = np.minimum((1 + (lost - gained) / samples) / 2, level)
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = np.nan_to_num(mean * np.log(mean / level)) + np.nan_to_num((1 - mean) * np.log((1 - mean) / (1 - level)))
    bentkus = np.e * bdtr(np.ceil(samples * mean - 1e-9), samples, level)
    return np.minimum(np.exp(-samples * distance), bentkus) <= delta


def normal(lost: Counts, gained: Counts, samples: int, epsilon: float, delta: float) -> NDArray[np.bool_]:
    scores = [net_loss_score(int(more), int(less), samples, epsilon) for more, less in zip(lost, gained, strict=True)]
    return np.array(scores) <= ndtri(delta)


TESTS: dict[str, Test] = {
    "exact": exact,
    "binomial": binomial,
    "given changes": given_changes,
    "betting, mixed": betting_mixed,
    "betting, in order": betting_in_order,
    "Hoeffding-Bentkus": hoeffding_bentkus,
    "normal": normal,
}


def compared(scores: NDArray[np.float64], correct: NDArray[np.bool_], samples: int, draws: int) -> None:
    truth = paired_front(scores, correct)
    print(f"{'':18s}" + "".join(f"  eps {100 * epsilon:.1f} delta {delta:g} " for epsilon, delta in PROMISES))
    steps: dict[str, list[list[float]]] = {name: [[] for _ in PROMISES] for name in TESTS}
    broken = {name: [0] * len(PROMISES) for name in TESTS}
    rng = np.random.default_rng(0)
    for _ in range(draws):
        choosing, certifying = (rng.integers(0, len(scores), samples) for _ in range(2))
        chosen = paired_front(scores[choosing], correct[choosing])
        tested = paired_front(scores[certifying], correct[certifying])
        for column, (epsilon, delta) in enumerate(PROMISES):
            candidates = candidate_thresholds(chosen, epsilon)
            points = points_at(tested, candidates)
            for name, test in TESTS.items():
                holds = test(tested.lost[points], tested.gained[points], samples, epsilon, delta)
                passed = len(holds) if holds.all() else int(np.argmin(holds))
                at = points_at(truth, candidates[passed - 1] if passed else np.inf)
                steps[name][column].append(float(truth.mean_steps[at]))
                broken[name][column] += bool(truth.loss[at] > epsilon)
    for name in TESTS:
        cells = (f"{np.mean(steps[name][c]):7.2f} ({100 * broken[name][c] / draws:4.1f} %) " for c in range(len(PROMISES)))
        print(f"{name:18s}" + " ".join(cells))
    best = (truth.mean_steps[int(np.argmax(worst_loss(truth) <= epsilon))] for epsilon, _ in PROMISES)
    print(f"{'truth known':18s}" + " ".join(f"{steps:7.2f}          " for steps in best))


def worst_loss(front: PairedFront) -> NDArray[np.float64]:
    return np.maximum.accumulate(front.loss[::-1])[::-1]


def simulated(scores: NDArray[np.float64], correct: NDArray[np.bool_], samples: int, draws: int = 1000) -> None:
    truth = paired_front(scores, correct)
    half = len(scores) // 2
    for epsilon, delta in PROMISES:
        candidates = candidate_thresholds(paired_front(scores[:half], correct[:half]), epsilon)
        rng = np.random.default_rng(1)
        broken = certified = 0
        for _ in range(draws):
            drawn = rng.integers(0, len(scores), samples)
            found = certify(scores[drawn], correct[drawn], candidates, epsilon, delta)
            broken += bool(truth.loss[points_at(truth, found.threshold)] > epsilon)
            certified += found.certified
        allowed = int(binom.ppf(0.999, draws, delta))
        what = f"eps {100 * epsilon:.1f} points, delta {delta:g}"
        print(f"{what}: {certified} of {draws} certified, {broken} failed, {allowed} allowed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("traces", nargs="*")
    parser.add_argument("--samples", type=int, default=2500)
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--simulated", type=int, default=1000)
    given = parser.parse_args()
    print(f"{measuring.environment_line(1)}, numpy {np.__version__}")
    for path in given.traces or [None]:
        name, scores, correct = pool_of(path)
        samples, time_steps = correct.shape
        print(f"\n{name}: {samples} samples, T = {time_steps}, score {FIRST}; n = {given.samples}, {given.draws} draws")
        compared(scores[FIRST], correct, given.samples, given.draws)
        if given.simulated:
            simulated(scores[FIRST], correct, given.samples, given.simulated)


if __name__ == "__main__":
    main()
