"""Typed results as JSON, as flat names, and back, for all files, tables and tracking servers.

JSON has no infinity, so "inf" and "-inf" are written as text and NaN as null. A list of plain values stands on one line.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from dynconf_core.errors import InputError
from dynconf_core.names import fault as name_fault
from dynconf_core.strict_json import read_json
from dynconf_core.wording import shown

if TYPE_CHECKING:
    from pydantic import TypeAdapter

SCHEMA = 2
ROW = re.compile(r'\[\n\s*([^\[\]{}"]*?)\n\s*\]')
"""A list of plain values spread over several lines; JSON strings hold no line breaks."""
T = TypeVar("T")
Scalar = str | int | float | bool | None


def plain(value: Any) -> Any:
    """Convert typed results, and collections of them, to plain JSON values.

    A field whose default is None or (), or that is marked ``omitted``, is left out if it has that value; any other None becomes
    null.
    """
    if is_dataclass(value) and not isinstance(value, type):
        found = ((field, getattr(value, field.name)) for field in fields(value))
        return {
            field.name: plain(inner)
            for field, inner in found
            if inner != field.default or not (inner in (None, ()) or field.metadata.get("omitted"))
        }
    if isinstance(value, Mapping):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, str) and not value.isascii():  # of a path in another encoding, Python keeps bytes as half characters
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else ("inf" if value > 0 else "-inf")
    return value


def to_json(result: Any) -> dict[str, Any]:
    """The content of a JSON file, with ``"schema": 2``."""
    return {"schema": SCHEMA, **plain(result)}


def json_text(content: Any) -> str:
    """The text of a JSON file for typed results and collections of them."""
    text = json.dumps(plain(content), indent=1, allow_nan=False)
    return ROW.sub(lambda row: "[" + re.sub(r",\s+", ", ", row[1]) + "]", text) + "\n"


def from_json(kind: type[T], content: Any, source: str) -> T:
    """Convert the content of a JSON file to a typed result; unknown fields are ignored.

    Args:
        kind: the type of the result.
        content: the content, as from ``to_json``.
        source: the file's name, for messages.

    Raises:
        InputError: for another schema, or naming the first field that is missing or wrong.
    """
    from pydantic import ValidationError

    if not isinstance(content, Mapping) or content.get("schema") != SCHEMA:
        schema = content.get("schema") if isinstance(content, Mapping) else None
        raise InputError(f"{source} has schema = {schema!r}: this version reads and writes schema {SCHEMA}; create it anew.")
    try:
        found: T = _adapter(cast(Hashable, kind)).validate_python(content)
        return found
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        if first["type"] == "predicate_failed":
            value = first["input"]
            raise InputError(
                f"{source}, {field}: {shown(value)} {name_fault(value) or 'is no key of the store'}; it was not written so."
            ) from None
        raise InputError(f"{source}, {field}: {first['msg']}; it is not a {kind.__name__} of schema {SCHEMA}.") from None


def read(kind: type[T], path: Path) -> T:
    """Read a typed result from a file.

    Raises:
        InputError: if the file cannot be read or is not JSON; see also ``from_json``.
    """
    return from_json(kind, read_json(path), str(path))


def flat(result: Any) -> dict[str, Scalar | list[Scalar]]:
    """The values of a result under flat names: nested names are joined by ``_``, list entries are identified by their ``name``.

    A list of plain values, such as accuracies over time steps, stays a list.
    """
    return dict(_flat("", plain(result)))


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _flat(f"{prefix}_{name}" if prefix else str(name), inner)
    elif isinstance(value, list) and value and isinstance(value[0], Mapping):
        for index, inner in enumerate(value):
            rest = {name: part for name, part in inner.items() if name != "name"}
            yield from _flat(f"{prefix}_{inner.get('name', index)}", rest)
    else:
        yield prefix, value


@cache
def _adapter(kind: Hashable) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(cast(Any, kind))
