"""A stage's key: the sha256 of everything that can change the stage's result, written as canonical JSON.

Two runs share an artefact exactly if their keys are equal, so the JSON must be the same in every process: sorted keys, no extra
spaces, floats in their shortest `repr`, ASCII only. A value that JSON cannot hold is rejected rather than turned into text,
because its text (an object's address, a set's order) may differ from run to run.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

_STAGE = re.compile(r"[a-z0-9][a-z0-9_-]*")
_KEY = re.compile(r"[0-9a-f]{64}")


class KeyParts(TypedDict):
    """What a key is computed from; see `stage_key`."""

    stage: str
    config: dict[str, Any]
    inputs: dict[str, str]
    code: str


@dataclass(frozen=True)
class StageKey:
    """`key` (64 hexadecimal digits) and the `parts` whose sha256 it is."""

    key: str
    parts: KeyParts

    @property
    def stage(self) -> str:
        """The stage's name, which is also the name of its folder in the store."""
        return self.parts["stage"]


def stage_key(stage: str, config: Mapping[str, Any], inputs: Mapping[str, str], code: str) -> StageKey:
    """The key of one run of a stage.

    `config` holds the fields that can change the result, `inputs` the digests of the input artefacts by role, `code` the
    fingerprint of the modules that the stage reaches. The order of the entries in a mapping does not matter; 1 and 1.0 are
    different values.

    Raises TypeError or ValueError naming the field whose value is not JSON (a set, an array, NaN, ...).
    """
    if not _STAGE.fullmatch(stage):
        raise ValueError(f"stage name {stage!r}: use small letters, digits, - and _")
    for role, digest in inputs.items():
        if type(digest) is not str:
            raise TypeError(f"inputs.{role} is {digest!r}: the digest of an input must be text")
    parts = {"stage": stage, "config": config, "inputs": inputs, "code": code}
    plain: KeyParts = as_json(parts)
    return StageKey(key_of(plain), plain)


def is_key(text: str) -> bool:
    """Whether the text has the form of a key: 64 hexadecimal digits."""
    return _KEY.fullmatch(text) is not None


def key_of(parts: Mapping[str, Any]) -> str:
    """The sha256, in hexadecimal digits, of `parts` as canonical JSON."""
    return hashlib.sha256(canonical(parts).encode("ascii")).hexdigest()


def canonical(value: Any) -> str:
    """`value` as JSON that is the same in every process; raises as `as_json` does."""
    return json.dumps(as_json(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def as_json(value: Any, name: str = "") -> Any:
    """A deep copy of `value` made of dict, list, str, int, float, bool and None (tuples become lists).

    Raises TypeError for any other type, subclasses too (a numpy scalar, an enum), and ValueError for NaN and
    infinities; the message names the place, as in `config.smoothing.alpha`.
    """
    here = name or "the value"
    if value is None or type(value) in (str, bool, int):
        return value
    if type(value) is float:
        if not math.isfinite(value):
            raise ValueError(f"{here} is {value}: JSON has no such number")
        return value
    if isinstance(value, Mapping):
        for key in value:
            if type(key) is not str:
                raise TypeError(f"{here} has the key {key!r} of type {type(key).__name__}: use text")
        return {key: as_json(item, f"{name}.{key}" if name else key) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item, f"{name}[{index}]") for index, item in enumerate(value)]
    raise TypeError(f"{here} is {value!r} of type {type(value).__name__}: use JSON's own types")
