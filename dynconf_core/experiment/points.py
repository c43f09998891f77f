"""The points of a sweep, checked before anything starts: a grid's combinations, or the ranges of an Optuna study."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from dynconf_core.errors import InputError
from dynconf_core.experiment.overrides import known_fields, typed
from dynconf_core.experiment.plan import Plan
from dynconf_core.experiment.request import CheckedRequest, Request, checked
from dynconf_core.schemes.field import Value

SEED = "seed"
WITHIN = 1000
"""How many whole numbers of a range are looked at."""


@dataclass(frozen=True)
class Range:
    """The values of a field that a study may choose: between two numbers, or from a list."""

    field: str
    low: int | float = 0
    high: int | float = 0
    choices: tuple[Value, ...] = ()


@dataclass(frozen=True)
class CheckedSweep:
    """A sweep that has been checked.

    Attributes:
        asked: the checked request, of which every point changes some fields.
        points: the points of a grid, field to value; empty for a study.
        ranges: the ranges of a study; empty for a grid.
        fields: the swept fields and their values as the user wrote them.
        trials: the number of points of a study.
    """

    asked: CheckedRequest
    points: Sequence[Mapping[str, Value]]
    ranges: Sequence[Range]
    fields: Mapping[str, str]
    trials: int


def checked_sweep(request: Request, grid: Mapping[str, str], study: Mapping[str, str], trials: int) -> CheckedSweep:
    """Check a sweep of ``request`` over a grid or a study, including all its points.

    Raises:
        InputError: see ``points_of`` and ``checked``.
    """
    points, ranges = points_of(request, grid, study)
    tried = [at_point(request, point) for point in points or _corners(ranges)]
    return CheckedSweep(checked(request, points=tried), points, ranges, grid or study, trials)


def points_of(
    request: Request, grid: Mapping[str, str], study: Mapping[str, str]
) -> tuple[list[dict[str, Value]], list[Range]]:
    """The points of a grid, field to value, and the ranges of a study; one of the two is empty.

    Raises:
        InputError: if both or neither are given, or for an unknown field or setting, or a value that cannot work.
    """
    if bool(grid) == bool(study):
        raise InputError("give either a grid (--grid FIELD=A,B,C) or a study (--study FIELD=LOW..HIGH).")
    plans = request.plans()
    ranges = [_range(field, text, plans) for field, text in study.items()]
    values = {field: _values(field, texts, plans) for field, texts in grid.items()}
    for field in grid or study:
        if field in request.overrides:
            raise InputError(f"{field} is swept and also set to {request.overrides[field]}: give only one of the two.")
    points = _combinations(values) if grid else []
    for point in points or _corners(ranges):
        at_point(request, point).plans()
    return points, ranges


def at_point(request: Request, point: Mapping[str, Value]) -> Request:
    """The request for one point; ``seed`` may be one of the point's fields."""
    fields = {**request.overrides, **{name: found for name, found in point.items() if name != SEED}}
    return replace(request, overrides=fields, seed=int(point.get(SEED, request.seed)))


def _combinations(values: Mapping[str, Sequence[Value]]) -> list[dict[str, Value]]:
    return [dict(zip(values, found, strict=True)) for found in itertools.product(*values.values())]


def _corners(ranges: Sequence[Range]) -> list[dict[str, Value]]:
    """The points at the ends of the ranges."""
    return _combinations({one.field: one.choices or (one.low, one.high) for one in ranges})


def _values(field: str, texts: str, plans: Sequence[Plan]) -> list[Value]:
    """The values between commas."""
    found = [_value(field, text, plans) for text in texts.split(",")]
    for value in found:
        if found.count(value) > 1:
            raise InputError(f"{field}={texts}: {value} is given twice, give it once.")
    return found


def _value(field: str, text: str, plans: Sequence[Plan]) -> Value:
    if field == SEED:
        try:
            return int(text)
        except ValueError:
            raise InputError(f"seed={text}: needs a whole number.") from None
    return typed(field, text.strip(), plans)


def _range(field: str, text: str, plans: Sequence[Plan]) -> Range:
    low, dots, high = text.partition("..")
    if not dots and "," not in text:
        raise InputError(f"--study {field}={text}: write a range, {field}=LOW..HIGH, or several values, {field}=A,B,C.")
    if not dots:
        return Range(field, choices=tuple(_values(field, text, plans)))
    known = known_fields(plans)
    if field in known and known[field].kind in (str, bool):
        raise InputError(f"--study {field}={text}: {field} is not a number; list its values, such as {field}=sum,mean.")
    first, last = _value(field, low, plans), _value(field, high, plans)
    assert not isinstance(first, str) and not isinstance(last, str)
    if first >= last:
        raise InputError(f"--study {field}={text}: the first number must be below the second.")
    if isinstance(first, int) and isinstance(last, int) and field in known:
        within = range(first, min(last, first + WITHIN) + 1)
        possible = [number for number in within if known[field].works(number)]
        if len(possible) < len(within):
            raise InputError(
                f"--study {field}={text}: {field} needs {known[field].wants}; list its values, {field}={_listed(possible)}."
            )
    return Range(field, first, last)


def _listed(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers))
