"""Running settings on a Dask cluster, each as one task there, through Prefect's task runner for Dask.

Dask decides which of its workers runs a setting, and runs it again elsewhere if that worker dies. All workers see the home and
the data at the same path, and have the same packages as this process.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from prefect import task
from prefect.futures import PrefectFuture

from dynconf_core.errors import InputError
from dynconf_core.results.rows import failed
from dynconf_flows.prefect_runs import owned
from dynconf_flows.setting import SettingRun, planned_setting, run_of
from dynconf_flows.workers.messages import Assignment
from dynconf_tasks import interruption
from dynconf_tasks.stage import TASK_OPTIONS

if TYPE_CHECKING:
    from distributed import Client
    from prefect_dask.task_runners import DaskTaskRunner

TIMEOUT = 5
"""Seconds to wait for the scheduler and its first worker."""
POLL = 0.2


@task(name="setting on Dask", task_run_name="{assignment.plan.setting} on Dask", **TASK_OPTIONS)
def run_there(assignment: Assignment) -> SettingRun:
    """Run a setting as a subflow in the process of a Dask worker."""
    asked = assignment
    with owned():
        state = planned_setting(
            asked.plan, asked.context, asked.checkpoint, asked.identity, asked.parent, asked.point, return_state=True
        )
    return run_of(state, asked.plan)


class DaskWorkers:
    """The workers of a Dask cluster that offer what a setting needs.

    Args:
        address: the scheduler's address, such as tcp://10.0.0.1:8786.
        resources: what each setting takes of its worker, such as {"GPU": 1}; a worker offers it if it was started with it.
        most: the most settings that are wanted at the same time.

    Raises:
        InputError: on entering, if the scheduler does not answer, or no worker offers the resources.
    """

    def __init__(self, address: str, resources: Mapping[str, float], most: int) -> None:
        self.address, self.resources, self.most = address, resources, most
        self._running: dict[int, tuple[Assignment, PrefectFuture[Any]]] = {}
        self._numbers = 0
        self._runner: DaskTaskRunner | None = None
        self._slots = 0

    @property
    def free(self) -> int:
        """How many more settings can be started now; none once the run is interrupted."""
        return 0 if interruption.interrupted() else max(0, min(self._slots, self.most) - len(self._running))

    @property
    def busy(self) -> bool:
        """Whether settings are running."""
        return bool(self._running)

    def start(self, assignment: Assignment) -> int:
        """Start a setting as a task of the current flow run; returns its number."""
        from dask import annotate  # type: ignore[attr-defined]

        assert self._runner is not None
        self._numbers += 1
        with annotate(resources=dict(self.resources)):
            future = self._runner.submit(run_there, {"assignment": assignment})
        self._running[self._numbers] = assignment, future
        return self._numbers

    def ended(self) -> list[tuple[int, SettingRun]]:
        """See ``Workers.ended``. What Dask's workers are at when the run is interrupted ends there with its stage."""
        stopped = interruption.interrupted()
        ready = {
            number: pair for number, pair in self._running.items() if stopped or pair[1].state.is_final() or _done(pair[1])
        }
        for number in ready:
            del self._running[number]
        if not ready:
            time.sleep(POLL)
        return [(number, _result(assignment, future)) for number, (assignment, future) in ready.items()]

    def __enter__(self) -> DaskWorkers:
        self._slots = offered(self.address, self.resources)
        from prefect_dask.task_runners import DaskTaskRunner

        self._runner = DaskTaskRunner(address=self.address).__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._runner is not None:
            self._runner.__exit__(kind, error, trace)


def offered(address: str, resources: Mapping[str, float]) -> int:
    """How many settings the workers of the cluster at this address can run at the same time.

    Raises:
        InputError: if Dask is not installed, no scheduler answers there, or as ``slots``.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise InputError("--dask needs prefect-dask: run `pip install 'dynconf[dask]'`.") from error
    try:
        client = Client(address, timeout=TIMEOUT, set_as_default=False)
    except (OSError, ValueError) as error:
        raise InputError(
            f"--dask {address}: no scheduler answers there ({error}); start `dask scheduler`, or correct the address, such as "
            "tcp://10.0.0.1:8786."
        ) from None
    with client:
        return slots(client, resources, address)


def slots(client: Client, resources: Mapping[str, float], address: str) -> int:
    """How many settings the workers of a cluster can run at the same time.

    Raises:
        InputError: if there is no worker, or none that offers the resources.
    """
    try:
        client.wait_for_workers(1, timeout=TIMEOUT)
    except TimeoutError:
        raise InputError(f"--dask {address}: the scheduler has no workers; start them with `dask worker {address}`.") from None
    found = client.scheduler_info(n_workers=-1)["workers"].values()
    if not resources:
        return sum(worker["nthreads"] for worker in found)
    offered = [
        min(int(worker.get("resources", {}).get(name, 0) // amount) for name, amount in resources.items()) for worker in found
    ]
    if not any(offered):
        told = sorted({", ".join(f"{k}={v:g}" for k, v in worker.get("resources", {}).items()) or "none" for worker in found})
        asked = ", ".join(f"{name}={amount:g}" for name, amount in resources.items())
        raise InputError(
            f"--resources {asked}: no worker of {address} offers that (they offer: {'; '.join(told)}); start workers with "
            f'`dask worker {address} --resources "{asked.replace(", ", " ")}"`.'
        )
    return sum(offered)


def _done(future: PrefectFuture[Any]) -> bool:
    wrapped = getattr(future, "wrapped_future", None)
    return bool(wrapped is not None and wrapped.done())


def _result(assignment: Assignment, future: PrefectFuture[Any]) -> SettingRun:
    if interruption.interrupted() and not _done(future):
        return SettingRun(failed(assignment.plan, {}, interruption.Interrupted()), interrupted=True)
    try:
        found = future.result(raise_on_failure=False)
    except Exception as error:  # of Dask, such as a worker that died too often
        found = error
    if isinstance(found, SettingRun):
        return found
    return SettingRun(failed(assignment.plan, {}, found if isinstance(found, Exception) else RuntimeError(str(found))))
