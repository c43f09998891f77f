"""A participant whose stages sleep: what it does besides is what sharing and recording points costs (see scale.py).

Run as a script, it takes a JSON object, says when it is ready, waits for a line, and prints what it has used. Settings have
the records of real ones: a subflow with a task run for each stage, and a run in MLflow with the figures, tables and files of a
setting that was computed once (``made``).
"""

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any

from prefect import State, flow, task

from dynconf_core.experiment.job import Handle, RunContext
from dynconf_core.experiment.plan import Plan
from dynconf_core.experiment.request import Request
from dynconf_core.experiment.stages import job, stages_of
from dynconf_core.results.environment import environment
from dynconf_core.results.rows import completed
from dynconf_core.results.types import AnySetting, SweepResult
from dynconf_core.schemes.field import Value
from dynconf_flows.prefect_runs import deliver_logs_and_events, owned
from dynconf_flows.setting import SettingRun
from dynconf_flows.taking_part import Participant
from dynconf_flows.workers.messages import Assignment
from dynconf_tasks.stage import TASK_OPTIONS
from dynconf_tasks.study.points import Listed, Values
from dynconf_tasks.study.shared import Code, SharedStudy, Taken
from dynconf_tasks.track import track
from dynconf_tasks.tracking.tracker import tracker

SETTING, SWEPT = "cifar10-vgg16-qffs", "seed"
TINY = {"epochs": 1, "time_steps": 8, "width": 0.04}


def asked(home: Path, seed: int) -> tuple[Plan, RunContext]:
    """The tiny setting that stands for all, and the environment of its run."""
    request = Request(settings=(SETTING,), overrides=TINY, seed=seed, home=str(home), device="cpu")
    return request.plans()[0], request.context()


def made(home: Path, seed: int) -> dict[str, Handle]:
    """Compute the tiny setting; returns its artefacts by stage."""
    plan, context = asked(home, seed)
    given, done = job(plan, context), dict[str, Handle]()
    for stage in stages_of(plan):
        module, _, function = stage.task.partition(":")
        returned = getattr(import_module(module), function).fn(given, {role: done[name] for role, name in stage.inputs.items()})
        done[stage.name] = returned.result() if isinstance(returned, State) else returned
    return done


@task(name="stage", task_run_name="{plan.setting} · {name}", **TASK_OPTIONS)
def sleep(plan: Plan, name: str, handle: Handle, seconds: float) -> Handle:
    """A stage that sleeps."""
    time.sleep(seconds)
    return handle


@flow(name="setting", flow_run_name="{plan.setting}", validate_parameters=False, persist_result=False)
def setting(
    plan: Plan,
    context: RunContext,
    checkpoint: Path | None,
    identity: Mapping[str, Value],
    parent_run: str | None,
    point: Mapping[str, Value] | None,
    observer: "Sleepers",
) -> SettingRun:
    """A setting whose stages sleep; its parameters are those of the flow that it stands for."""
    call, seconds = observer.called, observer.seconds / len(stages_of(plan))
    done = {name: call(sleep)(plan, name, handle, seconds) for name, handle in observer.done.items()}
    row: AnySetting = completed(plan, done, context)
    if parent_run is not None:
        call(track)(plan, row, done["evaluate"], context.home, identity, parent_run, point)
    return SettingRun(row)


class Sleepers:
    """Runs one sleeping setting at a time, in this process.

    Args:
        done: the artefacts of the setting that was computed, by stage.
        seconds: how long a setting sleeps.
        prefect: whether flows and tasks are recorded in Prefect.
    """

    def __init__(self, done: Mapping[str, Handle], seconds: float, prefect: bool) -> None:
        self.done, self.seconds, self.prefect = done, seconds, prefect
        self._number, self._ended = 0, list[tuple[int, SettingRun]]()

    def called(self, what: Any) -> Any:
        """A flow or task, or its function alone."""
        return what if self.prefect else what.fn

    @property
    def free(self) -> int:
        """See ``Workers.free``."""
        return 0 if self._ended else 1

    @property
    def busy(self) -> bool:
        """See ``Workers.busy``."""
        return bool(self._ended)

    def start(self, assignment: Assignment) -> int:
        """Run a setting to its end."""
        one = assignment
        run = self.called(setting)(one.plan, one.context, one.checkpoint, one.identity, one.parent, one.point, self)
        self._number += 1
        self._ended.append((self._number, run))
        return self._number

    def ended(self) -> list[tuple[int, SettingRun]]:
        """See ``Workers.ended``."""
        found, self._ended = self._ended, []
        return found

    def __enter__(self) -> "Sleepers":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        return None


class Timed(SharedStudy):
    """A study that notes what taking and reporting a point costs, waiting included: pairs of CPU and wall seconds."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.costs: list[tuple[float, float]] = []

    def take(self) -> Taken | None:
        """See ``SharedStudy.take``."""
        self.costs.append((0.0, 0.0))
        with self._noted():
            taken = super().take()
        if taken is None:
            self.costs.pop()
        return taken

    def done(self, taken: Taken, rows: Sequence[Mapping[str, Any]], figures: Sequence[float] | None) -> None:
        """See ``SharedStudy.done``."""
        with self._noted():
            super().done(taken, rows, figures)

    @contextmanager
    def _noted(self) -> Iterator[None]:
        cpu, wall = time.process_time(), time.perf_counter()
        yield
        before = self.costs[-1]
        self.costs[-1] = before[0] + time.process_time() - cpu, before[1] + time.perf_counter() - wall


def take_part(given: Mapping[str, Any]) -> dict[str, Any]:
    """Take part in a study until all its points are done; returns what it cost this process."""
    home, parts, count = Path(given["home"]), given["parts"], given["points"]
    done = {name: Handle(**handle) for name, handle in given["done"].items()}
    plan, context = asked(home, given["seed"])
    points = Listed([{"setting": plan.setting, SWEPT: number} for number in range(count)])
    study = Timed(home, given["name"], points, Code("benchmark", "benchmark"), lambda: given["name"], join=True)
    workers = Sleepers(done, given["seconds"], "prefect" in parts)
    gathering = 0.0

    def run() -> None:
        nonlocal gathering
        tracking = tracker(home) if "mlflow" in parts else None
        parent = tracking.parent(plan.profile, plan.seed, {}, given["name"], "sweep") if tracking else None

        def assignments(values: Values) -> list[Assignment]:
            return [Assignment(plan, context, None, {}, parent, {SWEPT: values[SWEPT]})]

        with owned(), study, workers:
            participant = Participant(study, workers, assignments, lambda dead: None)
            participant.run()
            begin = time.process_time()
            study.gathered(lambda found, settled: participant.entries(found, lambda _: [plan], context), list)
            gathering = time.process_time() - begin
            if tracking and parent:
                about = {"run": given["name"], "profile": plan.profile, "seed": plan.seed, "environment": environment()}
                result = SweepResult(**about, failed=0, points=())
                tracking.finish_parent(parent, result, settled=study.settled)

    whole = flow(name="sweep", flow_run_name=given["name"], persist_result=False)(run)
    begin, start = time.process_time(), time.perf_counter()
    workers.called(whole)()
    deliver_logs_and_events()
    used, wall = time.process_time() - begin, time.perf_counter() - start
    return {"startup": begin, "cpu": used - gathering, "wall": wall, "gathering": gathering, "costs": study.costs}


if __name__ == "__main__":
    import mlflow  # noqa: F401  # what takes seconds, before the others are told that this process is ready
    import optuna  # noqa: F401

    argument = json.loads(sys.argv[1])
    print("ready", flush=True)
    if not sys.stdin.readline():
        raise SystemExit("who started this has ended")
    print(json.dumps(take_part(argument)), flush=True)
