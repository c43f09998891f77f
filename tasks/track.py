"""The MLflow side of a run: one experiment a profile, a parent a reproduction, a child a setting.

Runs are found by their tags, so a rerun adds no twin: a child is told by its parent, its setting and the digest of its
evaluation. Where the evaluation has changed, a new child is made and the old one is moved to MLflow's bin. Only explicit run
ids are used: MLflow's active run belongs to a thread, and settings run in several.
"""

import json
import logging
import math
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import task

from dynconf_core.plan import Plan
from tasks.evaluate import FIGURES
from tasks.stage import TASK_OPTIONS, Handle, Workplace

if TYPE_CHECKING:
    pass

BATCH = 1000
PARENT, SETTING, DIGEST = "mlflow.parentRunId", "dynconf.setting", "dynconf.evaluation"
IDENTITY = "dynconf.identity"


class TrackingUnavailable(RuntimeError):
    """The tracking server does not answer, or refuses; the computation need not end for it."""


class Tracker:
    """Writes to ``MLFLOW_TRACKING_URI``, or to ``mlflow.db`` in the home.

    Raises:
        TrackingUnavailable: naming the URI, within seconds.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home / 'mlflow.db'}"
        for name, value in {
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_LOGGING_LEVEL": "ERROR",
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
            "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
        }.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient

        for noisy in ("mlflow", "alembic"):
            logging.getLogger(noisy).setLevel(logging.ERROR)

        self._errors = _errors()
        self._client = MlflowClient(tracking_uri=self.uri)
        try:
            self._client.search_experiments(max_results=1)
        except self._errors as error:
            raise self._unavailable(error) from None

    def parent(self, profile: str, seed: int, identity: Mapping[str, Any], name: str) -> str:
        """The id of the run of this (profile, seed, overrides), found or made, now running."""
        tags = {IDENTITY: _canonical({"profile": profile, "seed": seed, **identity}), "dynconf.profile": profile}
        params = {"profile": profile, "seed": seed, **identity}
        try:
            experiment = self._experiment(f"dynconf-{profile}")
            found = self._find(experiment, {IDENTITY: tags[IDENTITY], "dynconf.kind": "reproduction"})
            if found:
                return str(found[0].info.run_id)
            run = self._client.create_run(experiment, run_name=name, tags={**tags, "dynconf.kind": "reproduction"})
            self._log(run.info.run_id, {}, params, ())
            return str(run.info.run_id)
        except self._errors as error:
            raise self._unavailable(error) from None

    def child(self, parent: str, row: Mapping[str, Any], params: Mapping[str, Any], files: Sequence[Path], digest: str) -> str:
        """The id of the finished (or failed) run of a setting's ``row`` below ``parent``, found or made."""
        try:
            above = self._client.get_run(parent)
            experiment = above.info.experiment_id
            identity = above.data.tags.get(IDENTITY, "")
            for run in self._find(experiment, {PARENT: parent, SETTING: row["name"]}):
                if run.data.tags.get(DIGEST) == digest and run.info.status == "FINISHED":
                    return str(run.info.run_id)
                self._client.delete_run(run.info.run_id)
            tags = {PARENT: parent, SETTING: row["name"], DIGEST: digest, IDENTITY: identity, "dynconf.kind": "setting"}
            if row["status"] == "failed":
                tags["error"] = row["error"]
            run = self._client.create_run(experiment, run_name=row["name"], tags=tags)
            self._log(run.info.run_id, row, params, files)
            self._client.set_terminated(run.info.run_id, "FAILED" if row["status"] == "failed" else "FINISHED")
            return str(run.info.run_id)
        except self._errors as error:
            raise self._unavailable(error) from None

    def finish_parent(self, parent: str, document: Mapping[str, Any]) -> None:
        """End a reproduction's run with its mean latency saving and its results.json."""
        try:
            run = self._client.get_run(parent)
            saving = document["mean_latency_saving"]
            if saving is not None and run.data.metrics.get("mean_latency_saving") != saving:
                self._client.log_metric(parent, "mean_latency_saving", saving)
            failed = any(row["status"] == "failed" for row in document["settings"])
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "results.json"
                path.write_text(json.dumps(document, indent=1))
                self._client.log_artifact(parent, str(path))
            self._client.set_terminated(parent, "FAILED" if failed else "FINISHED")
        except self._errors as error:
            raise self._unavailable(error) from None

    def _experiment(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        place = (self.home / "mlartifacts" / name).as_uri() if self.uri.startswith("sqlite") else None
        try:
            return str(self._client.create_experiment(name, artifact_location=place))
        except MlflowException:  # another process was first
            found = self._client.get_experiment_by_name(name)
            if found is None:
                raise
            return str(found.experiment_id)

    def _find(self, experiment: str, tags: Mapping[str, str]) -> list[Any]:
        """The runs with these tags, newest first. Compared here: a filter's quoting cannot hold every value."""
        kind = "reproduction" if PARENT not in tags else "setting"
        runs = self._client.search_runs([experiment], f"tags.`dynconf.kind` = '{kind}'", max_results=5000)
        return [run for run in runs if all(run.data.tags.get(name) == value for name, value in tags.items())]

    def _log(self, run: str, row: Mapping[str, Any], params: Mapping[str, Any], files: Sequence[Path]) -> None:
        from mlflow.entities import Metric, Param

        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, step) for name, value, step in flattened(row)]
        texts = [Param(name, str(value)) for name, value in params.items() if value is not None]
        self._client.log_batch(run, params=texts)
        for start in range(0, len(metrics), BATCH):
            self._client.log_batch(run, metrics=metrics[start : start + BATCH])
        for path in files:
            self._client.log_artifact(run, str(path))

    def _unavailable(self, error: BaseException) -> TrackingUnavailable:
        reason = " ".join(str(error).split())[:200]
        return TrackingUnavailable(
            f"MLflow at {self.uri} does not work ({reason}). The results are in the home; run again to log them."
        )


def tracker(home: Path) -> Tracker:
    """The tracker of a home."""
    return Tracker(home)


@task(name="track", task_run_name="{plan.setting} · track", **TASK_OPTIONS)
def track(
    plan: Plan,
    row: dict[str, Any],
    evaluation: Handle | None,
    work: Workplace,
    identity: dict[str, Any],
    parent: str | None,
) -> str:
    """Log a setting's row, pictures and rule below ``parent`` (found or made where None); the run's id."""
    writer = tracker(work.home)
    if parent is None:
        parent = writer.parent(plan.profile, plan.seed, identity, f"{plan.profile}, seed {plan.seed}")
    files = [evaluation.file(name) for name in (*FIGURES, "evaluation.json")] if evaluation else []
    digest = evaluation.digest if evaluation else "none"
    return writer.child(parent, row, setting_params(plan), files, digest)


def setting_params(plan: Plan) -> dict[str, Any]:
    """What identifies a setting's run: the plan's values, nested names joined by ``_``."""

    def flat(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
        if isinstance(value, dict):
            for name, inner in value.items():
                yield from flat(f"{prefix}_{name}" if prefix else name, inner)
        else:
            yield prefix, value

    return dict(flat("", plan.as_dict()))


def flattened(row: Mapping[str, Any]) -> list[tuple[str, float, int]]:
    """The numbers of a row as (metric, value, step): nested names joined by ``_``, baselines and bounds by their names,
    ``accuracy_at_t`` and the exit histogram over the time steps."""
    found: list[tuple[str, float, int]] = []

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for name, inner in value.items():
                walk(f"{prefix}_{name}" if prefix else str(name), inner)
        elif isinstance(value, list):
            for index, inner in enumerate(value):
                if isinstance(inner, Mapping):
                    rest = {name: number for name, number in inner.items() if name != "name"}
                    walk(f"{prefix}_{inner.get('name', index)}", rest)
                elif isinstance(inner, int | float):
                    found.append((prefix, float(inner), index + 1))
        elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            found.append((prefix, float(value), 0))

    skipped = {"paper", "stages", "name", "error"}
    walk("", {name: value for name, value in row.items() if name not in skipped})
    return found


def _canonical(value: Mapping[str, Any]) -> str:
    return json.dumps(dict(value), sort_keys=True, default=str)


def _errors() -> tuple[type[BaseException], ...]:
    """What a broken tracking server or database raises."""
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    return (MlflowException, RequestException, SQLAlchemyError, OSError)
