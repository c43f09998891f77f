"""JSON from outside: bounded, and nothing that JSON does not have."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from dynconf_core.errors import InputError
from dynconf_core.exit.rule import Rule
from dynconf_core.results.records import read
from dynconf_core.results.types import RunResult
from dynconf_core.strict_json import DEEPEST, parsed, read_json
from dynconf_core.traces.schema import Traces

REFUSED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "cannot be read as JSON"),
    "nested": (b"[" * 100_000, "nested more than"),
    "nested objects": (b'{"a":' * 100_000, "nested more than"),
    "nested and closed": (b"[" * 500 + b"]" * 500, "nested more than"),
    "400 digits": (b'{"threshold": ' + b"9" * 400 + b"}", "401 digits|400 digits"),
    "10^400": (b'{"threshold": 1e400}', "is too large"),
    "-10^400": (b"[-1e400]", "is too large"),
    "NaN": (b"NaN", "NaN is no number in JSON"),
    "infinite": (b"[-Infinity]", "-Infinity is no number in JSON"),
    "twice": (b'{"a": 1, "b": 2, "a": 3}', "the key 'a' stands twice"),
    "mark": (b"\xef\xbb\xbf{}", "BOM"),
    "UTF-16": ("{}".encode("utf-16"), "not UTF-8"),
    "latin-1": ('{"é": 1}'.encode("latin-1"), "not UTF-8"),
    "half a character": (b'["\\ud800"]', "surrogates not allowed"),
    "half a character as a key": (b'{"\\udfff": 1}', "surrogates not allowed"),
    "cut": (b'{"a": [1', "cannot be read as JSON"),
    "two": (b"{}{}", "Extra data"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(tmp_path: Path, name: str) -> None:
    content, said = REFUSED[name]
    path = tmp_path / "x.json"
    path.write_bytes(content)
    for reader in (read_json, Rule.load, lambda path: read(RunResult, path)):
        with pytest.raises(InputError, match=said) as error:
            reader(path)
        assert str(path) in str(error.value)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -(2**63),
        2**64,
        1e308,
        5e-324,
        "é\u0000😀",
        [],
        {},
        {"a": [1, {"b": None}]},
        json.loads("[" * 90 + "]" * 90),
    ],
)
def test_what_is_read(value: Any) -> None:
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False).encode()):
        assert parsed(text, "x") == value
    assert DEEPEST >= 90


def test_files_that_are_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, said in (
        (tmp_path / "missing", "No such file"),
        (tmp_path, "directory|not a file"),
        (tmp_path / "pipe", "is not a file"),
        (Path("/dev/zero"), "is not a file"),
        (tmp_path / "a\0b", "names no file"),
    ):
        with pytest.raises(InputError, match=said):
            read_json(path)
    (tmp_path / "large").write_bytes(b" " * 2000)
    with pytest.raises(InputError, match="2000 bytes, more than the 1000"):
        read_json(tmp_path / "large", largest=1000)


def test_numbers_from_python_itself(tmp_path: Path) -> None:
    huge = 10**400
    for entry in (
        {"measure": "gap", "smoothing": {"form": "sum", "alpha": 1.0}, "threshold": huge},
        {"measure": "gap", "smoothing": {"form": "sum", "alpha": huge}, "threshold": 1},
        {"measure": "gap", "smoothing": {"form": "power", "alpha": 1.0, "exponent": huge}, "threshold": 1},
    ):
        with pytest.raises(InputError):
            Rule.from_json(entry)


def test_traces_that_are_a_pipe(tmp_path: Path) -> None:
    """Opening it would wait for ever."""
    os.mkfifo(tmp_path / "a.npz")
    with pytest.raises(InputError, match=r"a\.npz is neither a file nor a folder"):
        Traces.load(tmp_path / "a.npz")
