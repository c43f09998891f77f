"""Warnings about a rule that its own figures contradict: one sentence each, with the figures and a remedy."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dynconf_core.choosing.cross_fitting import Choice, HowChosen
from dynconf_core.choosing.guarantee import Guarantee
from dynconf_core.exit.by_class import ClassFigures
from dynconf_core.exit.judgement import Judgement
from dynconf_core.exit.shown import points_in_words
from dynconf_core.exit.uneven_loss import UnevenLoss, overall_loss, uneven_losses
from dynconf_core.wording import counted

LISTED = 3
"""Classes that a warning names; it counts the others."""
VAGUE = 0.01
"""The least promised loss that is named because less was asked for. What hundreds of samples cannot promise is a fraction of a
point, and `expected_loss_at_most` and the tables say it; below a hundred the loss may spoil the rule."""


def choice_warnings(choice: Choice) -> list[str]:
    """A warning if the rule loses more than allowed on the very samples that chose it, and more than chance explains.

    The smoothed loss that chose it may be below the raw one by chance: what lies within the interval of the cross-fitted loss
    is not said, nor a single net loss.
    """
    samples, allowed = choice.calibrated.samples, choice.calibrated.max_drop
    lost, most = (
        round(choice.calibration.loss * samples),
        max(max(allowed, choice.cross_fitted.loss_interval[1]) * samples, 1.0),
    )
    if lost <= most + 1e-9:
        return []
    return [
        f"the chosen rule loses {_points(choice.calibration.loss)} on the {samples} calibration samples that chose it, more "
        f"than the {_points(allowed)} allowed: its loss on unseen samples is uncertain; give more calibration samples, or ask "
        "for a guarantee (--epsilon, --delta)."
    ]


def sample_warnings(how: HowChosen) -> list[str]:
    """A warning if so few samples can promise only a loss of at least ``VAGUE``, and of at least twice what was asked for."""
    promised, allowed = how.expected_loss_at_most, how.max_drop
    if promised < max(VAGUE, 2 * allowed):
        return []
    enough = f"at least {math.ceil(1 / allowed - 1)} of them, or allow more" if allowed else "more of them"
    return [
        f"a loss of at most {_points(allowed)} was asked for (max_drop), but {counted(how.samples, 'calibration sample')} can "
        f"promise no less than {100 * promised:.4g}: give {enough}."
    ]


def promise_warnings(choice: Choice, test: Judgement) -> list[str]:
    """A warning if the test samples contradict what the choice promises: the interval of their loss lies above it.

    Args:
        choice: how the rule was chosen.
        test: the rule on the test samples.
    """
    low, high = test.loss_interval
    promised = choice.calibrated.expected_loss_at_most
    if low <= promised:
        return []
    return [
        f"the rule loses {_points(test.loss)} on the test samples (95 % interval {100 * low:.2f} to {100 * high:.2f}), and was "
        f"chosen on {choice.calibrated.samples} calibration samples to lose at most {_points(promised)} in expectation: give "
        "more calibration samples, or ask for a guarantee (--epsilon, --delta)."
    ]


def guarantee_warnings(guarantee: Guarantee, test: Judgement) -> list[str]:
    """A warning if the test samples contradict a guarantee: the interval of their loss lies above epsilon.

    Args:
        guarantee: the guarantee.
        test: the certified rule on the test samples.
    """
    low, high = test.loss_interval
    if not guarantee.certified or low <= guarantee.epsilon:
        return []
    return [
        f"the test samples contradict the guarantee: the certified rule loses {_points(test.loss)} on them (95 % interval "
        f"{100 * low:.2f} to {100 * high:.2f}), and a loss of at most {_points(guarantee.epsilon)} was promised. Calibration "
        "and test samples are not drawn alike: certify on samples like those that the rule will meet."
    ]


def class_warnings(classes: Sequence[ClassFigures], how: HowChosen) -> list[str]:
    """A warning if the loss on the test samples falls on few classes; see ``uneven_losses``.

    Args:
        classes: the figures of each class.
        how: how the rule was chosen, which says whether a smaller loss can be asked for.
    """
    found = uneven_losses(classes)
    if not found:
        return []
    named = [f"{_named(one)} {_points(one.loss)}" for one in found[:LISTED]]
    if len(found) > LISTED:
        named.append(f"{len(found) - LISTED} more")
    listed = named[0] if len(named) == 1 else f"{', '.join(named[:-1])} and {named[-1]}"
    verb = "lose" if len(found[0].labels) > 1 else "loses"
    overall = overall_loss(classes)
    what = "the loss falls on few classes" if overall >= 0 else "few classes lose what others gain"
    remedy = "Calibrate with more samples of these classes"
    if overall >= 0 and how.max_drop > 1 / (how.samples + 1):
        remedy = "Allow a smaller loss (max_drop), or calibrate with more samples of these classes"
    return [
        f"{what}: {listed.replace(') ', f') {verb} ', 1)}; all test samples together: {points_in_words(overall)}. {remedy}; "
        "`by_class` has the figures."
    ]


def _named(found: UnevenLoss) -> str:
    if len(found.labels) == 1:
        return f"class {found.labels[0]} ({counted(found.samples, 'sample')})"
    return f"the {len(found.labels)} rare classes together ({found.samples} samples)"


def _points(loss: float) -> str:
    return counted(round(100 * loss, 2), "point", form="g")
