"""Whether a search costs the same however many came before it, in one process and one home.

    python benchmarks/searches.py --count 1000

The same search, on the same traces, is made again and again; the allowed loss differs in its last digits, so that each has an
artefact of its own. Printed are the medians of the first and of the last searches, after one that only imports what is needed,
and the ratio of the two.
"""

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import measuring
import sleeping

from dynconf_core.experiment.stages import job, stage
from dynconf_tasks.search import search

AT_EACH_END = 25


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(f"{measuring.environment_line(1)}; seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="dynconf-searches-") as name:
        home = Path(name)
        plan, context = sleeping.asked(home, options.seed)
        done = sleeping.made(home, options.seed)
        inputs = {role: done[other] for role, other in stage("search").inputs.items()}
        given = job(plan, context)
        costs = []
        for number in range(1, options.count + 2):
            loss = plan.search.max_drop + number * 1e-12
            one = replace(given, plan=replace(plan, search=replace(plan.search, max_drop=loss)))
            cpu, wall = time.process_time(), time.perf_counter()
            search.fn(one, inputs)
            costs.append((time.process_time() - cpu, time.perf_counter() - wall))
        del costs[0]
        row: dict[str, float] = {"searches": options.count, "trials each": plan.search.trials}
        some = min(AT_EACH_END, options.count // 2)
        for place, what in enumerate(("CPU", "wall")):
            first, last = (statistics.median(cost[place] for cost in part) for part in (costs[:some], costs[-some:]))
            found = {f"first {what} s": first, f"last {what} s": last, f"{what} ratio": last / first}
            row |= {name: round(value, 4) for name, value in found.items()}
        print(json.dumps(row))


if __name__ == "__main__":
    main()
