"""``dynconf doctor``, the help, and what a shell completes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from commands import Command, command
from homes import RUNNING, process

from dynconf_core.confidence.measure import MEASURES
from dynconf_core.experiment.settings import names
from dynconf_flows.command import diagnosis
from dynconf_flows.command.completion import MEASURES as COMPLETED
from dynconf_flows.command.help import EXAMPLES, GROUPS

VARIABLES = ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", "DYNCONF_STORAGE", "DYNCONF_DATA")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def dynconf(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DYNCONF_HOME", str(home))
    monkeypatch.setenv("COLUMNS", "80")
    return command(monkeypatch, capsys)


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def found(dynconf: Command) -> tuple[int, dict[str, dict[str, Any]]]:
    answer = dynconf("doctor", "--json")
    content = json.loads(answer.out)
    assert content["schema"] == 2 and content["healthy"] == (answer.code == 0)
    return answer.code, {one["name"]: one for one in content["findings"]}


def test_a_machine_on_which_all_is_well(dynconf: Command, home: Path) -> None:
    code, seen = found(dynconf)
    assert code == 0 and {one["state"] for one in seen.values()} <= {"ok", "note"}
    assert seen["home"]["text"].startswith(f"{home} (") and not home.exists(), "nothing is written"
    told = seen["data sets"]["text"]
    assert "none found in" in told and "digits come with scikit-learn" in told and "not cifar10" in told
    assert "torch " in seen["libraries"]["text"]
    assert "0.1.0" in seen["dynconf"]["text"] and "cores" in seen["processor"]["text"]
    text = dynconf("doctor")
    assert text.code == 0 and "Everything that is needed is there." in text.out


def test_what_is_broken_is_named_without_passwords(dynconf: Command, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = closed_port()
    home.write_text("a file")
    monkeypatch.setenv("PREFECT_API_URL", f"http://someone:secret@127.0.0.1:{port}/api")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://someone:secret@127.0.0.1:{port}")
    monkeypatch.setenv("DYNCONF_STORAGE", f"postgresql://someone:secret@127.0.0.1:{port}/studies")
    code, seen = found(dynconf)
    assert code == 1
    for name in ("home", "Prefect", "MLflow", "storage"):
        assert seen[name]["state"] == "broken", seen[name]
    text = dynconf("doctor")
    assert text.code == 1 and "secret" not in text.out and "someone:***@" in text.out and "needed is there" not in text.out


def test_what_is_stale_or_damaged_is_a_note(dynconf: Command, home: Path) -> None:
    with process(RUNNING, home) as run:
        assert "1 running" in found(dynconf)[1]["home"]["text"]
        run.kill()
        run.wait()
    (home / "mlflow.db").write_bytes(b"no database" * 100)
    code, seen = found(dynconf)
    assert code == 0 and "1 stale" in seen["home"]["text"] and "reconcile" in seen["home"]["remedy"]
    assert seen["MLflow"]["state"] == "note" and "damaged" in seen["MLflow"]["text"]


def test_missing_packages_are_named_with_the_command_that_installs_them(
    dynconf: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ["scipy>=99; extra == 'analysis'", "no-such-package; extra == 'dask'", "torch>=2"]
    monkeypatch.setattr(diagnosis, "requires", lambda name: asked)
    code, seen = found(dynconf)
    assert code == 1 and seen["extra analysis"]["state"] == "broken" and "scipy" in seen["extra analysis"]["text"]
    assert seen["extra dask"]["state"] == "note" and "no-such-package" in seen["extra dask"]["text"]
    assert seen["extra dask"]["remedy"] == "pip install 'dynconf[dask]'" and "extra pipeline" not in seen


def test_a_look_that_fails_does_not_end_the_diagnosis(dynconf: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "check_storage", lambda: 1 / 0)
    monkeypatch.setenv("DYNCONF_STORAGE", "postgresql://127.0.0.1/studies")
    code, seen = found(dynconf)
    assert code == 1 and "ZeroDivisionError" in str(seen.values()) and "data sets" in seen


def test_every_command_is_in_a_group_and_has_an_example(dynconf: Command) -> None:
    text = dynconf("--help").out
    assert "Further:" not in text and "..." not in text.split("\nRun:")[1].split("Examples:")[0], "no sentence is cut"
    places = [text.index(f"\n{title}:") for title in GROUPS if f"\n{title}:" in text]
    assert len(places) == len(GROUPS) and places == sorted(places)
    listed = [line.split()[0] for line in text.split("\nRun:")[1].split("Examples:")[0].splitlines() if line.startswith("  ")]
    assert listed
    for name in listed:
        words = ("data", "fetch") if name == "data" else (name,)
        shown = dynconf(*words, "--help").out
        assert "Example" in shown and f"dynconf {' '.join(words)}" in shown.split("Example")[-1], name
        assert all(len(line) <= 80 for line in shown.split("Example")[0].splitlines()), name
    assert set(listed) - {"data"} <= set(EXAMPLES)


def test_options_are_grouped(dynconf: Command) -> None:
    text = dynconf("reproduce", "--help").out
    order = [text.index(title) for title in ("Options:", "Where and on what:", "Together with others:", "Output:")]
    assert order == sorted(order) and text.index("--dask") > order[2] and text.index("--json") > order[3]


def completed(words: str) -> tuple[list[str], float]:
    """What bash offers after these words, and the seconds of processor time that it takes."""
    environment = {
        **os.environ,
        "_DYNCONF_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    code = (
        "import sys, time; sys.argv = ['dynconf']\n"
        "from dynconf_flows.command.main import app\n"
        "try: app(prog_name='dynconf')\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'prefect', 'mlflow', 'optuna'} & set(sys.modules)), time.process_time(), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    heavy, _, seconds = done.stderr.strip().rpartition(" ")
    assert heavy == "[]", words
    return done.stdout.split(), float(seconds)


def test_a_shell_completes_names_at_once() -> None:
    start = time.monotonic()
    found, seconds = completed("dynconf reproduce --setting cifar10-")
    assert found == [name for name in names() if name.startswith("cifar10-")] and seconds < 2
    assert completed("dynconf explain imagenet-v")[0] == [name for name in names() if name.startswith("imagenet-v")]
    assert completed("dynconf reproduce --profile ")[0] == ["smoke", "quick", "paper"]
    assert "time_steps=" in completed("dynconf sweep --set ti")[0]
    assert completed("dynconf reproduce --rule max")[0] == ["max_softmax"]
    assert {"reproduce", "report"} & set(completed("dynconf rep")[0])
    assert time.monotonic() - start < 60


def test_the_measures_that_are_completed_are_those_that_there_are() -> None:
    assert tuple(COMPLETED) == tuple(name for name in MEASURES.names() if MEASURES.own(name))
