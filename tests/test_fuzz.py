"""A short run of the fuzzer on every reader; ``python tests/fuzz.py --seconds 600`` goes on for as long as one likes."""

from __future__ import annotations

import logging
import random
import resource
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from fuzz import MEMORY, Reader, readers, tried
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dynconf_core.errors import InputError
from dynconf_core.strict_json import read_json

NAMES = ("rule.json", "input.json", "results.json", "over_seeds.json", "manifest.json", "traces", "checkpoint", "snn", "nir")
SECONDS = 3.0
"""For each reader."""
LEAST = 10
"""Inputs for each reader, also on a slow machine."""


@cache
def all_readers() -> dict[str, Reader]:
    return readers()


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NAMES)
def test_a_reader_loads_or_refuses(tmp_path: Path, name: str) -> None:
    assert set(NAMES) == set(all_readers())
    reader = all_readers()[name]
    memory, begun, outcomes, seed = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic(), set[str](), 0
    while seed < LEAST or time.monotonic() - begun < SECONDS:
        outcomes.add(tried(reader, seed, tmp_path))
        seed += 1
    assert "refused" in outcomes, "some of the mutations matter"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < MEMORY


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**25), 10**25) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(value=JSON, spoil=st.binary(max_size=3), place=st.integers(0, 40))
def test_any_json_is_read_as_it_is_or_refused(tmp_path: Path, value: Any, spoil: bytes, place: int) -> None:
    import json

    text = json.dumps(value).encode()
    (tmp_path / "x.json").write_bytes(text[:place] + spoil + text[place:])
    try:
        found = read_json(tmp_path / "x.json")
    except InputError as error:
        assert str(tmp_path / "x.json") in str(error)
    else:
        assert found == json.loads(text[:place] + spoil + text[place:])


def test_the_fuzzer_notices(tmp_path: Path) -> None:
    """A reader that raises something else, writes a file, or runs a command is caught."""
    import os

    def valid(chance: random.Random) -> bytes:
        return b"{}"

    for use in (
        lambda path: path.with_name("made").write_text("x"),
        lambda path: os.system("true"),
        lambda path: {}["missing"],
        lambda path: int(path.read_text()),
    ):
        with pytest.raises((AssertionError, LookupError, ValueError)):
            tried(Reader("x.json", valid, use), 0, tmp_path)
        (tmp_path / "made").unlink(missing_ok=True)
    assert tried(Reader("x.json", valid, lambda path: None), 0, tmp_path) == "loaded"
