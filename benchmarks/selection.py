"""The accuracy that the chosen rule loses on unseen samples, by resampling: does the expected loss hold?

    python benchmarks/selection.py [TRACES.npz ...] [--samples 300 1000 3000] [--draws 60]

Calibration sets of n samples are drawn with replacement from a pool (synthetic scores if no traces are given), which is the
ground truth. All procedures choose score and threshold on the same sets. The table shows, on the whole pool, the mean points of
accuracy lost (with standard error), the worst draw, and the mean steps:

- raw: the score and threshold with the fewest mean steps whose loss on the calibration set is allowed;
- margin: the same, after adding one standard error to the paired loss;
- first score, promised: `promised_point` for the first score only;
- all scores, promised: the best of all scores by `promised_point`, ignoring that the same samples choose among scores;
- split: the score by the raw procedure on one half, its threshold by `promised_point` on the other;
- cross-fitted: `cross_fitted_choice`, the procedure in use. Its expected loss is at most the allowed one or 1 / (n + 1).
"""

import argparse

import measuring
import numpy as np
from numpy.typing import NDArray
from scored import pool_of

from dynconf_core.choosing.cross_fitting import cross_fitted_choice
from dynconf_core.choosing.selection import promised_loss, promised_point
from dynconf_core.exit.front import PairedFront, paired_front, points_at

ALLOWED = (0.0, 0.001, 0.005, 0.01)
Choice = tuple[int, float]


def raw_point(front: PairedFront, allowed: float, errors: float = 0.0) -> int:
    changed = front.lost + front.gained
    error = np.sqrt(np.maximum(changed - (front.lost - front.gained) ** 2 / front.samples, 0.0)) / front.samples
    return int(np.argmax(front.loss + errors * error <= allowed + 1e-9))


def best(fronts: list[PairedFront], points: list[int]) -> Choice:
    index = int(np.argmin([front.mean_steps[point] for front, point in zip(fronts, points, strict=True)]))
    return index, float(fronts[index].thresholds[points[index]])


def choices(scores: list[NDArray[np.float64]], correct: NDArray[np.bool_], allowed: float, seed: int) -> dict[str, Choice]:
    fronts = [paired_front(score, correct) for score in scores]
    half = len(correct) // 2
    one_half = [paired_front(score[:half], correct[:half]) for score in scores]
    index, _ = best(one_half, [raw_point(front, allowed) for front in one_half])
    other = paired_front(scores[index][half:], correct[half:])
    fitted = cross_fitted_choice([(score, correct) for score in scores], allowed, seed=seed)
    return {
        "raw": best(fronts, [raw_point(front, allowed) for front in fronts]),
        "margin": best(fronts, [raw_point(front, allowed, 1.0) for front in fronts]),
        "first score, promised": (0, float(fronts[0].thresholds[promised_point(fronts[0], allowed)])),
        "all scores, promised": best(fronts, [promised_point(front, allowed) for front in fronts]),
        "split": (index, float(other.thresholds[promised_point(other, allowed)])),
        "cross-fitted": (fitted.index, fitted.threshold),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("traces", nargs="*")
    parser.add_argument("--samples", type=int, nargs="+", default=[300, 1000, 3000])
    parser.add_argument("--draws", type=int, default=60)
    given = parser.parse_args()
    print(f"{measuring.environment_line(1)}, numpy {np.__version__}")
    for path in given.traces or [None]:
        name, pool, correct = pool_of(path)
        scores = list(pool.values())
        truth = [paired_front(score, correct) for score in scores]
        for samples in given.samples:
            rng = np.random.default_rng(0)
            found: dict[tuple[str, float], list[tuple[float, float]]] = {}
            for draw in range(given.draws):
                drawn = rng.integers(0, len(correct), samples)
                for allowed in ALLOWED:
                    chosen = choices([score[drawn] for score in scores], correct[drawn], allowed, draw)
                    for way, (index, threshold) in chosen.items():
                        at = points_at(truth[index], threshold)
                        point = (100 * float(truth[index].loss[at]), float(truth[index].mean_steps[at]))
                        found.setdefault((way, allowed), []).append(point)
            promises = "  ".join(f"allowed {100 * a:.1f}, expected {100 * promised_loss(samples, a):.2f} " for a in ALLOWED)
            print(f"\n{name}, {len(scores)} scores, n = {samples}, {given.draws} draws\n{'':22s}{promises}")
            for way in dict.fromkeys(way for way, _ in found):
                cells = []
                for allowed in ALLOWED:
                    lost, steps = np.array(found[way, allowed]).T
                    error = lost.std(ddof=1) / np.sqrt(given.draws)
                    cells.append(f"{lost.mean():5.2f}+-{error:.2f} max {lost.max():4.2f} @{steps.mean():6.2f}")
                print(f"{way:22s}" + "  ".join(f"{cell:28s}" for cell in cells))


if __name__ == "__main__":
    main()
