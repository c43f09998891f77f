"""`scripts/slurm/array.sh` on a real Slurm of one node: a sweep whose array has one task killed, and what the script refuses."""

from __future__ import annotations

import json
import shlex
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
SMALL = ("--cpus-per-task=1", "--mem=900M", "--time=10")
"""What a test needs instead of what the script asks for."""
SWEEP = "sweep cifar10-vgg16-qcfs --profile smoke --grid max_drop=0,0.01,0.02,0.03,0.04,0.05 --set epochs=1 --set time_steps=8"


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
    """The file that the script reads, and a command `dynconf` where it finds it."""
    command = tmp_path / "bin" / "dynconf"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m dynconf_flows.command.entry "$@"\n')
    command.chmod(0o755)
    values = {**SETTINGS, **cluster.environment}
    file = tmp_path / "environment"
    lines = [f"{name}={shlex.quote(value)}\n" for name, value in values.items()]
    file.write_text("".join([f"PATH={shlex.quote(str(command.parent))}:$PATH\n", *lines]))
    file.chmod(0o600)
    return file


def logs(folder: Path) -> str:
    return "\n".join(f"{path.name}:\n{path.read_text()}" for path in sorted(folder.glob("log-*")))


def array(slurm: Slurm, environment: Path, tasks: str = "1-2") -> None:
    """Submit the sweep for these tasks."""
    output = f"--output={environment.parent}/log-%A_%a"
    slurm.submit(f"--array={tasks}", output, *SMALL, SCRIPT, *SWEEP.split(), DYNCONF_ENVIRONMENT=str(environment))


def in_state(cluster: Cluster, *states: str) -> list[Any]:
    """The trials of the sweep in one of these states."""
    found = [study for name, study in trials(cluster).items() if "max_drop" in name]
    return [trial for study in found for trial in study if trial.state.name in states]


def results(cluster: Cluster) -> list[dict[str, Any]]:
    (found,) = (cluster.home / "sweeps").glob("smoke-max_drop-*/results.json")
    points: list[dict[str, Any]] = json.loads(found.read_text())["points"]
    return points


def test_an_array_with_one_task_killed_ends_with_all_points(slurm: Slurm, cluster: Cluster, environment: Path) -> None:
    array(slurm, environment)
    wait_until(lambda: len(slurm.processes("dynconf_flows.command.entry")) == 2, "both tasks run")
    wait_until(lambda: in_state(cluster, "COMPLETE"), "a point is done")
    victim = slurm.processes("dynconf_flows.command.entry")[0]
    victim.kill()
    wait_until(lambda: not slurm.jobs(), "the array has ended")
    assert len(results(cluster)) == 6 and {point["status"] for point in results(cluster)} == {"ok"}, logs(environment.parent)
    assert "GPU 0" in logs(environment.parent) and "GPU 1" in logs(environment.parent)
    assert "ended with exit code 137" in logs(environment.parent)
    trainings = list((cluster.home / "artefacts" / "train").glob("*/*/manifest.json"))
    assert len(trainings) == 1
    wait_until(lambda: not unfinished(cluster), "nothing runs in Prefect")
    assert {run.info.status for run in mlflow_runs(cluster)} == {"FINISHED"}
    assert not in_state(cluster, "RUNNING", "WAITING")
    before = trainings[0].stat().st_mtime_ns
    array(slurm, environment, "1")
    wait_until(lambda: not slurm.jobs(), "the second array has ended")
    assert {stage for point in results(cluster) for stage in point["stages"].values()} == {"cached"}
    assert trainings[0].stat().st_mtime_ns == before


def test_the_script_refuses_an_environment_that_others_can_read(slurm: Slurm, tmp_path: Path) -> None:
    file = tmp_path / "environment"
    for content, mode, told in (
        (None, 0, "There is no"),
        ("DYNCONF_HOME=/nowhere\n", 0o640, "Others may read"),
        ("PATH=$PATH\n", 0o600, "does not set DYNCONF_HOME"),
    ):
        if content is not None:
            file.write_text(content)
            file.chmod(mode)
        output = tmp_path / "log"
        command = ("sbatch", "--wait", f"--output={output}", *SMALL, SCRIPT, "settings")
        slurm.run(*command, check=False, DYNCONF_ENVIRONMENT=str(file))
        assert told in output.read_text()
        output.unlink()
