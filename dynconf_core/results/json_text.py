"""Records as JSON that a person can read and any parser takes: no infinity, no NaN, a row of numbers on one line."""

import json
import math
import re
from collections.abc import Mapping
from typing import Any

ROW = re.compile(r'\[\n\s*([^\[\]{}"]*?)\n\s*\]')
"""A list of plain values over several lines; a line cannot end inside a JSON text."""


def plain(value: Any) -> Any:
    """The same with what JSON cannot say: infinities as the texts "inf" and "-inf", null for what is no number."""
    if isinstance(value, Mapping):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else ("inf" if value > 0 else "-inf")
    return value


def json_text(record: Mapping[str, Any]) -> str:
    """The record as the text of a file."""
    text = json.dumps(plain(record), indent=1, allow_nan=False)
    return ROW.sub(lambda row: "[" + re.sub(r",\s+", ", ", row[1]) + "]", text) + "\n"
