"""`scripts/cluster`: what it prints and keeps, and that `down` leaves nothing, however `up` has ended."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback_cluster import ROOT, Cluster, marked, parts, script, wait_until


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder for a cluster, that the user postgres can enter."""
    with tempfile.TemporaryDirectory(prefix="dynconf-cluster-") as name:
        Path(name).chmod(0o711)
        yield Path(name).resolve() / "a cluster, whose folder has a long name" / ("and lies deep " * 6)


def test_everything_answers_and_no_password_is_printed(cluster: Cluster) -> None:
    folder = cluster.folder / "cluster"
    done = script("status", "--folder", folder)
    assert done.returncode == 0, done.stdout
    assert [line.split()[:2] for line in done.stdout.splitlines()] == [
        [part, "answers"] for part in ("postgres", "prefect", "mlflow", "worker-1", "worker-2")
    ]
    again = script("up", "--folder", folder, "--workers", "2")
    passwords = [line.split(":")[4] for line in (folder / "pgpass").read_text().splitlines()]
    assert again.returncode == 0 and not [text for text in passwords if text in again.stdout + again.stderr]
    seen = "\n".join(part for process in cluster.processes() for part in process.cmdline())
    assert "prefect" in seen and not [text for text in passwords if text in seen]
    for name in ("pgpass", "env"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    assert set(cluster.environment) == {"PREFECT_API_URL", "MLFLOW_TRACKING_URI", "DYNCONF_HOME", "DYNCONF_STORAGE"}


def test_a_killed_worker_is_seen_and_started_again(cluster: Cluster) -> None:
    folder = cluster.folder / "cluster"
    wait_until(lambda: all(len(cluster.processes(name)) == 1 for name in ("worker-1", "worker-2")), "no flow runs any more")
    (worker,) = cluster.processes("worker-1")
    others = {process.pid for process in cluster.processes()} - {worker.pid}
    worker.kill()
    wait_until(lambda: not cluster.processes("worker-1"), "the worker is gone")
    done = script("status", "--folder", folder)
    assert done.returncode == 1 and "worker-1   down" in done.stdout
    assert script("up", "--folder", folder).returncode == 0
    assert others < {process.pid for process in cluster.processes()}, "what ran goes on"
    assert cluster.processes("worker-1")[0].pid != worker.pid


def test_down_after_a_killed_up_leaves_nothing(folder: Path) -> None:
    command = [sys.executable, ROOT / "scripts" / "cluster", "up", "--folder", folder]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as up:
        wait_until(lambda: list(marked(folder, "prefect")), "the Prefect server is being started")
        held = script("down", "--folder", folder)
        assert held.returncode == 1 and "at work" in held.stderr
        up.send_signal(signal.SIGKILL)
    assert parts(folder) >= {"postgres", "prefect"}
    done = script("down", "--folder", folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not list(marked(folder))
    assert script("down", "--folder", folder).returncode == 0, "once more does no harm"


def test_a_port_in_use_is_named(folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = script("up", "--folder", folder, "--postgres-port", port)
    assert done.returncode == 1 and f"--postgres-port {port}" in done.stderr and "Traceback" not in done.stderr
    assert not list(marked(folder))


@pytest.mark.skipif(os.getuid() != 0, reason="PostgreSQL runs as another user for root alone")
def test_a_folder_that_postgres_cannot_enter_is_refused(tmp_path: Path) -> None:
    done = script("up", "--folder", tmp_path / "cluster")
    assert done.returncode == 1 and "cannot enter" in done.stderr
    assert not list(marked(tmp_path / "cluster"))
