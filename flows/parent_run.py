"""The parent run in MLflow of a reproduction, a sweep or a single setting, as far as tracking works."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal

from prefect.logging import get_run_logger

from dynconf_core.experiment.request import CheckedRequest
from dynconf_core.results.environment import environment
from dynconf_core.results.files import over_seeds
from dynconf_core.results.types import RunResult, SweepResult
from dynconf_core.schemes.field import Value
from dynconf_core.store.owner import Owner
from dynconf_tasks.tracking.tags import Source
from dynconf_tasks.tracking.tracker import TrackingUnavailable, tracker

if TYPE_CHECKING:
    from dynconf_tasks.tracking.tracker import Tracker


def track_over_seeds(home: Path, asked: Sequence[CheckedRequest], results: Sequence[RunResult]) -> None:
    """Show the figures over several seeds in the MLflow run of each of the reproductions; warn if tracking does not work."""
    try:
        pairs = [(result, one.identity()) for one, result in zip(asked, results, strict=True)]
        tracker(home).over_seeds(pairs, over_seeds(results))
    except TrackingUnavailable as error:
        logging.getLogger(__name__).warning("%s", error)


@dataclass
class ParentRun:
    """The run of a reproduction or sweep in MLflow.

    Attributes:
        id: its id; None if tracking does not work.
        error: why tracking does not work; None if it does.
    """

    id: str | None = None
    error: str | None = None
    _tracker: Tracker | None = None
    _finished: bool = False

    @classmethod
    def started(
        cls,
        home: Path,
        profile: str,
        seed: int,
        identity: Mapping[str, Value],
        name: str,
        kind: Literal["reproduction", "sweep"] = "reproduction",
        command: str | None = None,
    ) -> ParentRun:
        """Find or create the run and mark it as running; warn if tracking does not work."""
        try:
            tracking = tracker(home)
            return cls(
                tracking.parent(profile, seed, identity, name, kind, Source(command, environment().commit)), None, tracking
            )
        except TrackingUnavailable as error:
            get_run_logger().warning("%s", error)
            return cls(None, str(error))

    def __enter__(self) -> ParentRun:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End this process's part in the run if an exception ends it before ``finish``."""
        if error is not None and not self._finished:
            self.end_dead(Owner.this())

    def end_dead(self, owner: Owner) -> None:
        """End what a process that has died, or gives up, left of it."""
        if self._tracker is None or self.id is None:
            return
        try:
            self._tracker.end_dead(self.id, lambda other: other == owner)
        except TrackingUnavailable as error:
            get_run_logger().warning("%s", error)

    def finish(self, result: RunResult | SweepResult, interrupted: bool, settled: bool = False) -> None:
        """Log the result, and end the run as finished, failed or killed.

        Args:
            result: the result.
            interrupted: whether this process was interrupted.
            settled: whether nothing is left to do for others who work on the same; otherwise they end the run.
        """
        self._finished = True
        if self._tracker is None or self.id is None:
            return
        try:
            self._tracker.finish_parent(self.id, result, interrupted and not settled, settled)
        except TrackingUnavailable as error:
            get_run_logger().warning("%s", error)
            self.error = str(error)
