"""Time and memory of the exact front, for N = 50 000 samples and T = 64 steps.

    python benchmarks/front.py

Each kind of scores runs in a fresh process. `first` is the first call, which includes the allocation of memory by the system;
`again` is the median of further calls. Both are CPU seconds, so that other processes matter less. Memory is the peak that
Python and numpy allocate, not counting the scores and correct predictions.
"""

import argparse
import json
import statistics
import time
import tracemalloc
from typing import Any

import measuring
import numpy as np
from numpy.typing import NDArray

KINDS = {
    "rising": "scores rise at every step: the largest possible number of points",
    "walk": "random walks",
    "float32": "random walks rounded to float32 and hundredths: some ties",
    "patience": "steps since the prediction last changed: 64 values, many ties",
    "constant": "a single value",
}


def scores_of(kind: str, samples: int, time_steps: int) -> NDArray[np.float64]:
    rng = np.random.default_rng(0)
    if kind == "rising":
        return rng.random((samples, time_steps)).cumsum(axis=1)
    if kind == "walk":
        return rng.normal(size=(samples, time_steps)).cumsum(axis=1)
    if kind == "float32":
        return rng.normal(size=(samples, time_steps)).round(2).astype(np.float32).cumsum(axis=1).astype(np.float64)
    if kind == "patience":
        changed = rng.random((samples, time_steps)) < 0.05
        changed[:, 0] = True
        steps = np.arange(time_steps)
        return (steps - np.maximum.accumulate(np.where(changed, steps, 0), axis=1) + 1).astype(np.float64)
    return np.zeros((samples, time_steps))


def measured(kind: str, samples: int, time_steps: int, repeats: int) -> dict[str, Any]:
    from dynconf_core.exit.front import exact_front

    scores = scores_of(kind, samples, time_steps)
    correct = np.random.default_rng(1).random(scores.shape) < 0.9
    spent = []
    for _ in range(1 + repeats):
        begin = time.process_time()
        front = exact_front(scores, correct)
        spent.append(time.process_time() - begin)
    points = len(front)
    del front
    tracemalloc.start()
    exact_front(scores, correct)
    memory = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return {"points": points, "first": spent[0], "again": statistics.median(spent[1:]), "memory": memory / 2**20}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=50_000)
    parser.add_argument("--time-steps", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--worker", type=json.loads, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        print(json.dumps(measured(**given.worker)))
        return
    print(f"{measuring.environment_line(1)}, numpy {np.__version__}; N = {given.samples}, T = {given.time_steps}")
    for kind, meaning in KINDS.items():
        arguments = {"kind": kind, "samples": given.samples, "time_steps": given.time_steps, "repeats": given.repeats}
        found = measuring.in_fresh_process("front.py", arguments, 1)
        print(
            f"{kind:9s} {found['points']:>9,} points  first {found['first']:.3f} s  again {found['again']:.3f} s  "
            f"{found['memory']:4.0f} MiB   {meaning}"
        )


if __name__ == "__main__":
    main()
