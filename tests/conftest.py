"""Shared by all tests: one torch thread, a Prefect server, a home with empty databases, and where real data lies."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from postgres import postgres  # noqa: F401  (a fixture: one server for the session)
from processes import ended, started

ROOT = Path(__file__).resolve().parent.parent

LONGEST = (
    "servers",
    "test_flows",
    "test_processes",
    "test_training_command",
    "test_one_content",
    "test_tracked_once",
    "test_terminal",
    "test_mlflow_database",
    "test_server",
    "test_selection",
    "test_analyse_command",
    "test_serving",
    "test_outside_packages",
    "test_collect",
    "test_track",
    "test_core_imports",
    "test_training_parallel",
    "test_resend",
    "test_key_properties",
    "test_correction",
    "test_equivalences",
    "test_open_house",
    "test_live",
    "test_analysis",
    "test_convert_command",
    "test_reconcile",
    "test_packaging",
    "test_examples",
    "test_documents",
)
"""The files, or folders of files, that take longest, the longest first."""

torch.set_num_threads(1)  # the figures are then the same on every machine, and tests run side by side


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the files first that take longest, so that no processor idles at the end."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: min(places.get(item.path.stem, len(places)), places.get(item.path.parent.name, len(places))))


@pytest.fixture(autouse=True, scope="module")
def environment_of_module() -> Iterator[None]:
    """What a command sets for its process and children, such as Prefect's folder, ends with a module's fixtures."""
    before = dict(os.environ)
    yield
    _restore(before)


@pytest.fixture(autouse=True)
def environment_of_test(environment_of_module: None) -> Iterator[None]:
    """What a command sets for its process and children ends with a test."""
    before = dict(os.environ)
    yield
    _restore(before)


def _restore(environment: dict[str, str]) -> None:
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    os.environ.update(environment)


@pytest.fixture(scope="session")
def empty_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home that holds the empty databases of MLflow and Prefect and nothing else, to be copied.

    Making them takes seconds: it is done once for all processes that run tests.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "empty-home"
    with FileLock(folder.with_suffix(".lock")):
        if not folder.exists():
            making = folder.with_name("home-in-the-making")
            assert ended(started(lambda: _make_databases(making)), 300) == 0
            (folder / "prefect").mkdir(parents=True)
            for database in ("mlflow.db", "prefect/prefect.db"):
                (making / database).rename(folder / database)
    return folder


def _make_databases(home: Path) -> None:
    from dynconf_flows.command.server import TemporaryServer
    from dynconf_tasks.tracking.database import prepare

    for name in [name for name in os.environ if name.startswith(("PREFECT_", "MLFLOW_"))]:
        del os.environ[name]
    server = TemporaryServer(home)
    prepare(home, print)
    server.wait()
    server.stop()


@pytest.fixture(scope="session")
def prefect_server(empty_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Prefect server for all tests that do not look at its other runs: a value for PREFECT_API_URL."""
    from dynconf_flows.command.server import TemporaryServer

    before = dict(os.environ)
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        del os.environ[name]
    server = TemporaryServer(Path(shutil.copytree(empty_home, tmp_path_factory.mktemp("prefect") / "home")))
    server.wait()
    address = os.environ["PREFECT_API_URL"]
    _restore(before)
    yield address
    server.stop()


@pytest.fixture
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture
def imagenette() -> Path:
    """The folder that holds `imagenette2-64`; skips the test where there is none."""
    named = [Path(os.environ[name]) for name in ("DYNCONF_DATA",) if os.environ.get(name)]
    for folder in (*named, ROOT / ".dynconf" / "data", *sorted(ROOT.parent.glob("*/data"))):
        if (folder / "imagenette2-64" / "val").is_dir():
            return folder
    pytest.skip("Imagenette at 64 px is not here: name its folder with DYNCONF_DATA")
