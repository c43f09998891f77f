"""Many small runs in one home, most of them killed: what is left behind, and whether the home stays whole.

    python benchmarks/soak.py --runs 200 --seed 0 --home /tmp/soak

Every run is a `dynconf reproduce` of a tiny setting. By a seeded choice it is left alone, killed at a random time, killed at a
failure point, loses a random descendant (a child or the Prefect server), is asked to stop by a signal, or runs beside a second
one that is killed. After each run no process may be left, and the store must verify whole. At the end one more run is
completed, which ends the records of the killed ones: then no record may say that it runs, no lock or temporary file may be
left, and the figures must be those of a home in which nothing was ever killed. Otherwise the exit code is 1, and what was wrong
is listed.
"""

import argparse
import json
import os
import random
import resource
import secrets
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from dynconf_core.failing import DIE_AT, POINTS
from dynconf_core.home.leftovers import leftovers, remove
from dynconf_core.home.sizes import size_of, size_text
from dynconf_core.home.verification import verified

MARK = "DYNCONF_SOAK"
"""Set in the environment of every process of a soak, so that those left behind are found."""
SETTING = ("--setting", "cifar10-vgg16-qffs", "--set", "epochs=1", "--set", "time_steps=4")
FATES = {"left alone": 1, "killed": 3, "killed at a point": 3, "descendant killed": 2, "signal": 2, "pair": 2}
"""What happens to a run, and how often."""
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
SEEDS, DROPS = 12, ("0.0", "0.01", "0.05")
PATIENCE = 300.0
"""Seconds after which a run is taken to hang."""
ENDING = 10.0
"""Seconds within which all processes of a run have to end after it."""
UNEQUAL = ("stages", "resources", "artefacts")
"""Fields of a setting's results that say how it was computed, and not what came out."""


@dataclass
class Soak:
    """A soak in progress: its home, and what was seen.

    If ``kill_after`` names a stage, each run is killed once the home has an artefact of it.
    """

    home: Path
    kill_after: str | None = None
    mark: str = field(default_factory=lambda: secrets.token_hex(8))
    longest: float = 40.0
    wrong: list[str] = field(default_factory=list)
    fates: Counter[str] = field(default_factory=Counter)
    codes: Counter[int] = field(default_factory=Counter)
    files: list[int] = field(default_factory=list)

    def run(self, number: int, chance: random.Random) -> None:
        """One run with a random fate, and the checks after it."""
        fate = "killed" if self.kill_after else chance.choices(list(FATES), list(FATES.values()))[0]
        self.fates[fate] += 1
        die_at = f"{chance.choice(list(POINTS))}:{chance.choice((1, 1, 2, 3, 7))}" if fate == "killed at a point" else None
        arguments = ("--seed", str(chance.randrange(SEEDS)), "--set", f"max_drop={chance.choice(DROPS)}")
        begin = time.monotonic()
        with self.started(arguments, die_at) as one:
            if fate == "pair":
                with self.started(arguments, None) as other:
                    self.harm(other, chance, "killed")
                    self.finish(other, f"run {number}, the second of a pair", "killed")
            else:
                self.harm(one, chance, fate)
            self.finish(one, f"run {number}, {fate}{f' {die_at}' if die_at else ''}", "left alone" if fate == "pair" else fate)
        if one.returncode == 0:
            self.longest = time.monotonic() - begin
        found = verified(self.home / "artefacts")
        self.wrong += [f"run {number}, {fate}: {damaged.why}" for damaged in found.damaged]
        self.files.append(sum(len(names) for _, _, names in os.walk(self.home)))

    def complete(self) -> None:
        """A last run that nothing disturbs; it ends the records of the killed ones first."""
        with self.started((), None) as process:
            self.finish(process, f"the last run in {self.home.name}", "left alone")

    @contextmanager
    def started(self, arguments: Sequence[str], die_at: str | None) -> Iterator[subprocess.Popen[str]]:
        """A run of the command."""
        environment = {**os.environ, MARK: self.mark, "OMP_NUM_THREADS": "1", "PREFECT_HOME": str(self.home / "prefect")}
        if die_at:
            environment[DIE_AT] = die_at
        command = [sys.executable, "-m", "dynconf_flows.command.main", "reproduce", *SETTING, *arguments]
        with subprocess.Popen(
            [*command, "--home", str(self.home)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def harm(self, process: subprocess.Popen[str], chance: random.Random, fate: str) -> None:
        """Do to a process what its fate says, at a random time."""
        if fate not in ("killed", "descendant killed", "signal"):
            return
        with suppress(subprocess.TimeoutExpired):
            if self.kill_after is None:
                process.wait(chance.uniform(0, 1.2 * self.longest))
            else:
                while not any((self.home / "artefacts" / self.kill_after).glob("*/*")) and process.poll() is None:
                    time.sleep(0.02)
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            if fate == "descendant killed":
                below = psutil.Process(process.pid).children(recursive=True)
                if below:
                    chance.choice(below).kill()
            else:
                process.send_signal(signal.SIGKILL if fate == "killed" else chance.choice(SIGNALS))

    def finish(self, process: subprocess.Popen[str], name: str, fate: str) -> None:
        """Wait for the end of a process and of all that it started."""
        try:
            output, _ = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            output, _ = process.communicate()
            self.wrong.append(f"{name}: it hangs")
        self.codes[process.returncode] += 1
        if "Traceback" in output:
            self.wrong.append(f"{name}: a traceback\n{output[-2000:]}")
        if fate == "left alone" and process.returncode:
            self.wrong.append(f"{name}: exit code {process.returncode}\n{output[-2000:]}")

    def left_behind(self) -> list[psutil.Process]:
        """Processes of this soak that still run."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.pid != os.getpid() and process.environ().get(MARK) == self.mark:
                    found.append(process)
        return found

    def check_processes(self, name: str) -> None:
        """All processes have to end soon."""
        end = time.monotonic() + ENDING
        while (left := self.left_behind()) and time.monotonic() < end:
            time.sleep(0.1)
        for process in left:
            with suppress(psutil.Error):
                self.wrong.append(f"{name}: left behind: {' '.join(process.cmdline())[:200]}")
                process.kill()

    def check_records(self) -> None:
        """No record may say that it runs, and nothing of killed processes may be left but what is known as such."""
        self.wrong += [f"still running: {text}" for text in unfinished(self.home)]
        left = leftovers(self.home, grace=0)
        print(f"temporary files of processes that were killed in the last minute: {sum(map(remove, left))}")
        hidden = [path for path in self.home.rglob(".*") if path.name not in (".lock", ".tmp")]
        folders = (self.home / "running", self.home / "claims", self.home / "artefacts" / ".tmp")
        lying = [path for folder in folders if folder.is_dir() for path in folder.iterdir()]
        self.wrong += [f"left over: {path}" for path in (*hidden, *lying)]


def unfinished(home: Path) -> list[str]:
    """The records in Prefect, MLflow and Optuna that say that they run."""
    texts = []
    for database, table, running in (
        ("prefect/prefect.db", "flow_run", "state_type in ('PENDING', 'RUNNING', 'CANCELLING') or state_type is null"),
        ("prefect/prefect.db", "task_run", "state_type in ('PENDING', 'RUNNING', 'CANCELLING') or state_type is null"),
        ("mlflow.db", "runs", "status = 'RUNNING'"),
    ):
        with closing(sqlite3.connect(home / database)) as connection:
            texts += [f"{table} {name}" for (name,) in connection.execute(f"select name from {table} where {running}")]
    from optuna.trial import TrialState

    from dynconf_tasks.study.storage import studies

    for name, study in studies(home):
        texts += [f"{name}, trial {trial.number}" for trial in study.get_trials(states=(TrialState.RUNNING,))]
    return texts


def figures(home: Path) -> list[dict[str, Any]]:
    """The settings of the newest results, without what says how they were computed."""
    rows = json.loads((home / "results" / "latest" / "results.json").read_text())["settings"]
    return [{name: value for name, value in row.items() if name not in UNEQUAL} for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no further run after so many minutes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--home", type=Path, required=True, help="a folder that does not exist yet")
    parser.add_argument("--kill-after", metavar="STAGE", help="kill each run once the home has an artefact of this stage")
    parser.add_argument("--no-reference", action="store_true", help="do not compare with a home in which nothing was killed")
    asked = parser.parse_args()
    for name in ("PREFECT_API_URL", "PREFECT_HOME", "MLFLOW_TRACKING_URI", "DYNCONF_HOME", DIE_AT):
        os.environ.pop(name, None)
    home: Path = asked.home.absolute()
    home.mkdir(parents=True)
    soak, begin = Soak(home, asked.kill_after), time.monotonic()
    for number in range(asked.runs):
        soak.run(number, random.Random(f"{asked.seed}-{number}"))
        soak.check_processes(f"run {number}")
        print(f"{number + 1} of {asked.runs}, {soak.files[-1]} files, {len(soak.wrong)} faults", flush=True)
        if time.monotonic() - begin > 60 * asked.minutes:
            break
    soak.complete()
    soak.check_records()
    if not asked.no_reference:
        reference = Soak(home.with_name(f"{home.name}-undisturbed"), mark=soak.mark)
        reference.complete()
        soak.wrong += reference.wrong
        if figures(home) != figures(reference.home):
            soak.wrong.append("the figures are not those of a home in which nothing was killed")
    soak.check_processes("the end")
    report(soak, time.monotonic() - begin)


def report(soak: Soak, seconds: float) -> None:
    """Print what was seen; exit code 1 if anything was wrong."""
    print(f"{sum(soak.fates.values())} runs in {seconds:.0f} s: " + ", ".join(f"{n} {fate}" for fate, n in soak.fates.items()))
    print("exit codes: " + ", ".join(f"{code} {count} times" for code, count in sorted(soak.codes.items())))
    quarter = max(1, len(soak.files) // 4)
    print(f"files: {', '.join(str(count) for count in soak.files[quarter - 1 :: quarter])} after each quarter")
    parts = {part.name: size_of(part) for part in sorted(soak.home.iterdir())}
    print("sizes: " + ", ".join(f"{name} {size_text(size)}" for name, size in parts.items() if size))
    found = verified(soak.home / "artefacts")
    print(f"store: {found.artefacts} artefacts, {size_text(found.size)}, {len(found.damaged)} damaged")
    peak = 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(f"memory of the largest process: {size_text(peak)}")
    for text in soak.wrong:
        print(f"WRONG {text}")
    if soak.wrong:
        sys.exit(1)


if __name__ == "__main__":
    main()
