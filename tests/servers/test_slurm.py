"""`scripts/slurm/array.sh` on a real Slurm of one node: an array with one task killed, the time limit, what is refused."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import slurm as slurm_cluster
from loopback_cluster import ROOT, SETTINGS, Cluster, mlflow_runs, trials, unfinished, wait_until
from slurm import Slurm

SCRIPT = ROOT / "scripts" / "slurm" / "array.sh"
SMALL = ("--cpus-per-task=1", "--mem=900M", "--time=30")
"""What a test needs instead of what the script asks for."""
DROPS = ("0", "0.01", "0.02", "0.03")
SWEEP = (
    "sweep",
    "--setting",
    "cifar10-vgg16-qcfs",
    "--grid",
    f"max_drop={','.join(DROPS)}",
    "--set",
    "epochs=1",
    "--set",
    "time_steps=5",
    "--workers",
    "1",
)


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    if reason := slurm_cluster.missing():
        pytest.skip(reason)
    with tempfile.TemporaryDirectory(prefix="dynconf-slurm-") as name:
        found = Slurm(Path(name).resolve())
        try:
            found.start()
            yield found
        finally:
            found.stop()


@pytest.fixture
def environment(cluster: Cluster, tmp_path: Path) -> Path:
    """The file that the script reads; it names a home in its own folder, beside it."""
    file = tmp_path / "environment"
    values = {**SETTINGS, **cluster.environment, "DYNCONF_HOME": str(tmp_path / "home")}
    lines = [f"{name}={shlex.quote(value)}\n" for name, value in values.items()]
    file.write_text("".join([f"PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH\n", *lines]))
    file.chmod(0o600)
    return file


def logs(folder: Path) -> str:
    return "\n".join(f"{path.name}:\n{path.read_text()}" for path in sorted(folder.glob("log-*")))


def array(slurm: Slurm, environment: Path, tasks: str = "1-2") -> None:
    """Submit the sweep for these tasks."""
    output = f"--output={environment.parent}/log-%A_%a"
    slurm.submit(f"--array={tasks}", output, *SMALL, SCRIPT, *SWEEP, DYNCONF_ENVIRONMENT=str(environment))


def in_state(cluster: Cluster, *states: str) -> list[Any]:
    """The trials of the sweep in one of these states."""
    found = [study for name, study in trials(cluster).items() if "max_drop" in name]
    return [trial for study in found for trial in study if trial.state.name in states]


def results(home: Path) -> dict[str, Any]:
    (file,) = (home / "sweeps").glob("smoke-max_drop-*/results.json")
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def test_an_array_with_one_task_killed_ends_with_all_points(slurm: Slurm, cluster: Cluster, environment: Path) -> None:
    array(slurm, environment)
    wait_until(lambda: len(slurm.processes("--join")) == 2, "both tasks run")
    wait_until(lambda: len(in_state(cluster, "RUNNING")) >= 2, "each has taken a point")
    slurm.processes("--join")[0].kill()
    wait_until(lambda: not slurm.jobs(), "the array has ended", 400)
    home, told = environment.parent / "home", logs(environment.parent)
    found = results(home)
    assert [point["status"] for point in found["points"]] == ["ok"] * len(DROPS), told
    assert "GPU 0" in told and "GPU 1" in told and "ended with exit code 137" in told
    made = {path: path.stat().st_mtime_ns for path in (home / "artefacts").glob("*/*/*/manifest.json")}
    assert sum(path.is_relative_to(home / "artefacts" / "train") for path in made) == 1
    wait_until(lambda: not unfinished(cluster), "nothing runs in Prefect")
    runs = mlflow_runs(cluster)
    (parent,) = (run for run in runs if run.info.run_name == f"sweep {found['run']}")
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert [run.info.status for run in (parent, *children)] == ["FINISHED"] * (1 + len(DROPS))
    assert not in_state(cluster, "RUNNING", "WAITING")
    array(slurm, environment, "1")
    wait_until(lambda: not slurm.jobs(), "the second array has ended", 400)
    assert logs(environment.parent).count("ended with exit code 0") == 2
    assert results(home)["points"] == found["points"]
    assert {path: path.stat().st_mtime_ns for path in (home / "artefacts").glob("*/*/*/manifest.json")} == made


def test_before_the_limit_the_command_is_ended_in_order_and_the_task_runs_again(slurm: Slurm, tmp_path: Path) -> None:
    """With a command in the place of dynconf that does nothing but end as dynconf does; scancel ends it for good."""
    command, file = tmp_path / "dynconf", tmp_path / "environment"
    command.write_text("#!/bin/bash\ntrap 'echo given back; exit 143' TERM\necho at work\nwhile sleep 0.1; do :; done\n")
    command.chmod(0o755)
    file.write_text(f"PATH={tmp_path}:$PATH\nDYNCONF_HOME={tmp_path}\nPREFECT_API_URL=http://nowhere\n")
    file.chmod(0o600)

    def told(task: int, text: str) -> int:
        log = tmp_path / f"log-{task}"
        return log.read_text().count(text) if log.exists() else 0

    job = slurm.submit("--array=1-2", f"--output={tmp_path}/log-%a", *SMALL, SCRIPT, "settings", DYNCONF_ENVIRONMENT=str(file))
    slurm.wait_until(lambda: told(1, "at work") and told(2, "at work"), "both run")
    slurm.run("scancel", "--batch", "--signal=USR1", f"{job}_2")  # what Slurm sends before the limit
    slurm.wait_until(lambda: told(2, "ended with exit code 143"), "it has ended in order")
    slurm.wait_until(lambda: sorted(slurm.jobs()) == [f"{job}_1 RUNNING", f"{job}_2 PENDING"], "it alone waits to run again")
    assert told(2, "given back") == 1 and "Restarts=1" in slurm.run("scontrol", "show", "job", f"{job}_2")
    slurm.run("scontrol", "update", f"jobid={job}_2", "starttime=now+3")  # sooner, the node may still revoke its credential
    slurm.wait_until(lambda: told(2, "at work") == 2, "it runs again")
    slurm.run("scancel", job)
    slurm.wait_until(lambda: not slurm.jobs(), "they are gone")
    assert (told(1, "given back"), told(2, "given back")) == (1, 2)


def test_the_script_refuses_an_environment_that_others_can_read(tmp_path: Path) -> None:
    file = tmp_path / "environment"

    def refused(told: str) -> bool:
        given = {"PATH": "/usr/bin:/bin", "DYNCONF_ENVIRONMENT": str(file)}
        done = subprocess.run(["bash", SCRIPT, "settings"], env=given, capture_output=True, text=True, check=False)
        return done.returncode == 2 and told in done.stderr

    assert refused(f"There is no {file}")
    file.write_text("DYNCONF_HOME=/nowhere\n")
    file.chmod(0o640)
    assert refused("Others may read")
    file.write_text("OMP_NUM_THREADS=1\n")
    file.chmod(0o600)
    assert refused("does not set DYNCONF_HOME")
