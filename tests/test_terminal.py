"""The command on any terminal, file and pipe: foreign text appears as it is, and no encoding or closed pipe is an error."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from commands import Command, command_on_traces
from result_cases import run_result, setting_result
from rich.table import Table

from dynconf_core.results.files import LATEST, new_run, write_results
from dynconf_core.results.records import read
from dynconf_core.results.types import RunResult
from dynconf_core.traces.schema import Traces
from dynconf_flows.command.terminal import Terminal, labelled

ASCII: Mapping[str, Mapping[str, str]] = {
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "C locale": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}
ODD = "[red]%41?é→[/red] $x_{$"


def run(*arguments: str | Path, cwd: Path, **more: str) -> subprocess.CompletedProcess[bytes]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "LC_", "DYNCONF"))}
    command = [sys.executable, "-m", "dynconf_flows.command.main", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env={**environment, **more}, capture_output=True, check=False)


def traces(path: Path, source: str) -> Path:
    generator = np.random.default_rng(0)
    made = Traces(
        generator.normal(size=(40, 4, 3)).astype(np.float32),
        generator.integers(0, 3, 40),
        meta={"source": source} if source else {},
    )
    return made.save(path)


@pytest.mark.parametrize("encoding", ASCII)
def test_tables_in_any_encoding(tmp_path: Path, encoding: str) -> None:
    done = run("settings", cwd=tmp_path, **ASCII[encoding])
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"paper: SNN -> exit" in done.stdout and b"cifar10-vgg16-qcfs" in done.stdout


def test_an_analysis_in_a_folder_with_an_odd_name(tmp_path: Path) -> None:
    """The last byte is in no encoding: Python keeps it as half a character, which no file of ours may hold."""
    folder = Path(os.fsdecode(os.fsencode(tmp_path / ODD.replace("/", "")) + b"\xff"))
    folder.mkdir()
    file = traces(folder / "a.npz", source=ODD)
    done = run("analyse", file, "--no-track", "--home", folder / "home", cwd=tmp_path, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    said = done.stdout.decode("ascii").replace("\n", "")
    assert r"[red]%41?\xe9->[/red] $x_{$" in said and r"Analysis: " in said and r"[red]%41?\xe9->[red] $x_{$\udcff" in said
    (kept,) = (folder / "home" / "analyses").iterdir()
    assert (kept / "analysis.json").is_file() and (kept / "rules.png").is_file()
    write_results(folder, run_result(setting_result(), command=f"dynconf reproduce --home {folder}"))
    assert r"$x_{$\udcff" in read(RunResult, folder / "results" / LATEST / "results.json").command


def test_a_reader_that_goes_away(tmp_path: Path) -> None:
    for arguments in (("settings",), ("settings", "--json")):
        reading, writing = os.pipe()
        os.close(reading)
        done = subprocess.run(
            [sys.executable, "-m", "dynconf_flows.command.main", *arguments],
            cwd=tmp_path, stdout=writing, stderr=subprocess.PIPE, check=False,
        )  # fmt: skip
        os.close(writing)
        assert done.stderr == b"" and done.returncode == (1 if "--json" in arguments else 0), done


def test_a_run_goes_on_when_nobody_reads_its_progress(tmp_path: Path) -> None:
    script = (
        "import os, sys\nfrom dynconf_flows.command.terminal import Terminal\nshown = Terminal(stderr=True)\n"
        "reading, writing = os.pipe()\nos.dup2(writing, 2)\nos.close(reading)\nos.close(writing)\n"
        "for _ in range(100):\n    shown.print('x' * 1000)\nprint('finished')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.stdout, done.returncode) == ("finished\n", 0)


def test_markup_and_control_characters_are_text(capsys: pytest.CaptureFixture[str]) -> None:
    console, table = Terminal(width=200), Table(title="[blue]title[/blue]")
    table.add_column("[b]heading[/b]")
    table.add_row("[red]cell[/red] \x1b]0;mine\x07")
    table.caption = "[/x] :smile:"
    console.print(table)
    console.print("[link=file:///x]line[/link] \x1b[31m\x9b1m")
    console.print(labelled("error:", "red", "[/red] \x1b[2J"))
    said = capsys.readouterr().out
    for text in ("[blue]title[/blue]", "[b]heading[/b]", r"[red]cell[/red] \x1b]0;mine\x07", "[/x] :smile:"):
        assert text in said
    assert r"[link=file:///x]line[/link] \x1b[31m\x9b1m" in said and r"error: [/red] \x1b[2J" in said
    assert "\x1b" not in said and "\x9b" not in said


@pytest.mark.parametrize("folder", [True, False], ids=["folder", "file"])
def test_something_else_called_latest(tmp_path: Path, caplog: pytest.LogCaptureFixture, folder: bool) -> None:
    """The results are written, and what lies there is left alone."""
    latest = tmp_path / "results" / LATEST
    latest.mkdir(parents=True) if folder else (latest.parent.mkdir(), latest.write_text("mine"))
    result = run_result(setting_result(), run=new_run(tmp_path, "smoke"))
    written = write_results(tmp_path, result)
    assert read(RunResult, written) == result
    assert str(latest) in caplog.text and "move it away" in caplog.text
    assert not latest.is_symlink() and (latest.is_dir() if folder else latest.read_text() == "mine")
    assert {path.name for path in latest.parent.iterdir()} == {LATEST, result.run}


@pytest.mark.parametrize("room", ["results", "artefacts"])
def test_a_file_where_the_home_needs_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], room: str
) -> None:
    dynconf: Command = command_on_traces(tmp_path / "here", monkeypatch, capsys)
    home = tmp_path / "home"
    home.mkdir()
    (home / room).write_text("mine")
    answer = dynconf("reproduce", "--setting", "cifar10-vgg16-qffs", "--home", home)
    assert answer.code == 2 and f"{home / room} is a file" in " ".join(answer.error.split())
    assert (home / room).read_text() == "mine"
    assert json.dumps(sorted(path.name for path in home.iterdir())) == json.dumps([room])
