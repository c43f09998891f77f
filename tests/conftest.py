"""Shared by all tests: one torch thread, and where real data lies."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from postgres import postgres  # noqa: F401  (a fixture: one server for the session)

ROOT = Path(__file__).resolve().parent.parent

torch.set_num_threads(1)  # the figures are then the same on every machine, and tests run side by side


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
