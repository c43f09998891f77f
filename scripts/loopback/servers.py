"""The Prefect server with its work pool, deployments and workers, and the MLflow server."""

import contextlib
import json
import os
import shlex
import sys
import urllib.request
from typing import Any

from loopback.folder import HOST, Folder, Refused
from loopback.processes import finish, start

POOL, FLOWS = "dynconf", 4


def start_prefect(folder: Folder) -> None:
    port = folder.ports["prefect"]
    database = f"postgresql+asyncpg://prefect@{HOST}:{folder.ports['postgres']}/prefect"
    environment = {
        "PREFECT_API_DATABASE_CONNECTION_URL": database,
        "PGPASSFILE": str(folder.passwords),
        "PREFECT_SERVER_UI_API_URL": f"{folder.url('prefect')}/api",  # else the pages stay blank on another port than 4200
    }
    command = [sys.executable, "-P", "-m", "prefect", "server", "start", "--host", HOST, "--port", str(port)]
    start(folder, "prefect", command, environment)


def start_mlflow(folder: Folder) -> None:
    environment = {
        "MLFLOW_BACKEND_STORE_URI": f"postgresql+psycopg://mlflow@{HOST}:{folder.ports['postgres']}/mlflow",
        "PGPASSFILE": str(folder.passwords),
        "MLFLOW_ARTIFACTS_DESTINATION": str(folder.path / "mlflow"),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_WORKERS": os.environ.get("MLFLOW_WORKERS", "1"),
    }
    command = [sys.executable, "-P", "-m", "mlflow", "server", "--host", HOST, "--port", str(folder.ports["mlflow"])]
    start(folder, "mlflow", command, environment)


def asked(url: str, body: Any = None) -> Any:
    """What a server answers, or None."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with contextlib.suppress(OSError, ValueError), urllib.request.urlopen(request, timeout=10) as answer:
        text = answer.read().decode()
        return text if text == "OK" else json.loads(text)
    return None


def prefect_answers(folder: Folder) -> bool:
    return "prefect" in folder.ports and asked(f"{folder.url('prefect')}/api/health") is True


def mlflow_answers(folder: Folder) -> bool:
    return "mlflow" in folder.ports and asked(f"{folder.url('mlflow')}/health") == "OK"


def deployments(folder: Folder) -> int:
    """How many there are."""
    return int(asked(f"{folder.url('prefect')}/api/deployments/count", {}) or 0)


def make_pool(folder: Folder) -> None:
    _call(folder, "-m", "prefect", "work-pool", "create", POOL, "--type", "process", "--overwrite")


def deploy(folder: Folder) -> None:
    """Make the deployments, or bring them up to date."""
    _call(folder, "-c", "from dynconf_flows.command.entry import main; main()", "deploy", "--pool", POOL)


def _call(folder: Folder, *arguments: str) -> None:
    code, told = finish(folder, "deploy", [sys.executable, "-P", *arguments], folder.environment(), folder.path)
    if code:
        raise Refused(f"`{shlex.join(('python', *arguments))}` failed:\n{told}")


def start_worker(folder: Folder, name: str, gpu: str | None) -> None:
    environment = folder.environment() | ({"CUDA_VISIBLE_DEVICES": gpu} if gpu is not None else {})
    command = [sys.executable, "-P", "-m", "prefect", "worker", "start", "--pool", POOL, "--limit", "1", "--name", name]
    start(folder, name, command, environment)


def workers_polling(folder: Folder) -> set[str]:
    found = asked(f"{folder.url('prefect')}/api/work_pools/{POOL}/workers/filter", {"limit": 200})
    return {worker["name"] for worker in found or () if worker.get("status") == "ONLINE"}
