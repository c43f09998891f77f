"""A Dask cluster computes settings for a command."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback_cluster import Cluster
from processes import ended, started

distributed = pytest.importorskip("distributed", reason="Dask is not installed: pip install 'dynconf[dask]'")


@pytest.fixture
def scheduler(cluster: Cluster) -> Iterator[str]:
    """The address of a scheduler with one worker, which offers a GPU."""
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=True, resources={"GPU": 1}, dashboard_address=None, host="127.0.0.1"
    ) as dask:
        yield dask.scheduler_address


def test_settings_run_on_dask_and_what_no_worker_offers_is_refused(cluster: Cluster, scheduler: str, tmp_path: Path) -> None:
    def call(*options: str) -> tuple[int, str, str]:
        out, errors = tmp_path / "out", tmp_path / "errors"

        def run() -> None:
            sys.stdout, sys.stderr = out.open("w"), errors.open("w")
            from dynconf_flows.command.entry import main

            sys.argv = ["dynconf", "reproduce", "--setting", "cifar10-vgg16-qffs", "--dask", scheduler, *options]
            main()

        environment = {
            **cluster.environment,
            "DYNCONF_HOME": str(tmp_path / "home"),
            "DYNCONF_STORAGE": "",
            "OMP_NUM_THREADS": "1",
        }
        code = ended(started(run, environment), 240)
        return code, out.read_text(), errors.read_text()

    short = ("--set", "epochs=1", "--set", "time_steps=4")
    code, _, errors = call(*short, "--resources", "GPU=2")
    assert code == 2 and "no worker" in errors and "they offer: GPU=1" in errors
    code, out, errors = call(*short, "--resources", "GPU=1")
    assert code == 0, errors
    assert "cifar10-vgg16-qffs" in out and "failed" not in out
