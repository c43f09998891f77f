"""Whether a search costs the same however many came before it, in one process and one home.

    python benchmarks/searches.py --count 1000

The same search, on the same traces, is made again and again; the allowed loss differs in its last digits, so that each has an
artefact of its own. Then searches of this process alternate with those of a process that was forked before the first of them
and has a home of its own, so that both meet the same load of the machine. Printed are the medians of both, and of the ratios
of the pairs.
"""

import argparse
import json
import shutil
import statistics
import tempfile
import time
from dataclasses import replace
from multiprocessing import Pipe, get_context
from multiprocessing.connection import Connection
from pathlib import Path

import measuring
import sleeping

from dynconf_core.experiment.job import Inputs, Job
from dynconf_core.experiment.stages import job, stage
from dynconf_tasks.search import search

PAIRS = 25


def cost(given: Job, inputs: Inputs, number: int) -> tuple[float, float]:
    """CPU and wall seconds of a search, whose key depends on ``number``."""
    search_plan = replace(given.plan.search, max_drop=given.plan.search.max_drop + number * 1e-12)
    cpu, wall = time.process_time(), time.perf_counter()
    search.fn(replace(given, plan=replace(given.plan, search=search_plan)), inputs)
    return time.process_time() - cpu, time.perf_counter() - wall


def search_on_demand(given: Job, inputs: Inputs, line: Connection) -> None:
    """Make a search for each number that arrives, and send what it cost."""
    while (number := line.recv()) is not None:
        line.send(cost(given, inputs, number))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--trials", type=int, default=24, help="of each search (24, the default of a run)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(f"{measuring.environment_line(1)}; seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="dynconf-searches-") as name:
        home, untouched = Path(name) / "home", Path(name) / "untouched"
        plan, context = sleeping.asked(home, options.seed)
        done = sleeping.made(home, options.seed)
        shutil.copytree(home, untouched)
        inputs = {role: done[other] for role, other in stage("search").inputs.items()}
        given = job(replace(plan, search=replace(plan.search, trials=options.trials)), context)
        cost(given, inputs, 0)  # imports what is needed
        ours, theirs = Pipe()
        elsewhere = replace(given, context=replace(context, home=untouched))
        fresh = get_context("fork").Process(target=search_on_demand, args=(elsewhere, inputs, theirs), daemon=True)
        fresh.start()
        for number in range(1, options.count + 1):
            cost(given, inputs, number)
        first, last = [], []
        for number in range(options.count + 1, options.count + 1 + PAIRS):
            last.append(cost(given, inputs, number))
            ours.send(number)
            first.append(ours.recv())
        ours.send(None)
        row: dict[str, float] = {"searches": options.count, "trials each": options.trials}
        for place, what in enumerate(("CPU", "wall")):
            some = [statistics.median(one[place] for one in costs) for costs in (first, last)]
            ratio = statistics.median(b[place] / a[place] for a, b in zip(first, last, strict=True))
            found = {f"first {what} s": some[0], f"last {what} s": some[1], f"{what} ratio": ratio}
            row |= {key: round(value, 4) for key, value in found.items()}
        print(json.dumps(row))


if __name__ == "__main__":
    main()
