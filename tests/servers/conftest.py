"""One cluster on this machine for all tests on real servers."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback_cluster import Cluster, parts


@pytest.fixture(scope="session", autouse=True)
def installed() -> None:
    """Skips the tests where PostgreSQL is not installed."""
    if shutil.which("initdb") is None and not list(Path("/usr/lib/postgresql").glob("*/bin/initdb")):
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'dynconf[cluster]'")


@pytest.fixture(scope="session")
def running_cluster(installed: None) -> Iterator[Cluster]:
    # The user postgres, as whom root runs PostgreSQL, cannot enter pytest's own temporary folders.
    with tempfile.TemporaryDirectory(prefix="dynconf-cluster-") as name:
        folder = Path(name).resolve()
        folder.chmod(0o711 if os.getuid() == 0 else 0o700)
        cluster = Cluster(folder)
        try:
            cluster.up()
            yield cluster
        finally:
            cluster.down()
        assert not cluster.processes()


@pytest.fixture
def cluster(running_cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """The cluster, whole again after what the last test has done to it, in whose environment the test runs."""
    if len(parts(running_cluster.folder / "cluster")) < 5:
        running_cluster.up()
    for name, value in running_cluster.environment.items():
        monkeypatch.setenv(name, value)
    return running_cluster
