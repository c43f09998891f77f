"""``field=value`` from a command line or a form, checked and put into a plan."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dynconf_core.errors import InputError
from dynconf_core.experiment.plan import Plan
from dynconf_core.experiment.settings import named


@dataclass(frozen=True)
class Field:
    """A field that may be overridden: its type, what its text must be, which values work, and where it goes.

    ``applies`` says whether a plan has the field at all (levels belong to QCFS, bits to QFFS).
    """

    kind: type
    wants: str
    works: Callable[[Any], bool]
    put: Callable[[Plan, Any], Plan]
    applies: Callable[[Plan], bool] = lambda plan: True

    def read(self, text: str) -> Any:
        """The value that ``text`` says; ``ValueError`` where it says none."""
        if self.kind is not bool:
            return self.kind(text)
        try:
            return TRUTHS[text.lower()]
        except KeyError:
            raise ValueError(text) from None


TRUTHS = {"true": True, "false": False}


def _number(low: float, high: float) -> Callable[[Any], bool]:
    return lambda value: math.isfinite(value) and low <= value <= high


def _is_rule(name: str) -> bool:
    """Whether it is "best" (the measure that calibration finds best) or a measure; an InputError says why not."""
    from dynconf_core.confidence.measure import measure_of  # it imports torch, which a command that only lists need not

    return name == "best" or bool(measure_of(name))


def _recipe(name: str) -> Callable[[Plan, Any], Plan]:
    return lambda plan, value: replace(plan, recipe=replace(plan.recipe, **{name: value}))


def _search(name: str) -> Callable[[Plan, Any], Plan]:
    return lambda plan, value: replace(plan, search=replace(plan.search, **{name: value}))


def _plan(name: str) -> Callable[[Plan, Any], Plan]:
    return lambda plan, value: replace(plan, **{name: value})


FIELDS: dict[str, Field] = {
    "time_steps": Field(int, "a whole number from 1 to 4096", _number(1, 4096), _plan("time_steps")),
    "levels": Field(
        int,
        "a whole number from 1 to 256",
        _number(1, 256),
        _plan("levels"),
        lambda plan: plan.method == "qcfs",
    ),
    "bits": Field(int, "a whole number from 1 to 8", _number(1, 8), _plan("bits"), lambda plan: plan.method == "qffs"),
    "fixed_point": Field(bool, "true or false", lambda value: True, _plan("fixed_point")),
    "initial_potential": Field(
        float,
        "a number from 0 to below 1, in thresholds",
        lambda value: math.isfinite(value) and 0 <= value < 1,
        _plan("initial_potential"),
        lambda plan: plan.method == "qcfs",
    ),
    "epochs": Field(int, "a whole number from 1 to 10000", _number(1, 10000), _recipe("epochs")),
    "width": Field(float, "a number above 0, at most 4", _number(1e-3, 4), _plan("width")),
    "batch_size": Field(int, "a whole number from 2 to 65536", _number(2, 65536), _recipe("batch_size")),
    "learning_rate": Field(float, "a number above 0, at most 10", _number(1e-9, 10), _recipe("learning_rate")),
    "warm_up": Field(float, "a fraction from 0 to 1", _number(0, 1), _recipe("warm_up")),
    "initial_threshold": Field(
        float,
        "a number above 0, at most 1000",
        _number(1e-3, 1000),
        _recipe("initial_threshold"),
        lambda plan: plan.method == "qcfs",
    ),
    "rule": Field(str, "a measure's name, best, or package.module:Class", _is_rule, _search("rule")),
    "smoothing": Field(str, "sum or mean", lambda value: value in ("sum", "mean"), _search("smoothing")),
    "alpha": Field(float, "a number from 0.001 to 1000000", _number(1e-3, 1e6), _search("alpha")),
    "max_drop": Field(float, "a fraction from 0 to 1", _number(0, 1), _search("max_drop")),
}


def parse(assignments: Sequence[str]) -> dict[str, Any]:
    """``["time_steps=16", ...]`` as ``{"time_steps": 16, ...}``, each value of its field's type.

    Raises:
        InputError: for text without "=", an unknown field, a field given twice, or a value of the wrong type or range.
    """
    values: dict[str, Any] = {}
    for text in assignments:
        name, equals, given = text.partition("=")
        name = name.strip()
        if not equals:
            raise InputError(f"--set {text}: write field=value, such as --set time_steps=16.")
        if name in values:
            raise InputError(f"--set {name} is given twice: give it once.")
        values[name] = value(name, given.strip())
    return values


def value(name: str, given: object) -> Any:
    """One field's value, from text or as it is.

    Raises:
        InputError: for an unknown field, or a value of the wrong type or range.
    """
    field = named("field", FIELDS, name)
    try:
        read = field.read(str(given))
        works = field.works(read)
    except InputError as error:
        raise InputError(f"{name}={given}: needs {field.wants}: {error}") from None
    except (ValueError, OverflowError):
        works = False
    if not works:
        raise InputError(f"{name}={given}: needs {field.wants}.")
    return read


def applied(plan: Plan, values: Mapping[str, Any]) -> Plan:
    """``plan`` with those of ``values`` that its setting has."""
    for name, given in fitting(plan, values).items():
        plan = FIELDS[name].put(plan, given)
    return plan


def fitting(plan: Plan, values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of ``values`` that the plan's setting has."""
    return {name: given for name, given in values.items() if FIELDS[name].applies(plan)}


def check_used(plans: Sequence[Plan], values: Mapping[str, Any]) -> None:
    """Raise ``InputError`` for a field that none of the chosen settings has."""
    for name in values:
        if not any(FIELDS[name].applies(plan) for plan in plans):
            raise InputError(f"field {name!r} fits none of the chosen settings ({', '.join(p.setting for p in plans)}).")
