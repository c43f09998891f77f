"""Logging to MLflow: one experiment per profile, one parent run per reproduction, one child run per setting.

Runs are found by their tags, so that repeating a reproduction adds no duplicates: a child is identified by its parent, its
setting and the digest of its evaluation. If the evaluation has changed, a new child is created and the old one deleted. All
calls use explicit run ids, since MLflow's active run is per thread and settings run in several threads.
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
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prefect import task

from dynconf_core.experiment.job import Handle
from dynconf_core.experiment.plan import Plan
from dynconf_core.results.records import Scalar, flat, json_text, plain, to_json
from dynconf_core.results.types import AnySetting, FailedSetting, RunResult, SettingResult
from dynconf_core.schemes.field import Value
from dynconf_core.store.owner import Owner
from dynconf_tasks.evaluate import FIGURES
from dynconf_tasks.stage import TASK_OPTIONS

BATCH = 1000
"""The most metrics that MLflow accepts at a time."""
TAG_LENGTH = 5000
PROBE_SECONDS = 4.0
PARENT, SETTING, DIGEST = "mlflow.parentRunId", "dynconf.setting", "dynconf.evaluation"
IDENTITY, KEY, OWNER = "dynconf.identity", "dynconf.key", "dynconf.owner"
Figures = Mapping[str, Scalar | list[Scalar]]
"""Figures under flat names."""
Params = Mapping[str, object]
"""Parameters by name, logged as text unless None."""
_finding = threading.Lock()
"""Held while a run is looked up and, if missing, created."""


class TrackingUnavailable(RuntimeError):
    """The tracking server does not answer or refuses; computation can continue without it."""


class Tracker:
    """Logs to ``MLFLOW_TRACKING_URI``, or to ``mlflow.db`` in the home.

    Raises:
        TrackingUnavailable: naming the URI, within seconds, if tracking does not work.
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
        except Exception as error:  # an unknown scheme, a driver that is not installed, ...
            raise self._unavailable(error) from None

    def parent(self, profile: str, seed: int, identity: Mapping[str, Value], name: str) -> str:
        """Find or create the run of a reproduction and mark it as running; returns its id."""
        text = _canonical({"profile": profile, "seed": seed, **identity})
        key = hashlib.sha256(text.encode()).hexdigest()
        tags = {KEY: key, IDENTITY: text[:TAG_LENGTH], "dynconf.profile": profile, "dynconf.kind": "reproduction"}
        tags[OWNER] = str(Owner.this())
        try:
            with _finding:
                experiment = self._experiment(f"dynconf-{profile}")
                found = self._find(experiment, KEY, key)
                if found:
                    run = found[0]
                    self._client.update_run(run.info.run_id, status="RUNNING")
                    self._client.set_tag(run.info.run_id, OWNER, tags[OWNER])
                else:
                    run = self._client.create_run(experiment, run_name=name, tags=tags)
            if not run.data.params:  # new, or killed before its parameters were logged
                self._log(run.info.run_id, {}, {"profile": profile, "seed": seed, **identity}, ())
            return str(run.info.run_id)
        except self._errors as error:
            raise self._unavailable(error) from None

    def child(self, parent: str, row: AnySetting, params: Params, files: Sequence[Path], digest: str) -> str:
        """Find or create the finished (or failed) run of a setting below ``parent``; returns its id."""
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
            tags[OWNER] = str(Owner.this())
            if isinstance(row, FailedSetting):
                tags["error"] = row.error[:TAG_LENGTH]
            run = self._client.create_run(experiment, run_name=row.name, tags=tags)
            figures = {} if isinstance(row, FailedSetting) else setting_figures(row)
            self._log(run.info.run_id, figures, params, files)
            self._client.set_terminated(run.info.run_id, "FAILED" if isinstance(row, FailedSetting) else "FINISHED")
            return str(run.info.run_id)
        except self._errors as error:
            raise self._unavailable(error) from None

    def analysis(self, name: str, figures: Figures, params: Params, files: Sequence[Path], key: str) -> str:
        """Find or create the finished run of an analysis in the experiment ``dynconf-analysis``; returns its id.

        ``key`` is a digest of the analysis. Runs with this key that never finished are deleted.
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

    def end_abandoned(self, dead: Callable[[Owner], bool], dry_run: bool = False) -> list[str]:
        """End the unfinished runs whose owner is ``dead`` as killed, unless ``dry_run``; returns their names."""
        ended = []
        try:
            experiments = [one.experiment_id for one in self._client.search_experiments(filter_string="name LIKE 'dynconf-%'")]
            for run in self._client.search_runs(experiments, "attributes.status = 'RUNNING'") if experiments else ():
                owner = Owner.parse(run.data.tags.get(OWNER, ""))
                if owner is not None and dead(owner):
                    if not dry_run:
                        self._client.set_terminated(run.info.run_id, "KILLED")
                    ended.append(str(run.info.run_name))
            return ended
        except self._errors as error:
            raise self._unavailable(error) from None

    def finish_parent(self, parent: str, result: RunResult, interrupted: bool = False) -> None:
        """Log the mean latency saving and results.json of a reproduction, and end its run as finished, failed or killed."""
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
        except MlflowException:  # another process has just created it
            found = self._client.get_experiment_by_name(name)
            if found is None:
                raise
            return str(found.experiment_id)

    def _find(self, experiment: str, tag: str, value: str) -> list[Any]:
        """The runs with this tag, newest first; ``value`` is an id or a digest and needs no escaping."""
        return list(self._client.search_runs([experiment], f"tags.`{tag}` = '{value}'", max_results=1000))

    def _log(self, run: str, figures: Figures, params: Params, files: Sequence[Path]) -> None:
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
    """``MLFLOW_TRACKING_URI``, by default the URI of ``mlflow.db`` in the home, with ``%`` and ``?`` in its path escaped."""
    path = str(home / "mlflow.db").replace("%", "%25").replace("?", "%3F")
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{path}"


def tracker(home: Path) -> Tracker:
    """The tracker for a home."""
    return Tracker(home)


@task(name="track", task_run_name="{plan.setting} · track", **TASK_OPTIONS)
def track(
    plan: Plan,
    row: AnySetting,
    evaluation: Handle | None,
    home: Path,
    identity: Mapping[str, Value],
    parent: str | None,
) -> str:
    """Log a setting's figures, plots and rule below ``parent`` (None: found or created); returns the run's id."""
    writer = tracker(home)
    if parent is None:
        parent = writer.parent(plan.profile, plan.seed, identity, f"{plan.profile}, seed {plan.seed}")
    files = [evaluation.file(name) for name in (*FIGURES, "evaluation.json", "rule.json")] if evaluation else []
    digest = evaluation.digest if evaluation else "none"
    return writer.child(parent, row, setting_params(plan), files, digest)


def setting_params(plan: Plan) -> Params:
    """The parameters of a setting's run: the plan's values under flat names."""
    return flat(plan)


def setting_figures(row: SettingResult) -> Figures:
    """The metrics of a setting's run: its figures under flat names."""
    skipped = ("name", "error", "paper", "stages", "artefacts")
    return flat({name: value for name, value in plain(row).items() if name not in skipped})


def metrics_of(figures: Figures) -> list[tuple[str, float, int]]:
    """The numbers in ``figures`` as (metric, value, step); values of a list, such as ``accuracy_at_t``, have steps from 1."""
    found = []
    for name, value in figures.items():
        if isinstance(value, list):
            found += [(name, float(one), step) for step, one in enumerate(value, 1) if isinstance(one, int | float)]
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found.append((name, float(value), 0))
    return found


def _canonical(value: Mapping[str, Value]) -> str:
    return json.dumps(dict(value), sort_keys=True, default=str)


def _probe(uri: str) -> None:
    """Raise ``OSError`` unless the server gives any answer within seconds; MLflow itself would wait for minutes."""
    if not uri.startswith(("http://", "https://")):
        return
    address = re.sub(r"//[^/@]*@", "//", uri).rstrip("/") + "/health"
    try:
        urllib.request.urlopen(address, timeout=PROBE_SECONDS).close()
    except urllib.error.HTTPError:
        pass
    except urllib.error.URLError as error:
        if not isinstance(error.reason, ssl.SSLError):  # MLflow may be configured with other certificates
            raise


def _without_password(text: str) -> str:
    return re.sub(r"(://[^:/@\s]*):[^/@\s]*@", r"\1:***@", text)


def _errors() -> tuple[type[BaseException], ...]:
    """The exceptions that a broken tracking server or database raises."""
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    return (MlflowException, RequestException, SQLAlchemyError, OSError)
