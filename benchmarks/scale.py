"""What spreading points costs: studies whose stages are sleeps, by the number of points and of participants.

    python benchmarks/scale.py --points 200 1000 --participants 1 2 4 8             # a journal in the home, no servers
    scripts/cluster up --workers 0
    python benchmarks/scale.py --points 200 1000 --participants 1 4 --cluster .cluster
    python benchmarks/scale.py --points 200 --cluster .cluster --parts mlflow        # what one of them costs alone

A point has the records of a real one (see sleeping.py). Participants are processes of this machine, which begin together once
all have imported what they need. A line of JSON for each study: CPU seconds a point of the participants and of each server;
CPU and wall milliseconds for taking a point from the study and reporting it, of the first and of the last tenth of the points;
what each database and MLflow's files grew by, in kB a point; and CPU seconds to gather the results, once. CPU seconds hardly
depend on what else the machine does; wall seconds do.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import measuring
import psutil
import sleeping

from dynconf_core.home.sizes import size_of

sys.path.insert(0, str(measuring.HERE.parent / "scripts"))
from loopback.folder import DATABASES, HOST, Folder
from loopback.processes import processes

PARTS = {"storage": "DYNCONF_STORAGE", "prefect": "PREFECT_API_URL", "mlflow": "MLFLOW_TRACKING_URI"}
"""The servers that can be used, and the environment variables that name them."""
SERVERS = ("prefect", "mlflow", "postgres")


def cpu(folder: Folder | None) -> Counter[str]:
    """CPU seconds that each part of a cluster has used, those of its ended processes included."""
    found: Counter[str] = Counter()
    for number, part in processes(folder) if folder else ():
        with suppress(psutil.Error):
            found[part] += sum(psutil.Process(number).cpu_times()[:4])  # of the process, and of children that have ended
    return found


def sizes(folder: Folder | None, journal: Path) -> Counter[str]:
    """Bytes of the journal, or of each database, and of MLflow's files."""
    found = Counter({"optuna": size_of(journal)})
    if folder is not None:
        import psycopg

        for name in DATABASES:
            place = {"host": HOST, "port": folder.ports["postgres"], "user": name, "dbname": name}
            with psycopg.connect(**place, passfile=str(folder.passwords)) as connection:
                (size,) = connection.execute("select pg_database_size(current_database())").fetchone() or (0,)
                found["optuna" if name == "dynconf" else name] += size
        found["files"] = size_of(folder.path / "mlflow")
    return found


def participants(count: int, given: Mapping[str, Any], environment: Mapping[str, str], log: Path) -> list[dict[str, Any]]:
    """Start processes that take part, let them begin together, and wait; returns what each reports."""
    command = [sys.executable, str(Path(sleeping.__file__)), json.dumps(given)]
    with log.open("ab") as errors:
        started = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=environment, text=True)
            for _ in range(count)
        ]
        for one in started:
            assert one.stdout is not None and one.stdin is not None
            if one.stdout.readline() != "ready\n":
                raise SystemExit(f"a participant did not start:\n{log.read_text()[-3000:]}")
        for one in started:
            print("begin", file=one.stdin, flush=True)
        told = [one.communicate()[0] for one in started]
    if any(one.returncode for one in started):
        raise SystemExit(f"a participant failed:\n{log.read_text()[-3000:]}")
    return [json.loads(text.splitlines()[-1]) for text in told]


def measured(count: int, given: dict[str, Any], environment: Mapping[str, str], folder: Folder | None) -> dict[str, Any]:
    """Run a study with ``count`` participants; returns a row of the table."""
    home, points = Path(given["home"]), given["points"]
    journal = home / "studies" / f"{given['name']}.journal"
    used, size = cpu(folder), sizes(folder, journal)
    start = time.perf_counter()
    found = participants(count, given, environment, home / "participants.log")
    wall = max(one["wall"] for one in found)
    used_after, grown = cpu(folder) - used, sizes(folder, journal) - size
    taken = sum(len(one["costs"]) for one in found)
    if taken != points:
        raise SystemExit(f"{taken} of {points} points were taken")
    ends = [[mean_cost(one["costs"], end) for one in found if len(one["costs"]) >= 10] for end in (0, 1)]
    return {
        "points": points,
        "participants": count,
        "wall s": round(wall, 1),
        "with startup s": round(time.perf_counter() - start, 1),
        "points/s": round(points / wall, 2),
        "startup": round(statistics.mean(one["startup"] for one in found), 1),
        "CPU/point": round(sum(one["cpu"] for one in found) / points, 4),
        **{name: round(used_after[name] / points, 4) for name in SERVERS if folder},
        **{
            f"study {what} ms": " to ".join(f"{1000 * statistics.mean(cost[place] for cost in end):.1f}" for end in ends)
            for place, what in enumerate(("CPU", "wall"))
            if ends[0]
        },
        **{f"kB {name}": round(grown[name] / points / 1000, 1) for name in ("optuna", "prefect", "mlflow", "files")},
        "gather s": round(max(one["gathering"] for one in found), 2),
    }


def mean_cost(costs: Sequence[tuple[float, float]], end: int) -> tuple[float, float]:
    """The mean CPU and wall seconds of the first (0) or last (1) tenth of a participant's points."""
    tenth = len(costs) // 10
    some = costs[-tenth:] if end else costs[:tenth]
    return statistics.mean(cpu for cpu, _ in some), statistics.mean(wall for _, wall in some)


def environment_of(folder: Folder | None, parts: Sequence[str]) -> dict[str, str]:
    """The environment of the participants, in which the parts of the cluster that are used are named."""
    found = {name: value for name, value in os.environ.items() if name not in PARTS.values()}
    known = folder.environment() if folder else {}
    return {**found, "OMP_NUM_THREADS": "1", **{PARTS[part]: known[PARTS[part]] for part in parts}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, nargs="+", default=[200])
    parser.add_argument("--participants", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=0.0, help="that the stages of a point sleep in all (0)")
    parser.add_argument("--cluster", type=Path, help="the folder of a cluster that runs (scripts/cluster up)")
    parser.add_argument("--parts", nargs="*", choices=list(PARTS), help="the servers of the cluster to use; default: all")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    folder = Folder.at(options.cluster) if options.cluster else None
    parts = (list(PARTS) if options.parts is None else options.parts) if folder else []
    environment = environment_of(folder, parts)
    print(f"{measuring.environment_line(1)}; {', '.join(parts) or 'journal, no servers'}; seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="dynconf-scale-") as name:
        home = Path(name)
        for variable in PARTS.values():
            os.environ.pop(variable, None)
        done = {stage: asdict(handle) for stage, handle in sleeping.made(home, options.seed).items()}
        for points in options.points:
            for count in options.participants:
                study = f"{home.name}-{points}-{count}"
                given = {"home": name, "name": study, "points": points, "seconds": options.seconds, "parts": parts}
                row = measured(count, {**given, "seed": options.seed, "done": done}, environment, folder)
                print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
