"""A stage's key is the same in every process, and values without a stable text are refused."""

import enum
import os
import subprocess
import sys

import numpy as np
import pytest

from dynconf_core.store.keys import StageKey, canonical, key_of, stage_key

CONFIG = {"levels": 4, "learning_rate": 0.1, "name": "é", "nested": {"b": [1, 2.5, None], "a": True}}
INPUTS = {"snn": "ab" * 32, "data": "cd" * 32}


def test_the_key_is_the_same_in_another_process() -> None:
    here = stage_key("collect", CONFIG, INPUTS, "ef" * 32).key
    program = (
        f"from dynconf_core.store.keys import stage_key\nprint(stage_key('collect', {CONFIG!r}, {INPUTS!r}, {'ef' * 32!r}).key)"
    )
    for seed in ("1", "2"):
        there = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert there.stdout.strip() == here


def test_the_key_has_not_changed() -> None:
    # Changing the canonical form would orphan every artefact on every disk: it must be meant.
    assert canonical({"b": [1.0, 1e-7, None], "a": "é"}) == '{"a":"\\u00e9","b":[1.0,1e-07,null]}'
    assert key_of({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"


def test_order_does_not_matter_and_a_tuple_is_a_list() -> None:
    reordered = {"nested": {"a": True, "b": (1, 2.5, None)}, "name": "é", "learning_rate": 0.1, "levels": 4}
    assert stage_key("train", CONFIG, INPUTS, "c").key == stage_key("train", reordered, dict(reversed(INPUTS.items())), "c").key


@pytest.mark.parametrize(
    ("stage", "config", "inputs", "code"),
    [
        ("convert", CONFIG, INPUTS, "c"),
        ("train", {**CONFIG, "levels": 8}, INPUTS, "c"),
        ("train", {**CONFIG, "levels": 4.0}, INPUTS, "c"),
        ("train", {**CONFIG, "levels": "4"}, INPUTS, "c"),
        ("train", {**CONFIG, "more": None}, INPUTS, "c"),
        ("train", CONFIG, {**INPUTS, "snn": "00" * 32}, "c"),
        ("train", CONFIG, {"ann": INPUTS["snn"], "data": INPUTS["data"]}, "c"),
        ("train", CONFIG, INPUTS, "d"),
    ],
)
def test_every_part_counts(stage: str, config: dict, inputs: dict, code: str) -> None:
    assert stage_key(stage, config, inputs, code).key != stage_key("train", CONFIG, INPUTS, "c").key


class Colour(enum.StrEnum):
    RED = "red"


@pytest.mark.parametrize(
    "value",
    [{1, 2}, b"bytes", object(), np.float64(0.5), np.int64(3), np.zeros(2), Colour.RED, float("nan"), 1j],
)
def test_a_value_that_json_cannot_hold_is_refused_by_name(value: object) -> None:
    with pytest.raises((TypeError, ValueError), match=r"config\.smoothing\[1\]\.alpha is "):
        stage_key("search", {"smoothing": [0, {"alpha": value}]}, {}, "c")


def test_infinity_non_text_keys_and_odd_names_are_refused() -> None:
    with pytest.raises(ValueError, match=r"config\.alpha is inf"):
        stage_key("search", {"alpha": float("inf")}, {}, "c")
    with pytest.raises(TypeError, match=r"config\.table has the key 1 of type int"):
        stage_key("search", {"table": {1: 2}}, {}, "c")
    with pytest.raises(TypeError, match=r"inputs\.traces is None"):
        stage_key("search", {}, {"traces": None}, "c")  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="stage name"):
        stage_key("../search", {}, {}, "c")


def test_the_parts_are_kept_apart_from_the_callers_dictionaries() -> None:
    config = {"levels": [4]}
    key = stage_key("train", config, {}, "c")
    config["levels"].append(8)
    assert key == StageKey(key_of(key.parts), key.parts)
    assert key.stage == "train"
