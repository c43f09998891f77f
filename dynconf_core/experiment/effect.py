"""Overrides that would change nothing, as they matter only beside another field."""

from collections.abc import Callable, Mapping, Sequence

from dynconf_core.errors import InputError
from dynconf_core.experiment.overrides import OF_FINE_TUNING, applies
from dynconf_core.experiment.plan import Plan
from dynconf_core.schemes.field import Value, as_written

Needs = tuple[Callable[[Plan], bool], str]
"""Whether a field matters in a plan, and what a user may do where it does not."""


def check_effect(points: Sequence[tuple[Sequence[Plan], Mapping[str, Value]]]) -> None:
    """Raise ``InputError`` for a field that is set but changes nothing in any plan.

    Args:
        points: plans, and the values that were set in them; several for a sweep, where a field has to matter at one point.
    """
    set_somewhere = {name: value for _, values in points for name, value in values.items()}
    for name, value in set_somewhere.items():
        if name not in NEEDS:
            continue
        matters, remedy = NEEDS[name]
        having = [plan for plans, values in points if name in values for plan in plans if applies(name, plan)]
        if having and not any(map(matters, having)):
            raise InputError(f"{name}={as_written(value)} changes nothing {remedy}, or leave {name} out.")


def _smoothing_is_read(plan: Plan) -> bool:
    """A smoothing given whole is that of every measure which reads one; half of it, of measures whose smoothing is searched,
    which is done on the plain sum."""
    from dynconf_core.choosing.candidates import DECODED, measures_tried  # imports torch
    from dynconf_core.confidence.measure import measures_of

    search = plan.search
    measures = measures_of(measures_tried(search.rule))
    if search.smoothing is not None and search.alpha is not None:
        return any(measure.reads_smoothing for measure in measures)
    return search.readout != DECODED and any(measure.searches_smoothing for measure in measures)


_DECAY: Needs = (lambda plan: plan.recipe.weight_decay > 0, "without weight decay: set weight_decay above 0 too")
_SMOOTHING: Needs = (
    _smoothing_is_read,
    "with this rule: set both smoothing and alpha, for a rule that reads a smoothing (such as rule=max_softmax)",
)
NEEDS: Mapping[str, Needs] = {
    **{
        name: (lambda plan: bool(plan.fine_tuning), "without fine-tuning: set fine_tune_epochs above 0 too")
        for name in OF_FINE_TUNING
        if name != "fine_tune_epochs"
    },
    "threshold_percentile": (
        lambda plan: bool(plan.recipe.initial_weights),
        "without weights to start from: set initial_weights too",
    ),
    "initial_threshold": (
        lambda plan: not plan.recipe.initial_weights,
        "beside initial_weights, where thresholds come from the file or from threshold_percentile: set that instead",
    ),
    "zero_gamma": (
        lambda plan: not plan.recipe.initial_weights,
        "beside initial_weights, whose scales take the place of the zeros: set one of the two",
    ),
    "decay_thresholds": _DECAY,
    "decay_norms": _DECAY,
    "smoothing": _SMOOTHING,
    "alpha": _SMOOTHING,
}
