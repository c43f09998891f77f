"""``dynconf ui``: up soon, quiet, on this machine alone, and its addresses open on what they promise."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import browsers
import pytest
from result_cases import run_result, setting_result

from dynconf_tasks.tracking.logged import Origin, child_of
from dynconf_tasks.tracking.tracker import Tracker

pytest.importorskip("selenium", reason="selenium is not installed: pip install 'dynconf[dev]'")
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.common.by import By

NAMES = ("cifar10-vgg16-qcfs", "cifar10-resnet18-qcfs")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a reproduction in MLflow."""
    home = tmp_path_factory.mktemp("of the user") / "50%41 #1 [red] é"
    home.mkdir()
    before = os.environ.pop("MLFLOW_TRACKING_URI", None)
    tracker = Tracker(home)
    parent = tracker.parent("smoke", 0, {}, "smoke, seed 0")
    rows = [setting_result(name) for name in NAMES]
    for row in rows:
        tracker.child(parent, child_of(row, Origin(home, "smoke", 0)))
    tracker.finish_parent(parent, run_result(*rows))
    if before is not None:
        os.environ["MLFLOW_TRACKING_URI"] = before
    return home


@pytest.fixture(scope="module")
def served(home: Path) -> Iterator[tuple[dict[str, str], int]]:
    """The addresses that the command prints, by title, and its port; it ends at once with SIGINT, and so does its server."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    command = [sys.executable, "-m", "dynconf_flows.command.main", "ui", "--home", str(home), "--port", str(port)]
    process = subprocess.Popen(
        command, env=environment, cwd=home.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stderr is not None
    try:
        assert "Ctrl-C" in process.stdout.readline(), process.stderr.read()
        found: dict[str, str] = {}
        while "Newest run" not in "".join(found):
            title, _, address = process.stdout.readline().strip().rpartition("  ")
            found[title.strip()] = address
        yield found, port
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
        assert process.returncode == 130
        assert said.split("\n") == ["Starting MLflow's UI ...", "", *said.split("\n")[2:3], ""], "nothing of MLflow's"
        assert said.split("\n")[2].startswith("Interrupted by SIGINT")
        assert not listening("127.0.0.1", port)
    finally:
        process.kill()


def listening(address: str, port: int) -> bool:
    with suppress(OSError), socket.create_connection((address, port), timeout=2):
        return True
    return False


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with browsers.browser(window="2400,1600") as opened:
        yield opened


def test_this_machine_alone_is_served(served: tuple[dict[str, str], int]) -> None:
    addresses, port = served
    assert listening("127.0.0.1", port) and not listening("127.0.0.2", port)
    assert all(address.startswith(f"http://127.0.0.1:{port}/#/experiments/") for address in addresses.values())


def test_the_addresses_open_on_what_they_promise(served: tuple[dict[str, str], int], browser: Any) -> None:
    """The settings with their figures in chosen columns, and charts that compare them."""
    addresses, _ = served

    def shows(*texts: str) -> None:
        page = ""
        until = time.monotonic() + 40
        while time.monotonic() < until and not all(text in page for text in texts):
            time.sleep(0.2)
            with suppress(WebDriverException):
                page = browser.find_element(By.TAG_NAME, "body").text
        assert [text for text in texts if text not in page] == [], page

    browser.get(addresses["Settings, smoke"])
    shows(*NAMES, "headline/exit_accuracy_percent", "95.37", "headline/mean_steps", "10.25", "2 matching runs")
    browser.get("about:blank")
    browser.get(addresses["Settings compared, smoke"])
    shows(*NAMES, "Settings compared\n(6)", "headline/points_lost")
    browser.get("about:blank")
    time.sleep(0.1)
    (newest,) = [address for title, address in addresses.items() if title.startswith("Newest run")]
    browser.get(newest)
    shows("68 % fewer steps on average over 2 settings", "headline/mean_steps")
