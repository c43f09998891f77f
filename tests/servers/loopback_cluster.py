"""What the tests on real servers need: a cluster, a second checkout, and what is recorded where."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil

ROOT = Path(__file__).resolve().parent.parent.parent
POLL = 0.2
SETTINGS = {
    "PREFECT_WORKER_QUERY_SECONDS": "1",
    "DYNCONF_HEARTBEAT": "2s",
    "DYNCONF_GRACE": "20s",
    "OMP_NUM_THREADS": "1",
    "PREFECT_LOGGING_LEVEL": "WARNING",
}
"""What a lab would leave at its defaults: a test cannot wait for minutes."""


@dataclass
class Cluster:
    """A cluster on this machine, whose second worker runs from a checkout and an environment of its own.

    Attributes:
        folder: where `scripts/cluster` keeps everything.
        environment: what `source env` gives a shell.
    """

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        return Path(self.environment["DYNCONF_HOME"])

    def up(self) -> None:
        """Start what does not run: the servers and a worker of this checkout, then a worker of the other one."""
        python = self.folder / "environment" / "bin" / "python"
        other = self.folder / "elsewhere" / "dynconf"
        if not other.exists():
            second_checkout(other, python)
        for interpreter, checkout, workers in ((Path(sys.executable), ROOT, 1), (python, other, 2)):
            done = script(
                "up", "--folder", self.folder / "cluster", "--workers", workers, checkout=checkout, python=interpreter
            )
            assert done.returncode == 0, done.stdout + done.stderr
        lines = (self.folder / "cluster" / "env").read_text().splitlines()
        self.environment = dict(line.removeprefix("export ").split("=", 1) for line in lines)

    def down(self) -> None:
        """End everything."""
        done = script("down", "--folder", self.folder / "cluster")
        assert done.returncode == 0, done.stdout + done.stderr

    def processes(self, part: str = "") -> list[psutil.Process]:
        """The processes that the cluster has started and that still run, or those of one part of it."""
        return list(marked(self.folder / "cluster", part))


def script(
    *arguments: object, checkout: Path = ROOT, python: Path = Path(sys.executable), **more: str
) -> subprocess.CompletedProcess[str]:
    """Run `scripts/cluster` of a checkout to its end."""
    command = [str(python), str(checkout / "scripts" / "cluster"), *map(str, arguments)]
    return subprocess.run(command, env={**os.environ, **SETTINGS, **more}, capture_output=True, text=True, check=False)


def marked(folder: Path, part: str = "") -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            environment = process.environ()
            if environment.get("DYNCONF_CLUSTER") == str(folder) and part in ("", environment.get("DYNCONF_CLUSTER_PART")):
                yield process


def parts(folder: Path) -> set[str]:
    """The parts of a cluster that have processes."""
    found = set()
    for process in marked(folder):
        with suppress(psutil.Error, OSError):  # PostgreSQL's come and go
            found.add(process.environ()["DYNCONF_CLUSTER_PART"])
    return found


def second_checkout(checkout: Path, python: Path) -> None:
    """A copy of the code at another path, and an environment that finds it there, and libraries where ours finds them."""
    import prefect

    for name in ("dynconf_core", "flows", "tasks", "scripts"):
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", checkout)
    names = checkout.parent / "names"
    names.mkdir()
    for folder in ("flows", "tasks"):
        (names / f"dynconf_{folder}").symlink_to(checkout / folder)
    venv.create(python.parent.parent, symlinks=True)
    (packages,) = python.parent.parent.glob("lib/python*/site-packages")
    libraries = Path(prefect.__file__).parent.parent
    (packages / "checkout.pth").write_text(f"{names}\n{checkout}\n{libraries}\n")


def wait_until(happened: Callable[[], Any], what: str, seconds: float = 150) -> Any:
    """Wait until it returns something true; returns that."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := happened():
            return found
        time.sleep(POLL)
    raise TimeoutError(f"not within {seconds:.0f} s: {what}")


def deployed(cluster: Cluster, deployment: str, parameters: dict[str, Any]) -> UUID:
    """Ask for a run of a deployment, as `prefect deployment run` does; returns the flow run's id."""
    from prefect.deployments import run_deployment
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: cluster.environment["PREFECT_API_URL"]}):
        return run_deployment(deployment, parameters=parameters, timeout=0, _sync=True).id


def asked(cluster: Cluster, path: str, body: dict[str, Any] | None = None) -> Any:
    """What the Prefect server answers to a POST, or to a GET if there is no body."""
    import httpx

    url = f"{cluster.environment['PREFECT_API_URL']}/{path}"
    answer = httpx.get(url, timeout=30) if body is None else httpx.post(url, json=body, timeout=30)
    answer.raise_for_status()
    return answer.json()


def flow_runs(cluster: Cluster) -> list[dict[str, Any]]:
    """All flow runs, the oldest first; the server gives 200 at a time."""
    found: list[dict[str, Any]] = []
    while page := asked(cluster, "flow_runs/filter", {"sort": "START_TIME_ASC", "limit": 200, "offset": len(found)}):
        found += page
    return found


def unfinished(cluster: Cluster) -> list[str]:
    """Name and state of every flow run that has not ended."""
    final = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
    return [f"{run['name']}: {run['state_type']}" for run in flow_runs(cluster) if run["state_type"] not in final]


def mlflow_runs(cluster: Cluster) -> list[Any]:
    """All of MLflow's runs."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=cluster.environment["MLFLOW_TRACKING_URI"])
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return list(client.search_runs(experiments, max_results=1000))


def trials(cluster: Cluster) -> dict[str, list[Any]]:
    """The trials of every study in the storage."""
    import optuna

    url = cluster.environment["DYNCONF_STORAGE"].replace("postgresql://", "postgresql+psycopg://")
    storage = optuna.storages.RDBStorage(url)
    try:
        return {
            name: optuna.load_study(study_name=name, storage=storage).trials for name in optuna.get_all_study_names(storage)
        }
    finally:
        storage.engine.dispose()  # it would keep its connections
