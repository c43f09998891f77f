"""The command ``dynconf`` called in the tests' own process."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from dynconf_flows.command import analyse as analyse_command
from dynconf_flows.command import compare as compare_command
from dynconf_flows.command import main as cli


class Answer(NamedTuple):
    """How it ended, and what it wrote to its two outputs."""

    code: int
    out: str
    error: str


Command = Callable[..., Answer]


def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *first: str) -> Command:
    """A function that calls ``dynconf FIRST... ARGUMENTS...``."""
    monkeypatch.setenv("PYTHONSAFEPATH", "1")  # the command sets it for its process, this undoes that after the test

    def call(*arguments: str | Path) -> Answer:
        monkeypatch.setattr(sys, "argv", ["dynconf", *first, *map(str, arguments)])
        code: Any = 0
        try:
            cli.main()
        except SystemExit as ended:
            code = ended.code
        written = capsys.readouterr()
        return Answer(int(code or 0), written.out, written.err)

    return call


def command_on_traces(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command on 80 columns in the new, empty ``folder``; it leaves the environment of other tests alone."""
    for name in ("DYNCONF_HOME", "DYNCONF_DATA", "MLFLOW_TRACKING_URI", "PREFECT_API_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    for module in (analyse_command, compare_command):
        monkeypatch.setattr(module, "configure", lambda home: None)
    folder.mkdir()
    monkeypatch.chdir(folder)
    return command(monkeypatch, capsys)


def strictly(text: str) -> Any:
    """JSON without what JSON does not have."""
    return json.loads(text, parse_constant=lambda constant: pytest.fail(f"{constant} in JSON"))
