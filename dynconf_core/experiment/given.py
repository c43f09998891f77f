"""A checkpoint that takes the place of a training: what it says of itself, against what is asked for."""

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from dynconf_core.errors import InputError
from dynconf_core.experiment.fine_tuning import FineTuning
from dynconf_core.experiment.plan import Plan
from dynconf_core.experiment.recipe import OF_RECIPE, OPTIONS
from dynconf_core.schemes.field import Value, as_written

OF_BOTH = ("batch_size", "momentum", "weight_decay", "decay_thresholds", "decay_norms", "augmentation")
"""Fields of a recipe that fine-tuning reads too."""


def with_given(plan: Plan, file: Path, values: Mapping[str, Value]) -> Plan:
    """The plan with the fine-tuning that the checkpoint has behind it.

    Args:
        plan: with ``values`` applied.
        file: the checkpoint.
        values: the fields that were set.

    Raises:
        InputError: if the file cannot be read, was trained by another recipe than ``values`` ask for, or has been fine-tuned
            and is to be again.
    """
    about = f"--checkpoint {plan.setting}={file}"
    if plan.recipe.initial_weights:
        raise InputError(f"{about} takes the place of a training, and initial_weights starts one: leave one of the two out.")
    provenance = _provenance(str(file), _state(file))
    _check_recipe(plan, about, provenance.get("recipe"), values)
    tuned = FineTuning.recorded(provenance)
    if tuned and plan.fine_tuning:
        raise InputError(
            f"{about} is {tuned} already: give the network as it was trained, with fine_tune_epochs for all of it, or leave "
            "fine_tune_epochs out."
        )
    return replace(plan, given_tuned=tuned)


def _check_recipe(plan: Plan, about: str, trained: object, values: Mapping[str, Value]) -> None:
    """Raise ``InputError`` for a field of the recipe that was set to something else than the checkpoint's."""
    if not isinstance(trained, Mapping):
        return
    asked = {**OPTIONS, **plan.recipe.as_dict()}
    for name in values:
        if name not in OF_RECIPE or (plan.fine_tuning and name in OF_BOTH):
            continue
        was = trained.get(name, OPTIONS.get(name))
        if was is not None and was != asked[name]:
            before = "+".join(map(str, was)) or "none" if isinstance(was, list) else as_written(was)
            raise InputError(f"{name}={as_written(values[name])}, but {about} was trained with {name}={before}: leave it out.")


def _state(file: Path) -> tuple[int, int]:
    try:
        found = file.stat()
    except OSError:
        return 0, 0  # reading it says why
    return found.st_mtime_ns, found.st_size


@lru_cache(maxsize=16)  # the points of a sweep share it
def _provenance(file: str, state: tuple[int, int]) -> Mapping[str, Any]:
    """What a checkpoint says of its training; empty if it says nothing."""
    from dynconf_core.networks.checkpoint import read

    found = read(Path(file)).get("provenance")
    return found if isinstance(found, Mapping) else {}
