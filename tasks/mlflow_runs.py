"""Runs in MLflow's database or on its server: opening it, finding runs by their tags, and creating them with all they hold.

What MLflow raises is raised on; ``errors`` lists it.
"""

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from dynconf_core.errors import InputError
from dynconf_core.failing import failure_point
from dynconf_tasks.answering import NoCertificate, answer
from dynconf_tasks.logged import Figures, Params, metrics_of
from dynconf_tasks.mlflow_database import artefact_location, prepare, repaired, silence, tracking_uri

BATCH = 1000
"""The most metrics that MLflow accepts at a time."""
PAGE = 1000


class Runs:
    """The runs at ``MLFLOW_TRACKING_URI``, or in ``mlflow.db`` in the home.

    Args:
        home: the home.
        waiting: called while another process makes the database.
    """

    def __init__(self, home: Path, waiting: Callable[[str], None]) -> None:
        self.home, self.uri = home, tracking_uri(home)
        for name, value in {
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
            "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
        }.items():
            os.environ.setdefault(name, value)
        if self.uri.startswith(("http://", "https://")):
            with suppress(NoCertificate):  # MLflow may be configured with other certificates
                answer(f"{self.uri.rstrip('/')}/health")
        local = not os.environ.get("MLFLOW_TRACKING_URI")
        if local:
            prepare(home, waiting)
        try:
            self._open()
        except errors():
            if not (local and repaired(home, waiting)):
                raise
            self._open()

    def _open(self) -> None:
        from mlflow import MlflowClient

        silence()
        self.client = MlflowClient(tracking_uri=self.uri)
        self.client.search_experiments(max_results=1)

    def experiment(self, name: str) -> str:
        """Find or create an experiment; returns its id."""
        from mlflow.exceptions import MlflowException

        found = self.client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        place = artefact_location(self.home, name) if self.uri.startswith("sqlite") else None
        try:
            return str(self.client.create_experiment(name, artifact_location=place))
        except MlflowException:  # another process has just created it
            found = self.client.get_experiment_by_name(name)
            if found is None:
                raise
            return str(found.experiment_id)

    def find(self, experiment: str, tag: str, value: str) -> list[Any]:
        """The runs with this tag, newest first; ``value`` is an id or a digest and needs no escaping."""
        return self.search(experiment, f"tags.`{tag}` = '{value}'")

    def search(self, experiment: str, condition: str) -> list[Any]:
        """All runs that meet a condition in MLflow's syntax, newest first."""
        found: list[Any] = []
        token = None
        while True:
            page = self.client.search_runs([experiment], condition, max_results=PAGE, page_token=token)
            found += page
            token = page.token
            if not token:
                return found

    def create(
        self,
        experiment: str,
        name: str,
        tags: dict[str, str],
        figures: Figures,
        params: Params,
        files: Sequence[Path],
        status: str,
    ) -> str:
        """Create a run and log all of it; if that fails, the run ends as killed, and a repetition replaces it."""
        run = self.client.create_run(experiment, run_name=name, tags=tags).info.run_id
        try:
            failure_point("track.created")
            self.log(run, figures, params, files)
            failure_point("track.logged")
            self.client.set_terminated(run, status)
        except BaseException:
            with suppress(Exception):
                self.client.set_terminated(run, "KILLED")
            raise
        return str(run)

    def log(self, run: str, figures: Figures, params: Params, files: Sequence[Path]) -> None:
        """Add metrics, parameters and files to a run."""
        from mlflow.entities import Metric, Param

        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, step) for name, value, step in metrics_of(figures)]
        texts = [Param(name, str(value)) for name, value in params.items() if value is not None]
        self.client.log_batch(run, params=texts)
        for start in range(0, len(metrics), BATCH):
            self.client.log_batch(run, metrics=metrics[start : start + BATCH])
        for path in files:
            self.client.log_artifact(run, str(path))


def errors() -> tuple[type[BaseException], ...]:
    """The exceptions that a broken tracking server or database raises."""
    import sqlite3

    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    return (MlflowException, RequestException, SQLAlchemyError, sqlite3.Error, OSError, InputError)
