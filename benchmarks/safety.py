"""What a run pays for being safe: claims, running files, verified and touched artefacts, keys, processes of settings.

    python benchmarks/safety.py

Wall milliseconds, medians of repeated calls in a fresh home, which lies in the system's temporary folder unless ``--home`` says
otherwise; what waits for a disk depends on it. The last three lines start processes.
"""

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import measuring

from dynconf_core.experiment.request import Request
from dynconf_core.experiment.stages import STAGES
from dynconf_core.files import write_text
from dynconf_core.home.running import running, stale
from dynconf_core.store.artefacts import Store
from dynconf_core.store.claim import claim
from dynconf_core.store.fingerprint import fingerprint
from dynconf_core.store.keys import StageKey, stage_key
from dynconf_core.store.use import note_use

MEGABYTES = 16
HOLD = """
import sys, time
from pathlib import Path
from dynconf_core.store.claim import claim
with claim(Path(sys.argv[1]), "key", "holding"):
    print("held", flush=True)
    time.sleep(600)
"""


def milliseconds(work: Callable[[], object], repeats: int) -> float:
    """Median wall time of a call."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


def made(store: Store, number: int) -> StageKey:
    """The key of a new artefact of ``MEGABYTES``."""
    key = stage_key("train", {"number": number}, {}, "0" * 64)
    with store.create(key, {}) as folder:
        (folder / "content").write_bytes(os.urandom(MEGABYTES << 20))
    return key


@contextmanager
def held(home: Path) -> Iterator["subprocess.Popen[str]"]:
    """A process that holds the claim ``key``."""
    environment = {**os.environ, "PYTHONPATH": str(measuring.HERE.parent)}
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(home)], stdout=subprocess.PIPE, text=True, env=environment, cwd=home
    )
    assert process.stdout is not None and process.stdout.readline()
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def takeover(home: Path) -> float:
    """Milliseconds from the death of a claim's holder until another process has it."""
    with held(home) as process:
        died: list[float] = []

        def kill() -> None:
            died.append(time.perf_counter())
            process.kill()

        threading.Timer(0.3 + 0.05 * random.random(), kill).start()
        with claim(home, "key", "taking over", lambda who: None):
            return 1000 * (time.perf_counter() - died[0])


def code_of(home: Path) -> None:
    """Fingerprint the code of all stages of a setting, read anew."""
    from dynconf_core.experiment import stages
    from dynconf_core.store import source

    source.digest_and_imports.cache_clear()
    plan = Request(home=str(home)).plans()[0]
    for stage in STAGES:
        modules = stage.modules(plan)
        fingerprint(list(modules.values()), stages.ROOT, without=stages.WITHOUT_INFLUENCE)


def process(arguments: list[str], home: Path) -> None:
    """Run Python in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(measuring.HERE.parent)}
    subprocess.run([sys.executable, "-P", *arguments], env=environment, cwd=home, check=True, stdout=subprocess.DEVNULL)


def claimed(home: Path) -> None:
    with claim(home, "free", "timing"):
        pass


def shown(home: Path) -> None:
    with running(home, "timing"):
        stale(home)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, help="a folder in which a temporary home is made")
    parser.add_argument("--repeats", type=int, default=200)
    asked = parser.parse_args()
    print(measuring.environment_line(1))
    with tempfile.TemporaryDirectory(dir=asked.home) as folder:
        home, few = Path(folder), max(3, asked.repeats // 40)
        store = Store(home / "artefacts")
        key = made(store, 0)
        artefact = store.get(key)
        assert artefact is not None
        lines = {
            "a claim that nobody else wants": milliseconds(lambda: claimed(home), asked.repeats),
            "a running file, and looking for stale ones": milliseconds(lambda: shown(home), asked.repeats),
            "noting the use of an artefact": milliseconds(lambda: note_use(store.root, artefact.folder), asked.repeats),
            f"verifying an artefact of {MEGABYTES} MiB": milliseconds(lambda: store.get(key), few),
            f"writing an artefact of {MEGABYTES} MiB": statistics.median(
                milliseconds(lambda n=n: made(store, n + 1), 1)
                for n in range(few)  # type: ignore[misc]
            ),
            "writing a small file whole": milliseconds(lambda: write_text(home / "small", "{}"), asked.repeats),
            "fingerprints of the code of six stages": milliseconds(lambda: code_of(home), few),
            "taking over from a process that was killed": statistics.median(takeover(home) for _ in range(few)),
            "a process that imports what a setting needs": milliseconds(
                lambda: process(["-c", "import dynconf_flows.setting, dynconf_tasks.track"], home), 3
            ),
            "dynconf status": milliseconds(
                lambda: process(["-m", "dynconf_flows.command.main", "status", "--home", folder], home), 3
            ),
        }
    for what, found in lines.items():
        print(f"{what:<48}{found:>12.3f} ms")


if __name__ == "__main__":
    main()
