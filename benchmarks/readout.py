"""The accuracy at a fixed T, and rules with early exit, with and without a readout.

    python benchmarks/readout.py NAME-calibration.npz NAME-test.npz [--time-steps T] [--drops 0,0.001,0.005]

The first lines are the test accuracies of the plain sum and of the readout (`dynconf_core.exit.readout`) at each step. The
table gives, for each measure and allowed drop of accuracy, the mean test steps and the points lost with rules that read the
plain sum, with rules that read it behind the readout, and with the one of both that is better on calibration.
"""

import argparse
import time
from pathlib import Path

import measuring
import numpy as np
import torch

from dynconf_core.choosing.candidates import READOUTS, candidates
from dynconf_core.choosing.contest import Contest
from dynconf_core.exit.readout import DecodedTraces
from dynconf_core.traces.schema import Traces

MEASURES = ("max_softmax", "entropy", "gap", "learned")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("calibration", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("--time-steps", type=int)
    parser.add_argument("--drops", type=lambda text: [float(part) for part in text.split(",")], default=[0.0, 0.001, 0.005])
    given = parser.parse_args()
    calibration, test = (Traces.load(path) for path in (given.calibration, given.test))
    if given.time_steps:
        calibration, test = calibration.cut(given.time_steps), test.cut(given.time_steps)
    print(f"{measuring.environment_line(torch.get_num_threads())}, numpy {np.__version__}")
    print(f"{given.test.name}: {calibration.samples} calibration and {test.samples} test samples, T = {test.time_steps}")
    began = time.perf_counter()
    found = candidates(calibration, 0, MEASURES)
    fitted = next(one.readout for one in found if one.readout is not None)
    print(f"{len(found)} candidates in {time.perf_counter() - began:.1f} s; penalty of the readout {fitted.penalty:g}")
    print("step      " + "".join(f"{step:>7}" for step in range(1, test.time_steps + 1)))
    for name, traces in (("sum", test), ("readout", DecodedTraces.of(test, [fitted.readout]))):
        print(f"{name:<10}" + "".join(f"{100 * accuracy:>7.2f}" for accuracy in traces.correct().mean(axis=0)))
    plain, decoded = ([one for one in found if (one.readout is None) == wanted] for wanted in (True, False))
    contests = [Contest(part, calibration, test) for part in (plain, decoded, found)]
    for drop in given.drops:
        print(f"\nallowed {100 * drop:g} points".ljust(24) + "".join(name.rjust(18) for name in READOUTS))
        for measure in MEASURES:
            cells = []
            for contest in contests:
                chosen = contest.choose(drop, measure)
                judged = contest.judged(chosen.index, chosen.rule.threshold)
                cells.append(f"{judged.mean_steps:.2f} ({100 * judged.loss:+.2f})")
            print(measure.ljust(23) + "".join(cell.rjust(18) for cell in cells))


if __name__ == "__main__":
    main()
