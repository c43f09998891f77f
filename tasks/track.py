"""The MLflow side of a run: one experiment a profile, a parent a reproduction, a child a setting.

Runs are found by their tags, so a rerun adds no twin: a child is told by its parent, its setting and the digest of its
evaluation. Where the evaluation has changed, a new child is made and the old one is moved to MLflow's bin. Only explicit run
ids are used: MLflow's active run belongs to a thread, and settings run in several.
"""

import hashlib
import json
import logging
import os
import re
import ssl
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefect import task

from dynconf_core.experiment.job import Handle
from dynconf_core.experiment.plan import Plan
from dynconf_core.results.records import Scalar, flat, json_text, plain, to_json
from dynconf_core.results.types import AnySetting, FailedSetting, RunResult, SettingResult
from dynconf_tasks.evaluate import FIGURES
from dynconf_tasks.stage import TASK_OPTIONS

BATCH = 1000
"""The most metrics that MLflow takes at a time."""
TAG_LENGTH = 5000
PROBE_SECONDS = 4.0
PARENT, SETTING, DIGEST = "mlflow.parentRunId", "dynconf.setting", "dynconf.evaluation"
IDENTITY, KEY = "dynconf.identity", "dynconf.key"
Figures = Mapping[str, Scalar | list[Scalar]]
"""Values under flat names."""
_finding = threading.Lock()
"""Between looking for a run and making it."""


class TrackingUnavailable(RuntimeError):
    """The tracking server does not answer, or refuses; the computation need not end for it."""


class Tracker:
    """Writes to ``MLFLOW_TRACKING_URI``, or to ``mlflow.db`` in the home.

    Raises:
        TrackingUnavailable: naming the URI, within seconds.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.uri = tracking_uri(home)
        for name, value in {
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
            "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
        }.items():
            os.environ.setdefault(name, value)
        try:
            _probe(self.uri)
            from mlflow import MlflowClient

            for noisy in ("mlflow", "alembic"):  # importing mlflow sets them to INFO
                logging.getLogger(noisy).setLevel(logging.ERROR)
            self._errors = _errors()
            self._client = MlflowClient(tracking_uri=self.uri)
            self._client.search_experiments(max_results=1)
        except Exception as error:  # a scheme that it does not know, a driver that is not installed, ...
            raise self._unavailable(error) from None

    def parent(self, profile: str, seed: int, identity: Mapping[str, Any], name: str) -> str:
        """The id of the run of this (profile, seed, overrides), found or made, now running."""
        text = _canonical({"profile": profile, "seed": seed, **identity})
        key = hashlib.sha256(text.encode()).hexdigest()
        tags = {KEY: key, IDENTITY: text[:TAG_LENGTH], "dynconf.profile": profile, "dynconf.kind": "reproduction"}
        try:
            with _finding:
                experiment = self._experiment(f"dynconf-{profile}")
                found = self._find(experiment, KEY, key)
                if found:
                    run = found[0]
                    self._client.update_run(run.info.run_id, status="RUNNING")
                else:
                    run = self._client.create_run(experiment, run_name=name, tags=tags)
            if not run.data.params:  # new, or killed before it had any
                self._log(run.info.run_id, {}, {"profile": profile, "seed": seed, **identity}, ())
            return str(run.info.run_id)
        except self._errors as error:
            raise self._unavailable(error) from None

    def child(self, parent: str, row: AnySetting, params: Mapping[str, Any], files: Sequence[Path], digest: str) -> str:
        """The id of the finished (or failed) run of a setting below ``parent``, found or made."""
        try:
            above = self._client.get_run(parent)
            experiment = above.info.experiment_id
            identity = above.data.tags.get(IDENTITY, "")
            for run in self._find(experiment, PARENT, parent):
                if run.data.tags.get(SETTING) != row.name:
                    continue
                if run.data.tags.get(DIGEST) == digest and run.info.status == "FINISHED":
                    return str(run.info.run_id)
                self._client.delete_run(run.info.run_id)
            tags = {PARENT: parent, SETTING: row.name, DIGEST: digest, IDENTITY: identity, "dynconf.kind": "setting"}
            if isinstance(row, FailedSetting):
                tags["error"] = row.error[:TAG_LENGTH]
            run = self._client.create_run(experiment, run_name=row.name, tags=tags)
            figures = {} if isinstance(row, FailedSetting) else setting_figures(row)
            self._log(run.info.run_id, figures, params, files)
            self._client.set_terminated(run.info.run_id, "FAILED" if isinstance(row, FailedSetting) else "FINISHED")
            return str(run.info.run_id)
        except self._errors as error:
            raise self._unavailable(error) from None

    def analysis(self, name: str, figures: Figures, params: Mapping[str, Any], files: Sequence[Path], key: str) -> str:
        """The id of the finished run of an analysis, found by ``key`` or made, in the experiment ``dynconf-analysis``.

        ``key`` names what the analysis found. A run that was killed before it was finished is moved to MLflow's bin.
        """
        try:
            with _finding:
                experiment = self._experiment("dynconf-analysis")
                for run in self._find(experiment, KEY, key):
                    if run.info.status == "FINISHED":
                        return str(run.info.run_id)
                    self._client.delete_run(run.info.run_id)
                run = self._client.create_run(experiment, run_name=name, tags={KEY: key, "dynconf.kind": "analysis"})
            self._log(run.info.run_id, figures, params, files)
            self._client.set_terminated(run.info.run_id, "FINISHED")
            return str(run.info.run_id)
        except self._errors as error:
            raise self._unavailable(error) from None

    def finish_parent(self, parent: str, result: RunResult, interrupted: bool = False) -> None:
        """End a reproduction's run with its mean latency saving and its results.json: finished, failed, or killed where it
        was interrupted."""
        try:
            run = self._client.get_run(parent)
            saving = result.mean_latency_saving
            if saving is not None and run.data.metrics.get("mean_latency_saving") != saving:
                self._client.log_metric(parent, "mean_latency_saving", saving)
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "results.json"
                path.write_text(json_text(to_json(result)), encoding="utf-8")
                self._client.log_artifact(parent, str(path))
            self._client.set_terminated(parent, "KILLED" if interrupted else "FAILED" if result.failed else "FINISHED")
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

    def _find(self, experiment: str, tag: str, value: str) -> list[Any]:
        """The runs with this tag, newest first; ``value`` is an id or a digest, which needs no quoting."""
        return list(self._client.search_runs([experiment], f"tags.`{tag}` = '{value}'", max_results=1000))

    def _log(self, run: str, figures: Figures, params: Mapping[str, Any], files: Sequence[Path]) -> None:
        from mlflow.entities import Metric, Param

        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, step) for name, value, step in metrics_of(figures)]
        texts = [Param(name, str(value)) for name, value in params.items() if value is not None]
        self._client.log_batch(run, params=texts)
        for start in range(0, len(metrics), BATCH):
            self._client.log_batch(run, metrics=metrics[start : start + BATCH])
        for path in files:
            self._client.log_artifact(run, str(path))

    def _unavailable(self, error: BaseException) -> TrackingUnavailable:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        return TrackingUnavailable(
            _without_password(
                f"MLflow at {self.uri} does not work ({reason}). The results are in the home; run again to log them."
            )
        )


def tracking_uri(home: Path) -> str:
    """``MLFLOW_TRACKING_URI``, else that of ``mlflow.db`` in the home (an address: ``%`` and ``?`` of its path are escaped)."""
    path = str(home / "mlflow.db").replace("%", "%25").replace("?", "%3F")
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{path}"


def tracker(home: Path) -> Tracker:
    """The tracker of a home."""
    return Tracker(home)


@task(name="track", task_run_name="{plan.setting} · track", **TASK_OPTIONS)
def track(
    plan: Plan,
    row: AnySetting,
    evaluation: Handle | None,
    home: Path,
    identity: dict[str, Any],
    parent: str | None,
) -> str:
    """Log a setting's figures, pictures and rule below ``parent`` (found or made where None); the run's id."""
    writer = tracker(home)
    if parent is None:
        parent = writer.parent(plan.profile, plan.seed, identity, f"{plan.profile}, seed {plan.seed}")
    files = [evaluation.file(name) for name in (*FIGURES, "evaluation.json", "rule.json")] if evaluation else []
    digest = evaluation.digest if evaluation else "none"
    return writer.child(parent, row, setting_params(plan), files, digest)


def setting_params(plan: Plan) -> dict[str, Any]:
    """What identifies a setting's run: the plan's values under flat names."""
    return dict(flat(plan))


def setting_figures(row: SettingResult) -> Figures:
    """What is logged of a setting: its figures, without what identifies it."""
    skipped = ("name", "error", "paper", "stages", "artefacts")
    return flat({name: value for name, value in plain(row).items() if name not in skipped})


def metrics_of(figures: Figures) -> list[tuple[str, float, int]]:
    """The numbers among flat names as (metric, value, step); a list, such as `accuracy_at_t`, has a step a value, from 1."""
    found = []
    for name, value in figures.items():
        if isinstance(value, list):
            found += [(name, float(one), step) for step, one in enumerate(value, 1) if isinstance(one, int | float)]
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found.append((name, float(value), 0))
    return found


def _canonical(value: Mapping[str, Any]) -> str:
    return json.dumps(dict(value), sort_keys=True, default=str)


def _probe(uri: str) -> None:
    """Raise ``OSError`` unless a server answers within seconds, whatever it answers; MLflow itself would wait for minutes."""
    if not uri.startswith(("http://", "https://")):
        return
    address = re.sub(r"//[^/@]*@", "//", uri).rstrip("/") + "/health"
    try:
        urllib.request.urlopen(address, timeout=PROBE_SECONDS).close()
    except urllib.error.HTTPError:
        pass
    except urllib.error.URLError as error:
        if not isinstance(error.reason, ssl.SSLError):  # MLflow may be told of other certificates
            raise


def _without_password(text: str) -> str:
    return re.sub(r"(://[^:/@\s]*):[^/@\s]*@", r"\1:***@", text)


def _errors() -> tuple[type[BaseException], ...]:
    """What a broken tracking server or database raises."""
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    return (MlflowException, RequestException, SQLAlchemyError, OSError)
