"""Stages run one after the other without a flow, in this process or, as a script, in one of its own.

    python tests/stage_cases.py HOME STAGE ...    of a tiny setting; prints a line of JSON for each event

The variable ``BLOCK_AT`` names a failure point at which the script stops for good; with ``FORKS``, as many copies of the
process run the stages at once.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from processes import ended, started

from dynconf_core.experiment.job import Handle, Job
from dynconf_core.experiment.request import Request
from dynconf_core.experiment.stages import STAGES, job, stages_of

SETTING = "cifar10-vgg16-qffs"
TINY = {"epochs": 2, "time_steps": 4, "width": 0.04}


def tiny_job(home: Path, **search: Any) -> Job:
    """The job of a tiny setting on the digits; ``search`` changes fields of its search."""
    request = Request(settings=(SETTING,), overrides=TINY, home=str(home), device="cpu")
    (plan,) = request.plans()
    return job(replace(plan, search=replace(plan.search, **search)), request.context())


def run_stage(name: str, given: Job, done: dict[str, Handle]) -> Handle:
    """Run one stage, whose inputs ``done`` holds."""
    meant = next(one for one in stages_of(given.plan) if one.name == name)
    module, _, function = meant.task.partition(":")
    inputs = {role: done[other] for role, other in meant.inputs.items()}
    returned = getattr(import_module(module), function).fn(given, inputs)
    found: Handle = returned if isinstance(returned, Handle) else returned.result()
    return found


def run_stages(given: Job, names: Iterable[str] = (), done: dict[str, Handle] | None = None) -> dict[str, Handle]:
    """Run all stages or the named ones, in their order."""
    stages = stages_of(given.plan)
    wanted = tuple(names) or tuple(one.name for one in stages)
    found = dict(done or {})
    for one in stages:
        if one.name in wanted:
            found[one.name] = run_stage(one.name, given, found)
    return found


def process(home: Path, *stages: str, cwd: Path | None = None, **variables: str) -> subprocess.Popen[str]:
    """This file as a script; ``variables`` are added to its environment."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent.parent), **variables}
    words = [sys.executable, str(Path(__file__)), str(home), *stages]
    return subprocess.Popen(words, env=environment, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def events(running: subprocess.Popen[str], timeout: float = 600) -> list[dict[str, Any]]:
    """What the script printed, once it has ended well."""
    out, errors = running.communicate(timeout=timeout)
    assert running.returncode == 0, errors
    return [json.loads(line) for line in out.splitlines() if line.startswith("{")]


class Forked:
    """This file as a script, in a process that has imported everything; what it says is read while it runs."""

    def __init__(self, folder: Path, home: Path, *stages: str, **variables: str) -> None:
        number, name = tempfile.mkstemp(dir=folder)
        os.close(number)

        def work() -> None:
            os.dup2(os.open(name, os.O_WRONLY | os.O_APPEND), 1)
            main(str(home), *stages)

        self._file, self._heard = Path(name), 0
        self.process = started(work, variables)

    def event(self) -> dict[str, Any]:
        """The next thing that it says."""
        while len(said := self._said()) == self._heard:
            assert self.process.is_alive()
            time.sleep(0.02)
        self._heard += 1
        return said[self._heard - 1]

    def events(self) -> list[dict[str, Any]]:
        """What else it says until it has ended well."""
        assert ended(self.process) == 0
        return self._said()[self._heard :]

    def end(self) -> None:
        """Kill it if it still runs."""
        self.process.kill()
        self.process.join()

    def _said(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._file.read_text().splitlines()]


def say(**event: Any) -> None:
    os.write(1, (json.dumps(event) + "\n").encode())  # at once, so that lines of several processes do not mix


class Says:
    """A listener that prints events."""

    def __init__(self, setting: str, name: str) -> None:
        self.stage, self.waited = name, False

    def started(self) -> None:
        say(event="started", stage=self.stage, at=time.time())

    def __call__(self, done: int, total: int, text: str) -> None:
        pass

    def waiting(self, text: str) -> None:
        if not self.waited:
            self.waited = True
            say(event="waiting", stage=self.stage, text=text)

    def finished(self, outcome: str, seconds: float) -> None:
        say(event="finished", stage=self.stage, outcome=outcome)


def main(home: str, *names: str) -> None:
    from dynconf_core.failing import failing
    from dynconf_tasks.listening import listen

    def block(point: str) -> None:
        if point == os.environ.get("BLOCK_AT"):
            say(event="blocked", point=point)
            time.sleep(600)

    listen(Says)
    given = tiny_job(Path(home))
    given.context.prepare()
    for one in STAGES:
        import_module(one.task.partition(":")[0])
    forks = int(os.environ.get("FORKS", 0))
    children = []
    for _ in range(forks):
        children.append(os.fork())
        if children[-1] == 0:
            forks = 0
            break
    if forks:
        for child in children:
            assert os.waitpid(child, 0)[1] == 0
        return
    with failing(block):
        done = run_stages(given, names)
    say(event="done", digests={name: one.digest for name, one in done.items()})


if __name__ == "__main__":
    main(*sys.argv[1:])
