"""Overrides: checking ``field=value`` from a command line or form, and applying it to a plan."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dynconf_core.errors import InputError
from dynconf_core.experiment.plan import Plan
from dynconf_core.experiment.recipe import OF_RECIPE, augmentations
from dynconf_core.registry import unknown
from dynconf_core.schemes.field import Field, Value, between, whole
from dynconf_core.schemes.scheme import SCHEMES


def _is_rule(name: str) -> bool:
    """Whether ``name`` is "best" or a confidence measure.

    Raises:
        InputError: for an unknown measure.
    """
    from dynconf_core.confidence.measure import measure_of  # imports torch, which commands that only list things avoid

    return name == "best" or bool(measure_of(name))


OF_PLAN = {
    "time_steps": whole(1, 4096),
    "width": Field(float, "a number above 0, at most 4", between(1e-3, 4)),
    "fixed_point": Field(bool, "true or false", lambda value: True),
}
OF_FINE_TUNING = {
    "fine_tune_epochs": whole(0, 1000),
    "fine_tune_steps": whole(1, 64),
    "fine_tune_rate": Field(float, "a number above 0, at most 10", between(1e-9, 10)),
    "fine_tune_settled": Field(float, "a number from 0 to 100", between(0, 100)),
    "fine_tune_distilled": Field(float, "a fraction from 0 to 1", between(0, 1)),
    "fine_tune_potentials": Field(bool, "true or false", lambda value: True),
}
"""Fields of ``FineTuning``; see ``attribute``."""
OF_LEARNED_THRESHOLDS = {*OF_FINE_TUNING, "decay_thresholds"}
"""Fields of settings whose thresholds are learned; see ``learns_thresholds``."""
OF_SEARCH = {
    "rule": Field(str, "a measure's name, best, or package.module:Class", _is_rule),
    "smoothing": Field(str, "sum or mean", lambda value: value in ("sum", "mean")),
    "alpha": Field(float, "a number from 0.001 to 1000000", between(1e-3, 1e6)),
    "max_drop": Field(float, "a fraction from 0 to 1", between(0, 1)),
    "readout": Field(str, "plain, decoded or choose", lambda value: value in ("plain", "decoded", "choose")),
}
SYMBOLS = {"T": "time_steps", "L": "levels"}
"""Fields by their symbol in the papers."""


def known_fields(plans: Sequence[Plan] = ()) -> dict[str, Field]:
    """All fields that may be overridden: general ones, and those of the registered schemes and of the plans' schemes."""
    schemes = [*SCHEMES.usable().values(), *(type(plan.scheme) for plan in plans)]
    own = {name: field for scheme in schemes for name, field in scheme.fields.items()}
    return {**OF_PLAN, **own, **OF_RECIPE, **OF_FINE_TUNING, **OF_SEARCH}


def attribute(name: str) -> str:
    """The attribute that a field stands for, which has another name in ``FineTuning``."""
    if name not in OF_FINE_TUNING:
        return name
    return "learning_rate" if name == "fine_tune_rate" else name.removeprefix("fine_tune_")


def parse(assignments: Sequence[str]) -> dict[str, str]:
    """``["time_steps=16", ...]`` as ``{"time_steps": "16", ...}``; ``typed`` gives the values their types.

    Raises:
        InputError: for text without "=", or a field that is given twice.
    """
    return by_name(assignments, "--set", "field=value, such as --set time_steps=16")


def by_name(texts: Sequence[str], option: str, form: str) -> dict[str, str]:
    """``["name=text", ...]`` as ``{"name": "text", ...}``; errors name the ``option`` and show the ``form``.

    Raises:
        InputError: for text without "=", or a name that is given twice.
    """
    found: dict[str, str] = {}
    for written in texts:
        name, equals, text = (part.strip() for part in written.partition("="))
        if not equals:
            raise InputError(f"{option} {written}: write {form}.")
        if name in found:
            raise InputError(f"{option} {name} is given twice: give it once.")
        found[name] = text
    return found


def typed(name: str, given: object, plans: Sequence[Plan] = ()) -> Value:
    """The value of a field, converted from text to its type; ``plans`` may add fields of their schemes.

    Raises:
        InputError: for an unknown field, or a value of the wrong type or range.
    """
    known = known_fields(plans)
    if name not in known:
        if name.upper() in SYMBOLS:
            raise InputError(f"field {name!r} is called {SYMBOLS[name.upper()]}: write {SYMBOLS[name.upper()]}={given}.")
        raise InputError(unknown("field", name, tuple(known)))
    try:
        return known[name].read(str(given))
    except InputError as error:
        raise InputError(f"{name}={given}: needs {known[name].wants}: {error}") from None
    except (ValueError, OverflowError):
        raise InputError(f"{name}={given}: needs {known[name].wants}.") from None


def applies(name: str, plan: Plan) -> bool:
    """Whether the plan's setting has this field (for example, only QCFS has ``levels``)."""
    if name in ("initial_threshold", "threshold_percentile"):  # LSQ's steps start by a rule of their own
        return plan.scheme.starts_from_a_threshold
    if name in OF_LEARNED_THRESHOLDS:
        return learns_thresholds(plan)
    return name in {**OF_PLAN, **OF_RECIPE, **OF_SEARCH} or name in plan.scheme.fields


def learns_thresholds(plan: Plan) -> bool:
    """Whether the thresholds of the plan's network are learned, not found from calibration images after the training."""
    conversion = plan.scheme.conversion(plan.time_steps)
    return conversion.get("thresholds", "learned") == "learned" and not conversion.get("correct", False)


def fitting(plan: Plan, values: Mapping[str, Value]) -> dict[str, Value]:
    """The entries of ``values`` that the plan's setting has."""
    return {name: given for name, given in values.items() if applies(name, plan)}


def applied(plan: Plan, values: Mapping[str, Value]) -> Plan:
    """``plan`` with the entries of ``values`` that its setting has.

    Raises:
        InputError: for values that do not go together.
    """
    changes: dict[str, dict[str, Any]] = {}
    for name, given in fitting(plan, values).items():
        changes.setdefault(_holder(plan, name), {})[attribute(name)] = _made(name, given)
    parts = {part: replace(getattr(plan, part), **of_part) for part, of_part in changes.items() if part}
    return replace(plan, **parts, **changes.get("", {}))


def _holder(plan: Plan, name: str) -> str:
    """The attribute of a plan that holds a field; "" for the plan itself."""
    tables = {"recipe": OF_RECIPE, "fine_tuning": OF_FINE_TUNING, "search": OF_SEARCH, "scheme": plan.scheme.fields}
    return next((part for part, fields in tables.items() if name in fields), "")


def _made(name: str, given: Value) -> object:
    """The value of a plan's attribute that a user's value stands for."""
    if name == "augmentation":
        return augmentations(str(given))
    if name == "initial_weights" and given:
        return str(Path(str(given)).expanduser().absolute())
    return given


def check_values(plan: Plan) -> None:
    """Raise ``InputError`` unless every value of the plan, whatever its origin, is valid; a recipe has checked its own."""
    ours = {**OF_PLAN, **OF_RECIPE, **OF_FINE_TUNING}
    for name in ours:
        if name in plan.scheme.fields:
            raise InputError(
                f"conversion scheme {plan.method!r}: every setting has a field {name}; give the scheme's own another name."
            )
    for part, fields in ((plan.scheme, plan.scheme.fields), (plan, OF_PLAN), (plan.fine_tuning, OF_FINE_TUNING)):
        for name, field in fields.items():
            field.check(name, getattr(part, attribute(name)), f"setting {plan.setting!r}: ")
    if plan.fine_tuning and plan.fine_tuning.steps > plan.time_steps:
        raise InputError(
            f"setting {plan.setting!r}: fine_tune_steps={plan.fine_tuning.steps} exceeds time_steps={plan.time_steps}: give as "
            "many or fewer."
        )
    potential = plan.scheme.conversion(plan.time_steps).get("initial_potential", 0.5)
    if plan.fine_tuning and plan.fine_tuning.potentials and potential != 0.5:
        raise InputError(
            f"setting {plan.setting!r}: initial_potential={potential} and fine_tune_potentials=true: they are learned, from "
            "one half on; leave one of the two out."
        )
    if plan.given_tuned.potentials and potential != 0.5:
        raise InputError(
            f"setting {plan.setting!r}: initial_potential={potential}, but its checkpoint has learned initial potentials: "
            "leave initial_potential out."
        )
    if plan.search.readout == "decoded" and plan.search.rule != "best":
        from dynconf_core.choosing.candidates import check_readout  # imports torch, which commands that only list things avoid
        from dynconf_core.confidence.measure import measure_of

        check_readout(plan.search.readout, measure_of(plan.search.rule))


def check_used(plans: Sequence[Plan], values: Mapping[str, Value]) -> None:
    """Raise ``InputError`` for a field that none of the chosen settings has."""
    for name in values:
        if not any(applies(name, plan) for plan in plans):
            reason = ", whose thresholds are not learned but found from calibration images: leave it out"
            reason = reason if name in OF_LEARNED_THRESHOLDS else ""
            settings = ", ".join(plan.setting for plan in plans)
            raise InputError(f"field {name!r} belongs to none of the chosen settings ({settings}){reason}.")
