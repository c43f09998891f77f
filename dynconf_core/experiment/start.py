"""The network of a plan as its training starts."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dynconf_core.errors import InputError
from dynconf_core.experiment.plan import Plan

if TYPE_CHECKING:
    from torch import nn

logger = logging.getLogger(__name__)


def untrained(plan: Plan) -> "tuple[nn.Module, dict[str, Any]]":
    """The network, and what its provenance says of how it starts.

    Raises:
        InputError: if ``zero_gamma``, the file of ``initial_weights`` or what the recipe asks of activations does not fit it.
    """
    from dynconf_core.activations.course import check_guided
    from dynconf_core.networks.start import copy_weights, wait_for_a_batch, zero_last_norms
    from dynconf_core.schemes.network import described

    recipe = plan.recipe
    network = described({**plan.network(), "initial_threshold": recipe.initial_threshold}, plan.seed)
    if recipe.guides_activations:
        check_guided(network, noise=recipe.noise, rcs=recipe.rcs, finer_start=recipe.finer_start)
    if recipe.zero_gamma:
        zero_last_norms(network)
    if not recipe.initial_weights:
        return network, {}
    copied = copy_weights(network, Path(recipe.initial_weights))
    wait_for_a_batch(network, copied, recipe.threshold_percentile)
    logger.info("%d tensors come from %s, %d do not.", len(copied.copied), recipe.initial_weights, len(copied.kept))
    return network, {"initial_weights": {"copied": len(copied.copied), "kept": list(copied.kept)}}


def check_start(plans: Sequence[Plan]) -> None:
    """Raise ``InputError`` where a recipe asks for what the plan's network cannot start with."""
    seen: list[object] = []
    for plan in plans:
        recipe = plan.recipe
        start = (plan.setting, plan.network(), recipe.zero_gamma, recipe.initial_weights, recipe.guides_activations)
        if any(start[2:]) and start not in seen:  # most points of a sweep start alike
            seen.append(start)
            try:
                untrained(plan)
            except InputError as error:
                raise InputError(f"setting {plan.setting!r}: {error}") from error
