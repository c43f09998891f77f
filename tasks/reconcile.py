"""Ending the records of processes that were killed.

A killed process leaves flow runs, MLflow runs and trials that say for ever that they run, besides its running file, locks and
temporary files. Each record names its owner; records are ended only if that process has certainly ended.
"""

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from dynconf_core.failing import failure_point
from dynconf_core.home.leftovers import GRACE, leftovers, remove
from dynconf_core.home.running import Dead, ended, running, runs, stale
from dynconf_core.store.claim import claim
from dynconf_core.store.owner import Owner
from dynconf_tasks import interruption

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

logger = logging.getLogger(__name__)
OWNER = "dynconf.owner"
"""Prefect tags are ``dynconf.owner=<owner>``; MLflow runs and Optuna trials hold the owner in a tag or attribute."""
PAGE = 200
"""The most runs that Prefect lists at a time."""
T = TypeVar("T")


@dataclass(frozen=True)
class Reconciled:
    """What ``reconcile`` did, or would do.

    Attributes:
        ended: the records that were ended, each with its kind, name and owner as text.
        removed: the files and folders that were removed.
        elsewhere: runs of other hosts, which cannot be judged from here.
        problems: what could not be reconciled, and why.
    """

    ended: tuple[str, ...]
    removed: tuple[Path, ...]
    elsewhere: tuple[str, ...]
    problems: tuple[str, ...]


def reconcile(home: Path, *, dead: Dead = ended, dry_run: bool = False, grace: float = GRACE) -> Reconciled:
    """End the records whose owner is dead, and remove what dead processes left in the home.

    The stale running files are removed last, and only if nothing went wrong, so that the next run tries again.

    Args:
        home: the home.
        dead: whether a process has certainly ended; by default, if it ran on this host and runs no more.
        dry_run: only find out what would be done.
        grace: seconds for which temporary files must have lain untouched.
    """
    done: list[str] = []
    problems: list[str] = []
    parts = {"Prefect": _end_flow_runs, "MLflow": _end_tracked_runs, "Optuna": _end_trials}
    for name, end in parts.items():
        try:
            done += end(home, dead, dry_run)
        except Exception as error:  # each of them raises nearly anything, and none is a reason to leave the others
            problems.append(f"{name}: {' '.join(str(error).split())[:300] or type(error).__name__}")
    failure_point("reconcile.ended")
    found = leftovers(home, dead, grace)
    if not problems:
        found += [run.file for run in stale(home, dead)]
    removed = found if dry_run else [path for path in found if remove(path)]
    elsewhere = tuple(
        f"{run.command} (process {run.owner.pid} on {run.owner.host}, since {run.since})"
        for run in runs(home)
        if run.owner is not None and run.owner.alive() is None and not dead(run.owner)
    )
    return Reconciled(tuple(done), tuple(removed), elsewhere, tuple(problems))


@contextmanager
def at_work(home: Path, command: str, results: Path | None = None) -> Iterator[None]:
    """Show during the block that this process computes in ``home``; end the records of runs that were killed there.

    Nothing is looked up unless the home holds a stale running file. A flow run that a worker has started is tagged with this
    process; one that is run again loses the tag of the process that died, with whose records it would otherwise be ended.
    """
    with running(home, command, results):
        _tag_current_run()
        if stale(home):
            _reconcile_alone(home)
        yield
        if stale(home) and not interruption.interrupted():  # others that worked beside this process were killed
            _reconcile_alone(home)


def _tag_current_run() -> None:
    if "prefect" not in sys.modules:
        return
    from prefect.client.orchestration import get_client
    from prefect.context import FlowRunContext

    context, own = FlowRunContext.get(), f"{OWNER}={Owner.this()}"
    if context is None or context.flow_run is None or own in context.flow_run.tags:
        return
    kept = [tag for tag in context.flow_run.tags if not tag.startswith(f"{OWNER}=")]
    with get_client(sync_client=True) as client:
        client.update_flow_run(context.flow_run.id, tags=[*kept, own])


def _reconcile_alone(home: Path) -> None:
    """Reconcile unless another process does; never the reason why a run fails."""
    try:
        with claim(home, "reconcile", "ending the records of killed runs", _refuse):
            done = reconcile(home)
    except _AtIt:
        return
    except Exception as error:
        logger.warning("The records of killed runs could not be ended (%s): run `dynconf reconcile`.", error)
        return
    for text in done.ended:
        logger.info("ended the record of a killed process: %s", text)
    for text in done.problems:
        logger.warning("Records of killed runs could not be ended: %s", text)


class _AtIt(Exception):
    """Another process ends the records of killed runs."""


def _refuse(holder: str) -> None:
    raise _AtIt(holder)


# --- Prefect --------------------------------------------------------------------------------------------------


def _end_flow_runs(home: Path, dead: Dead, dry_run: bool) -> list[str]:
    """Set flow runs and task runs of dead owners to Crashed."""
    if not os.environ.get("PREFECT_API_URL"):
        return []
    from prefect.client.orchestration import get_client
    from prefect.states import Crashed

    found = []
    with get_client(sync_client=True) as client:
        for kind, listed, end in (
            ("task run", _task_runs, client.set_task_run_state),
            ("flow run", _flow_runs, client.set_flow_run_state),
        ):
            for run in listed(client):
                owner = _tagged(run.tags)
                if owner is not None and dead(owner):
                    found.append(f"{kind} {run.name} of {_text(owner)}")
                    if not dry_run:
                        end(run.id, Crashed(message=f"{_text(owner)} ended without reporting that it finished."), force=True)
    return found


def _flow_runs(client: "SyncPrefectClient") -> list[Any]:
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType

    chosen = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=_unfinished())))
    return _all(lambda start: client.read_flow_runs(flow_run_filter=chosen, limit=PAGE, offset=start))


def _task_runs(client: "SyncPrefectClient") -> list[Any]:
    from prefect.client.schemas.filters import TaskRunFilter, TaskRunFilterState, TaskRunFilterStateType

    chosen = TaskRunFilter(state=TaskRunFilterState(type=TaskRunFilterStateType(any_=_unfinished())))
    return _all(lambda start: client.read_task_runs(task_run_filter=chosen, limit=PAGE, offset=start))


def _unfinished() -> list[Any]:
    from prefect.client.schemas.objects import StateType

    return [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]


def _all(page: Callable[[int], list[T]]) -> list[T]:
    found: list[T] = []
    while len(more := page(len(found))) == PAGE:
        found += more
    return found + more


def _tagged(tags: list[str]) -> Owner | None:
    owners = [tag.removeprefix(f"{OWNER}=") for tag in tags if tag.startswith(f"{OWNER}=")]
    # A child's runs also carry the tag of the process that started it: the youngest process is the one that runs them.
    found = [owner for text in owners if (owner := Owner.parse(text)) is not None]
    return max(found, key=lambda owner: owner.started, default=None)


# --- MLflow and Optuna ----------------------------------------------------------------------------------------


def _end_tracked_runs(home: Path, dead: Dead, dry_run: bool) -> list[str]:
    """Set MLflow runs of dead owners to KILLED."""
    if not os.environ.get("MLFLOW_TRACKING_URI") and not (home / "mlflow.db").is_file():
        return []
    from dynconf_tasks.tracking.tracker import tracker

    return [f"MLflow run {name}" for name in tracker(home).end_abandoned(dead, dry_run)]


def _end_trials(home: Path, dead: Dead, dry_run: bool) -> list[str]:
    """Set trials of dead owners in the home's studies to FAIL, so that others take their points."""
    from dynconf_tasks.study.trials import end_trials

    return [f"trial {number} of {name} of {by}" for name, number, by in end_trials(home, dead, dry_run)]


def _text(owner: Owner) -> str:
    return f"process {owner.pid} on {owner.host}"
