"""A setting whose data, network, scheme, neurons and measure are all from outside, one file each: nothing of ours is edited."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from processes import dynconf

HOUSE = Path(__file__).parent / "open_house"
SETTING, MEASURE = "mine:SETTING", "running_gap:RunningGap"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Somebody's folder, in which they work."""
    return Path(shutil.copytree(HOUSE, tmp_path_factory.mktemp("somebody") / "work"))


@pytest.fixture(autouse=True)
def without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DYNCONF_HOME", raising=False)


@pytest.fixture(scope="module")
def document(folder: Path, prefect_server: str) -> dict[str, Any]:
    asked = ("reproduce", "--setting", SETTING, "--set", f"rule={MEASURE}", "--set", "top=1.5", "--json")
    command = [sys.executable, "-m", "dynconf_flows.command.main", *asked]
    environment = {name: value for name, value in os.environ.items() if name != "DYNCONF_HOME"}
    environment["PREFECT_API_URL"] = prefect_server
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    content: dict[str, Any] = json.loads(done.stdout)
    return content


def test_a_whole_setting_from_outside(document: dict[str, Any]) -> None:
    """It learns, its SNN equals its quantised network for the most part, and its measure chooses when to exit."""
    (row,) = document["settings"]
    assert (row["name"], row["status"], row["method"], row["time_steps"]) == ("stripes-small-thirds", "ok", "thirds:Thirds", 12)
    assert row["data"]["name"] == "stripes:STRIPES" and row["data"]["stands_in_for"] is None
    assert (row["data"]["train"], row["data"]["calibration"], row["data"]["test"]) == (300, 60, 120)
    assert row["network"]["architecture"] == "small_network:SMALL"
    assert row["ann_accuracy"] > 0.8 and row["snn_accuracy"] > 0.7
    assert row["exit"]["rule"]["measure"] == "running_gap" and row["exit"]["mean_steps"] < 12
    assert "running_gap" in json.dumps(row["comparison"])


def test_the_home_knows_it(folder: Path, document: dict[str, Any]) -> None:
    """Every stage is found again, and by its files: an edit of the neurons makes the conversion stale, and not the training."""
    asked = ("explain", SETTING, "--set", f"rule={MEASURE}", "--set", "top=1.5", "--json")

    def outcomes() -> dict[str, str]:
        done = dynconf(*asked, cwd=folder)
        assert done.returncode == 0, done.stderr
        return {line["stage"]: line["outcome"] for line in json.loads(done.stdout)["stages"]}

    assert set(outcomes().values()) == {"hit"}
    neurons = folder / "resting.py"
    before = neurons.read_text()
    neurons.write_text(before.replace("(time_steps + 1) // 2", "time_steps"))
    try:
        assert (outcomes()["train"], outcomes()["convert"]) == ("hit", "miss")
    finally:
        neurons.write_text(before)
    assert set(outcomes().values()) == {"hit"}


def test_its_traces_are_those_of_its_neurons(folder: Path, document: dict[str, Any]) -> None:
    """Neurons that rest fire in every other step at most."""
    from dynconf_core.traces.schema import Traces

    asked = ("traces", SETTING, "--split", "test", "--out", "test.npz", "--set", "top=1.5")
    done = dynconf(*asked, cwd=folder)
    assert done.returncode == 0, done.stderr
    traces = Traces.load(folder / "test.npz")
    assert (traces.samples, traces.time_steps, traces.classes) == (120, 12, 3)
    assert traces.spikes is not None and traces.meta["neurons"] > 0
    assert float(traces.spikes.sum(axis=1).max()) <= 6 * traces.meta["neurons"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--set", "levels=4"), "field 'levels' belongs to none of the chosen settings (stripes-small-thirds)"),
        (("--set", "top=0"), "top=0: needs a number from 0.1 to 10"),
        (("--profile", "quick"), "profile quick has no recipe for small_network:SMALL on stripes"),
        (("--setting", "mine:OTHER"), "module mine has no 'OTHER'"),
    ],
)
def test_what_cannot_work_from_outside(folder: Path, options: tuple[str, ...], words: str) -> None:
    done = dynconf("reproduce", "--setting", SETTING, *options, cwd=folder)
    assert done.returncode == 2 and words in " ".join(done.stderr.split()), done.stderr
