"""Overrides: checking ``field=value`` from a command line or form, and applying it to a plan."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dynconf_core.data.images import AUGMENTATIONS
from dynconf_core.errors import InputError
from dynconf_core.experiment.plan import Plan
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


def _below_1(value: float) -> bool:
    return between(0, 1)(value) and value < 1


def _are_augmentations(text: str) -> bool:
    return all(name in AUGMENTATIONS for name in augmentations(text))


def augmentations(text: str) -> tuple[str, ...]:
    """The names in "crop+flip", or none of "none"."""
    return () if text == "none" else tuple(text.split("+"))


OF_PLAN = {
    "time_steps": whole(1, 4096),
    "width": Field(float, "a number above 0, at most 4", between(1e-3, 4)),
    "fixed_point": Field(bool, "true or false", lambda value: True),
}
OF_RECIPE = {
    "epochs": whole(1, 10000),
    "batch_size": whole(2, 65536),
    "learning_rate": Field(float, "a number above 0, at most 10", between(1e-9, 10)),
    "warm_up": Field(float, "a fraction from 0 to 1", between(0, 1)),
    "initial_threshold": Field(float, "a number above 0, at most 1000", between(1e-3, 1000)),
    "augmentation": Field(str, f"none, or some of {', '.join(AUGMENTATIONS)} with + between them", _are_augmentations),
    "momentum": Field(float, "a fraction from 0 to below 1", _below_1),
    "weight_decay": Field(float, "a number from 0 to 1", between(0, 1)),
    "nesterov": Field(bool, "true or false", lambda value: True),
    "label_smoothing": Field(float, "a fraction from 0 to below 1", _below_1),
    "averaging": Field(float, "a fraction from 0, no averaging, to below 1, such as 0.999", _below_1),
    "zero_gamma": Field(bool, "true or false", lambda value: True),
    "decay_thresholds": Field(bool, "true or false", lambda value: True),
    "decay_norms": Field(bool, "true or false", lambda value: True),
    "initial_weights": Field(str, "a file of weights", lambda value: True),
    "threshold_percentile": Field(float, "a number above 0, at most 100", between(1e-3, 100)),
    "finer_start": Field(int, "a power of two from 1 to 64", lambda value: value in (1, 2, 4, 8, 16, 32, 64)),
    "noise": Field(float, "a number of levels from 0 to 2", between(0, 2)),
    "rcs": Field(float, "a number from 0 to 100", between(0, 100)),
}
OF_FINE_TUNING = {
    "fine_tune_epochs": whole(0, 1000),
    "fine_tune_steps": whole(1, 64),
    "fine_tune_rate": Field(float, "a number above 0, at most 10", between(1e-9, 10)),
    "fine_tune_settled": Field(float, "a number from 0 to 100", between(0, 100)),
    "fine_tune_distilled": Field(float, "a fraction from 0 to 1", between(0, 1)),
}
"""Fields of ``FineTuning``; see ``attribute``."""
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
    """The attribute of ``FineTuning`` that a field of ``OF_FINE_TUNING`` stands for."""
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
    if name == "initial_threshold":
        return plan.scheme.starts_from_a_threshold
    if name in OF_FINE_TUNING:
        return can_be_fine_tuned(plan)
    return name in {**OF_PLAN, **OF_RECIPE, **OF_SEARCH} or name in plan.scheme.fields


def can_be_fine_tuned(plan: Plan) -> bool:
    """Whether the thresholds of the plan's network are learned, so that fine-tuning can train them."""
    conversion = plan.scheme.conversion(plan.time_steps)
    return conversion.get("thresholds", "learned") == "learned" and not conversion.get("correct", False)


def fitting(plan: Plan, values: Mapping[str, Value]) -> dict[str, Value]:
    """The entries of ``values`` that the plan's setting has."""
    return {name: given for name, given in values.items() if applies(name, plan)}


def applied(plan: Plan, values: Mapping[str, Value]) -> Plan:
    """``plan`` with the entries of ``values`` that its setting has."""
    for name, given in fitting(plan, values).items():
        plan = _put(plan, name, given)
    return plan


def _put(plan: Plan, name: str, given: Value) -> Plan:
    changed: dict[str, Any] = {name: given}
    if name == "augmentation":
        changed = {name: augmentations(str(given))}
    if name == "initial_weights" and given:
        changed = {name: str(Path(str(given)).expanduser().absolute())}
    if name in OF_RECIPE:
        return replace(plan, recipe=replace(plan.recipe, **changed))
    if name in OF_FINE_TUNING:
        changed = {attribute(name): given}
        return replace(plan, fine_tuning=replace(plan.fine_tuning, **changed))
    if name in OF_SEARCH:
        return replace(plan, search=replace(plan.search, **changed))
    if name in plan.scheme.fields:
        return replace(plan, scheme=replace(plan.scheme, **changed))  # type: ignore[type-var]
    return replace(plan, **changed)


def check_values(plan: Plan) -> None:
    """Raise ``InputError`` unless every value of the plan, whatever its origin, is valid and its augmentations are known."""
    augmentation: object = plan.recipe.augmentation
    if isinstance(augmentation, str):
        raise InputError(
            f"setting {plan.setting!r}: augmentation={augmentation!r}: give a tuple of names, ({augmentation!r},)."
        )
    for name in plan.recipe.augmentation:
        if name not in AUGMENTATIONS:
            raise InputError(f"setting {plan.setting!r}: " + unknown("augmentation", name, AUGMENTATIONS))
    ours = {**OF_PLAN, **OF_RECIPE, **OF_FINE_TUNING}
    for name, field in {**plan.scheme.fields, **ours}.items():
        if name in ours and name in plan.scheme.fields:
            raise InputError(
                f"conversion scheme {plan.method!r}: every setting has a field {name}; give the scheme's own another name."
            )
        if name == "augmentation":
            continue
        holder = plan if name in OF_PLAN else plan.recipe if name in OF_RECIPE else plan.scheme
        value = getattr(plan.fine_tuning, attribute(name)) if name in OF_FINE_TUNING else getattr(holder, name)
        taken = (int, float) if field.kind is float else (field.kind,)
        fits = isinstance(value, taken) and (field.kind is bool) == isinstance(value, bool)
        if not fits or not field.works(value):
            raise InputError(f"setting {plan.setting!r}: {name}={value!r}: needs {field.wants}.")
    if plan.fine_tuning and plan.fine_tuning.steps > plan.time_steps:
        raise InputError(
            f"setting {plan.setting!r}: fine_tune_steps={plan.fine_tuning.steps} exceeds time_steps={plan.time_steps}: give as "
            "many or fewer."
        )
    if plan.search.readout == "decoded" and plan.search.rule != "best":
        from dynconf_core.choosing.candidates import check_readout  # imports torch, which commands that only list things avoid
        from dynconf_core.confidence.measure import measure_of

        check_readout(plan.search.readout, measure_of(plan.search.rule))
    if plan.recipe.nesterov and not plan.recipe.momentum:
        raise InputError(f"setting {plan.setting!r}: nesterov=true needs a momentum above 0: set momentum too.")


def check_used(plans: Sequence[Plan], values: Mapping[str, Value]) -> None:
    """Raise ``InputError`` for a field that none of the chosen settings has."""
    for name in values:
        if not any(applies(name, plan) for plan in plans):
            raise InputError(f"field {name!r} belongs to none of the chosen settings ({', '.join(p.setting for p in plans)}).")
