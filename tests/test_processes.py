"""Commands as processes: they are signalled, their children are killed, hang or raise, and the records say what happened."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from study_cases import made

HOUSE = Path(__file__).parent / "open_house"
VGG = ("--setting", "cifar10-vgg16-qffs", "--set", "time_steps=4")
SWEEP = ("sweep", "--setting", "cifar10-vgg16-qffs", "--grid", "time_steps=4,5", "--workers", "1")
WITHIN = 10.0
"""Seconds: nine at most, two to five as a rule, and what a loaded machine takes to notice."""


def _in_its_terminal() -> None:
    """Its input is the terminal it belongs to, which ends it by SIGHUP, also where these tests run under nohup."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


class Running:
    """A command in a process of its own, ended with the test."""

    def __init__(
        self, folder: Path, *arguments: str, module: str = "dynconf_flows.command.main", terminal: int | None = None
    ) -> None:
        environment = {name: value for name, value in os.environ.items() if name not in ("PREFECT_API_URL", "DYNCONF_HOME")}
        safe = ["-P"] if module.startswith("dynconf") else []
        place = subprocess.PIPE if terminal is None else terminal
        self.process = subprocess.Popen(
            [sys.executable, *safe, "-m", module, *arguments],
            cwd=folder,
            env=environment,
            stdin=terminal,
            stdout=place,
            stderr=place,
            text=True,
            start_new_session=True,
            preexec_fn=None if terminal is None else _in_its_terminal,
        )

    def until(self, happened: Callable[[], object]) -> None:
        """Wait until something has happened while the command runs."""
        end = time.monotonic() + 300
        while not happened():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < end
            time.sleep(0.05)

    def children(self) -> list[psutil.Process]:
        """The processes of its settings."""
        found = []
        for child in psutil.Process(self.process.pid).children():
            with suppress(psutil.NoSuchProcess):  # a zombie is none either
                found += [child] if "dynconf_flows.workers.worker" in child.cmdline() else []
        return found

    def ended(self, *signals: signal.Signals) -> tuple[str, str]:
        """Send signals half a second apart; what it has written until it ends, soon and with the first one's exit code."""
        asked = time.monotonic()
        for number in signals:
            self.process.send_signal(number)
            time.sleep(0.5)
        out, errors = self.process.communicate(timeout=60)
        assert time.monotonic() - asked < WITHIN
        assert self.process.returncode == 128 + signals[0], (out, errors)
        assert errors.count(f"Interrupted by {signals[0].name}") == 1 and "Traceback" not in out + errors
        return out, errors


Start = Callable[..., Running]


@pytest.fixture
def home(empty_home: Path, tmp_path: Path) -> Path:
    """A home whose databases are there, and empty: with others the runs would begin seconds later."""
    return Path(shutil.copytree(empty_home, tmp_path / "home"))


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a command in the test's folder."""
    running: list[Running] = []

    def start(*arguments: str, **more: Any) -> Running:
        running.append(Running(tmp_path, *arguments, **more))
        return running[-1]

    yield start
    for one in running:
        if one.process.poll() is None:
            one.process.kill()
            one.process.communicate()


def rows(database: Path, query: str) -> list[tuple[Any, ...]]:
    with sqlite3.connect(database) as connection:
        return connection.execute(query).fetchall()


def states(home: Path, kind: str = "flow_run") -> dict[str, str]:
    return dict(rows(home / "prefect" / "prefect.db", f"select name, state_name from {kind}"))


def mlflow(home: Path) -> dict[str, str]:
    query = "select name, status from runs where lifecycle_stage = 'active'"
    return dict(rows(home / "mlflow.db", query))


def gone(processes: list[psutil.Process]) -> bool:
    return not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in processes)


def test_a_reproduction_that_is_told_to_end(start: Start, home: Path) -> None:
    """SIGTERM while it trains, and more signals; then all over, as if nothing had been."""
    command = ("reproduce", "--home", str(home), *VGG, "--setting", "cifar10-resnet18-qffs")
    running = start(*command)
    running.until(lambda: list(home.glob("work/*/epoch.pt")))
    children = running.children()
    assert len(children) == min(2, os.cpu_count() or 1)
    out, _ = running.ended(signal.SIGTERM, signal.SIGHUP, signal.SIGTERM)
    assert "stopped" in out and gone(children)
    (written,) = home.glob("results/*/results.json")
    entries = json.loads(written.read_text())["settings"]
    assert [entry["status"] for entry in entries] == ["failed", "failed"]
    assert all("interrupted" in entry["error"] for entry in entries)
    assert entries[0]["resources"]["peak_memory_bytes"] > 2**27 and entries[0]["resources"]["seconds"] > 0
    assert not (home / "results" / "latest").exists()
    assert mlflow(home) == {"smoke, seed 0, time_steps=4": "KILLED"}
    assert set(states(home).values()) == {"Cancelled"} and len(states(home)) == 1 + len(children)
    assert not list((home / "logs").iterdir())


def test_a_sweep_whose_terminal_is_closed(start: Start, home: Path) -> None:
    """The system sends SIGHUP, and nothing can be written any more. Its child is signalled too, as by Slurm or systemd."""
    terminal, theirs = os.openpty()
    running = start(*SWEEP, "--home", str(home), terminal=theirs)
    os.close(theirs)
    os.set_blocking(terminal, False)

    def trains() -> bool:
        with suppress(BlockingIOError):
            os.read(terminal, 1 << 20)  # else its bars would fill the terminal's buffer
        return bool(list(home.glob("work/*/epoch.pt")))

    running.until(trains)
    (child,) = running.children()
    asked = time.monotonic()
    os.close(terminal)  # first: a child that dies before its command is told to end has failed by itself
    with suppress(psutil.NoSuchProcess):
        child.send_signal(signal.SIGHUP)
    assert running.process.wait(60) == 128 + signal.SIGHUP
    assert time.monotonic() - asked < WITHIN and gone([child])
    (written,) = home.glob("sweeps/*/results.json")
    (point,) = json.loads(written.read_text())["points"]
    assert (point["status"], point["values"]) == ("failed", {"time_steps": 4}) and "interrupted" in point["error"]
    assert not (home / "sweeps" / "latest").exists()
    assert list(mlflow(home).values()) == ["KILLED"]
    assert set(states(home).values()) == {"Cancelled"} and len(states(home)) == 2


def test_an_analysis_that_is_told_to_end(start: Start, tmp_path: Path) -> None:
    """While it writes its pictures: no file is there but complete ones under other names, which are removed."""
    made(70, 1, 6).save(tmp_path / "calibration.npz")
    made(60, 2, 6).save(tmp_path / "test.npz")
    running = start("analyse", "calibration.npz", "--test", "test.npz", "--home", "home", "--out", "analysis")
    running.until(lambda: list(tmp_path.glob("analysis/.analysis-*/*.png")))
    out, _ = running.ended(signal.SIGINT)
    assert not out.strip() and not list(tmp_path.glob("analysis/*"))
    database = tmp_path / "home" / "mlflow.db"
    assert not database.exists() or "RUNNING" not in mlflow(tmp_path / "home").values()


def test_a_conversion_that_is_told_to_end(start: Start, tmp_path: Path) -> None:
    """While it simulates: the SNN is there, and no traces."""
    from dynconf_core.conversion.file import load_snn
    from dynconf_core.networks.resnet_cifar import CifarResNet

    torch.manual_seed(0)
    network = CifarResNet(20)
    with torch.no_grad():
        network.train()(torch.randn(64, 3, 32, 32))
    torch.save({"state_dict": network.state_dict()}, tmp_path / "resnet20.th")
    asked = ("--architecture", "resnet20", "--checkpoint", "resnet20.th", "--dataset", "digits", "--out", "out/snn.pt")
    quick = ("--images", "32", "--no-correct", "--thresholds", "max", "--time-steps", "8")
    running = start("convert", *asked, "--normalisation", "digits", "--traces", "out", "--home", "home", *quick)
    running.until(lambda: list(tmp_path.glob("out/.traces-*")))
    running.ended(signal.SIGTERM)
    assert [path.name for path in tmp_path.glob("out/*")] == ["snn.pt"]
    assert load_snn(tmp_path / "out" / "snn.pt").facts["architecture"] == "resnet20"


def test_children_end_with_a_run_that_is_killed(start: Start, home: Path) -> None:
    running = start("reproduce", "--home", str(home), *VGG)
    running.until(lambda: running.children())
    children = running.children()
    running.process.kill()
    _, alive = psutil.wait_procs(children, 5)
    assert not alive


def test_a_flow_that_a_prefect_worker_ends(start: Start, tmp_path: Path, home: Path) -> None:
    """Prefect raises the signal in the middle of the flow: it is recorded, then passed on to Prefect."""
    code = f"""
from pathlib import Path
from dynconf_flows.command.server import TemporaryServer
server = TemporaryServer(Path({str(home)!r}))
server.wait()
from dynconf_flows.reproduce import reproduce
try:
    reproduce(settings=["cifar10-vgg16-qffs"], overrides={{"time_steps": 4}}, home={str(home)!r})
finally:
    server.stop()
"""
    (tmp_path / "worker.py").write_text(code)
    running = start(module="worker")
    running.until(lambda: list(home.glob("work/*/epoch.pt")))
    (child,) = running.children()
    running.process.send_signal(signal.SIGTERM)
    _, errors = running.process.communicate(timeout=60)
    assert running.process.returncode == -signal.SIGTERM, errors
    assert gone([child])
    (written,) = home.glob("results/*/results.json")
    assert "interrupted" in json.loads(written.read_text())["settings"][0]["error"]
    assert mlflow(home) == {"smoke, seed 0, time_steps=4": "KILLED"}
    assert states(home) == {"cifar10-vgg16-qffs": "Cancelled", "reproduce smoke, seed 0": "Crashed"}


def test_a_nohup_stays_one(start: Start, tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        running = start("explain", "cifar10-vgg16-qffs", "--home", "home")
        running.process.send_signal(signal.SIGHUP)
        running.process.communicate(timeout=60)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert running.process.returncode == 0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Somebody's folder, whose files are called like modules of the standard library."""
    shutil.copytree(HOUSE, tmp_path, dirs_exist_ok=True)
    for name in ("random", "struct", "logging"):
        text = f"open({str(tmp_path / 'executed')!r}, 'a').write('{name}')\nraise ImportError('{name} of the current folder')"
        (tmp_path / f"{name}.py").write_text(text)
    return tmp_path


def test_three_of_four_go_wrong_and_a_rerun_does_these(folder: Path, start: Start, home: Path) -> None:
    """One raises, one is killed as by a system that is out of memory, one hangs; the fourth finishes."""
    names = ("hangs", "raises", "killed", "fine")
    asked = [word for name in names for word in ("--setting", f"faulty:{name.upper()}")]
    faults = [folder / f"{name}.fault" for name in names[:3]]
    for fault in faults:
        fault.touch()
    command = ("reproduce", "--home", str(home), *asked, "--set", "time_steps=4", "--set", "epochs=1", "--json")
    running = start(*command, "--stage-timeout", "15s")
    out, errors = running.process.communicate(timeout=240)
    assert running.process.returncode == 1, errors
    found = {row["name"]: row for row in json.loads(out)["settings"]}
    assert [row["status"] for row in found.values()] == ["failed", "failed", "failed", "ok"]
    assert found["raises"]["error"] == "train: a fault made by the test"
    assert found["hangs"]["error"].startswith("train: took longer than --stage-timeout 15 s")
    assert "train: killed by signal 9 (SIGKILL), perhaps for lack of memory; it used up to " in found["killed"]["error"]
    assert {row["stages"]["train"] for row in found.values()} == {"failed", "ran"}
    assert all(row["resources"]["peak_memory_bytes"] > 2**27 for row in found.values())
    assert found["hangs"]["resources"]["seconds"] >= 15
    expected = {"hangs": "Crashed", "raises": "Failed", "killed": "Crashed", "fine": "Completed"}
    assert states(home) == {**expected, "reproduce smoke, seed 0": "Failed"}
    tasks = states(home, "task_run")
    assert (tasks["hangs · train"], tasks["killed · train"]) == ("Crashed", "Crashed")
    ended = {f"{name}, time_steps=4, epochs=1": "FINISHED" if name == "fine" else "FAILED" for name in names}
    assert mlflow(home) == {**ended, "smoke, seed 0, time_steps=4, epochs=1": "FAILED"}
    assert not (folder / "executed").exists()
    assert not list((home / "claims").iterdir()), "what the killed processes held"

    for fault in faults:
        fault.unlink()
    again = start(*command)
    out, errors = again.process.communicate(timeout=240)
    assert again.process.returncode == 0, errors
    stages = {row["name"]: set(row["stages"].values()) for row in json.loads(out)["settings"]}
    assert stages == {name: {"cached"} if name == "fine" else {"ran"} for name in names}
    assert set(mlflow(home).values()) == {"FINISHED"} and len(mlflow(home)) == 5
