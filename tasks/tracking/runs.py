"""Runs in MLflow's database or on its server: opening it, finding runs by their tags, and creating them with all they hold.

What MLflow raises is raised on; ``errors`` lists it.
"""

import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dynconf_core.errors import InputError
from dynconf_core.failing import failure_point
from dynconf_tasks.answering import NoCertificate, answer
from dynconf_tasks.tracking.database import artefact_location, prepare, repaired, silence, tracking_uri
from dynconf_tasks.tracking.datasets import Dataset, inputs
from dynconf_tasks.tracking.logged import Params
from dynconf_tasks.tracking.shown import Row, Shown
from dynconf_tasks.tracking.views import View, experiment_tags

BATCH, PARAMS = 1000, 100
"""The most metrics and parameters together, and the most parameters, that MLflow accepts at a time."""
PAGE = 1000
TABLES = "tables"
LOGGED = "mlflow.loggedArtifacts"
"""The tag with MLflow's list of the files that it shows as tables."""


@dataclass(frozen=True)
class Content:
    """What a new run holds.

    Attributes:
        tags: its tags, the description among them.
        shown: headline, curves and tables.
        params: parameters.
        files: copied into the run.
        datasets: the data that it used.
        start, end: in milliseconds since 1970; None: now.
    """

    tags: Mapping[str, str]
    shown: Shown
    params: Params
    files: Sequence[Path]
    datasets: Sequence[Dataset] = ()
    start: int | None = None
    end: int | None = None


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
            "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # which a server's client does at the end of every run
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

    def experiment(self, name: str, views: Sequence[View]) -> str:
        """Find or create an experiment with these saved views; returns its id."""
        found = self._experiment(name)
        for tag, value in experiment_tags(views, found.experiment_id).items():
            if found.tags.get(tag) != value:
                self._set_experiment_tag(found.experiment_id, tag, value)
        return str(found.experiment_id)

    def _set_experiment_tag(self, experiment: str, tag: str, value: str) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self.client.set_experiment_tag(experiment, tag, value)
        except MlflowException:  # another process has just inserted it
            if self.client.get_experiment(experiment).tags.get(tag) != value:
                raise

    def _experiment(self, name: str) -> Any:
        from mlflow.exceptions import MlflowException

        found = self.client.get_experiment_by_name(name)
        if found is not None:
            return found
        place = artefact_location(self.home, name) if self.uri.startswith("sqlite") else None
        try:
            return self.client.get_experiment(self.client.create_experiment(name, artifact_location=place))
        except MlflowException:  # another process has just created it
            found = self.client.get_experiment_by_name(name)
            if found is None:
                raise
            return found

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

    def create(self, experiment: str, name: str, content: Content, status: str) -> str:
        """Create a run and log all of it; if that fails, the run ends as killed, and a repetition replaces it."""
        tags = {**content.tags, **listed_tables(content.shown)}
        run = self.client.create_run(experiment, start_time=content.start, run_name=name, tags=tags).info.run_id
        try:
            failure_point("track.created")
            self.log(run, content.shown, content.params)
            if content.datasets:
                self.client.log_inputs(run, inputs(content.datasets))
            self.upload(run, content.shown.tables, content.files)
            failure_point("track.logged")
            self.client.set_terminated(run, status, content.end)
        except BaseException:
            with suppress(Exception):
                self.client.set_terminated(run, "KILLED")
            raise
        return str(run)

    def tag(self, run: Any, tags: Mapping[str, str]) -> None:
        """Set those tags of a run that are not set so."""
        for name, value in tags.items():
            if run.data.tags.get(name) != value:
                self.client.set_tag(run.info.run_id, name, value)

    def log(self, run: str, shown: Shown, params: Params) -> None:
        """Add metrics and parameters to a run, in as few requests as MLflow allows."""
        from mlflow.entities import Metric, Param

        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, step) for name, value, step in metrics_of(shown)]
        texts = [Param(name, str(value)) for name, value in params.items() if value is not None]
        while metrics or texts:
            some, texts = texts[:PARAMS], texts[PARAMS:]
            room = BATCH - len(some)
            self.client.log_batch(run, metrics=metrics[:room], params=some)
            metrics = metrics[room:]

    def upload(self, run: str, tables: Mapping[str, Sequence[Row]], files: Sequence[Path]) -> None:
        """Log tables, as MLflow's ``log_table`` writes them, and files, without a request for each that is no upload."""
        if not tables and not files:
            return
        with tempfile.TemporaryDirectory() as folder:
            for name, rows in tables.items():
                path = Path(folder) / TABLES / f"{name}.json"
                path.parent.mkdir(exist_ok=True)
                path.write_text(table_text(rows), encoding="utf-8")
            for path in files:
                shutil.copyfile(path, Path(folder) / path.name)
            self.client.log_artifacts(run, folder)


def listed_tables(shown: Shown) -> dict[str, str]:
    """The tag that makes MLflow show the tables of a run as tables; none without tables."""
    listed = [{"path": f"{TABLES}/{table}.json", "type": "table"} for table in shown.tables]
    return {LOGGED: json.dumps(listed)} if listed else {}


def metrics_of(shown: Shown) -> list[tuple[str, float, int]]:
    """The metrics of a run as (name, value, step): the headline without steps, curves with the time step, from 1."""
    headline = [(f"headline/{name}", value, 0) for name, value in shown.headline.items() if value is not None]
    curves = [(f"curve/{name}", value, step) for name, values in shown.curves.items() for step, value in enumerate(values, 1)]
    return [(name, float(value), step) for name, value, step in (*headline, *curves) if math.isfinite(value)]


def table_text(rows: Sequence[Row]) -> str:
    """Rows with equal columns as MLflow and pandas (``orient="split"``) read them."""
    columns = list(rows[0]) if rows else []
    return json.dumps({"columns": columns, "data": [[row[name] for name in columns] for row in rows]}, allow_nan=False)


def errors() -> tuple[type[BaseException], ...]:
    """The exceptions that a broken tracking server or database raises."""
    import sqlite3

    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    return (MlflowException, RequestException, SQLAlchemyError, sqlite3.Error, OSError, InputError)
