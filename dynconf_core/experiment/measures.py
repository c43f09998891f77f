"""The measures of confidence that a plan's search tries, and those that its evaluation compares."""

from dynconf_core.confidence.measure import MEASURES
from dynconf_core.experiment.plan import Plan

BEST = "best"
"""The rule that stands for: whichever measure the calibration split finds best."""


def measures_tried(plan: Plan) -> tuple[str, ...]:
    """The measures among which the rule is chosen: that of the plan, or all that are known."""
    return MEASURES.names() if plan.search.rule == BEST else (plan.search.rule,)


def measures_compared(plan: Plan) -> tuple[str, ...]:
    """All known measures, and that of the plan where it is from outside."""
    return tuple(dict.fromkeys((*MEASURES.names(), *measures_tried(plan))))
