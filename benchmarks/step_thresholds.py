"""Thresholds that depend on the time step: what a few parameters save, and how free ones over-fit.

    python benchmarks/step_thresholds.py [TRACES.npz ...] [--samples 2500] [--draws 20]

Calibration sets of n samples are drawn with replacement from a pool (synthetic scores if no traces are given), which is the
ground truth. For a single score, the table shows mean steps and points of accuracy lost on the calibration set and on the whole
pool:

- constant, raw: one threshold, with the fewest mean steps whose loss on the calibration set is allowed;
- constant: one threshold, chosen by `promised_point`;
- schedule: one of the family `schedules` and its threshold, chosen by `cross_fitted_choice`;
- free: one threshold per step by `free_thresholds`, starting from the raw constant one.
"""

import argparse

import measuring
import numpy as np
from numpy.typing import NDArray
from schedules import Schedule, exit_steps_by_step, free_thresholds, schedules
from scored import FIRST, pool_of

from dynconf_core.choosing.cross_fitting import cross_fitted_choice
from dynconf_core.choosing.selection import operating_point, promised_point
from dynconf_core.exit.front import exact_front, paired_front

ALLOWED = (0.0, 0.001, 0.005, 0.01)
Rule = tuple[Schedule, NDArray[np.float64]]


def chosen(scores: NDArray[np.float64], correct: NDArray[np.bool_], allowed: float, seed: int) -> dict[str, Rule]:
    steps = scores.shape[1]
    front, paired = exact_front(scores, correct), paired_front(scores, correct)
    raw = float(front.thresholds[operating_point(front, float(correct[:, -1].mean()), allowed)])
    family = schedules(scores)
    fitted = cross_fitted_choice(((schedule.shifted(scores), correct) for schedule in family), allowed, seed=seed)
    return {
        "constant, raw": (Schedule(), np.full(steps, raw)),
        "constant": (Schedule(), np.full(steps, paired.thresholds[promised_point(paired, allowed)])),
        "schedule": (family[fitted.index], np.full(steps, fitted.threshold)),
        "free": (Schedule(), free_thresholds(scores, correct, raw, allowed)),
    }


def judged(rule: Rule, scores: NDArray[np.float64], correct: NDArray[np.bool_]) -> tuple[float, float]:
    schedule, thresholds = rule
    steps = exit_steps_by_step(schedule.shifted(scores), thresholds)
    right = correct[np.arange(len(steps)), steps - 1]
    return float(steps.mean()), 100 * float(correct[:, -1].mean() - right.mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("traces", nargs="*")
    parser.add_argument("--samples", type=int, default=2500)
    parser.add_argument("--draws", type=int, default=20)
    given = parser.parse_args()
    print(f"{measuring.environment_line(1)}, numpy {np.__version__}")
    for path in given.traces or [None]:
        name, pool, correct = pool_of(path)
        scores = pool[FIRST]
        print(f"\n{name}, {FIRST}, n = {given.samples}, {given.draws} draws")
        for allowed in ALLOWED:
            found: dict[str, list[tuple[float, float, float, float]]] = {}
            rng = np.random.default_rng(0)
            for draw in range(given.draws):
                drawn = rng.integers(0, len(correct), given.samples)
                for way, rule in chosen(scores[drawn], correct[drawn], allowed, draw).items():
                    here, everywhere = judged(rule, scores[drawn], correct[drawn]), judged(rule, scores, correct)
                    found.setdefault(way, []).append((*here, *everywhere))
            print(f"allowed {100 * allowed:.1f} points")
            for way, values in found.items():
                table = np.array(values)
                steps, lost, unseen_steps, unseen_lost = table.mean(axis=0)
                error = table[:, 3].std(ddof=1) / np.sqrt(given.draws)
                print(
                    f"  {way:14s} calibration: {steps:6.2f} steps, {lost:5.2f} points lost   "
                    f"unseen: {unseen_steps:6.2f} steps, {unseen_lost:5.2f}+-{error:.2f} (worst {table[:, 3].max():.2f})"
                )


if __name__ == "__main__":
    main()
