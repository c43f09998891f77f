"""Thresholds and losses as a person reads them."""

from __future__ import annotations

import math

from dynconf_core.confidence.max_softmax import sigmoid

CLOSEST = 1e-7
"""Probabilities closer to 1 are shown by their distance from it."""


def threshold_text(threshold: float, shown: float) -> str:
    """A threshold in four digits, or as many as distinguish a probability from 1: 0.999996, and 1 - 4e-12; an infinite one as
    "never" or "at once", when samples exit.

    Args:
        threshold: in units of the score.
        shown: the number shown to people, such as the softmax probability whose log-odds are ``threshold``.
    """
    if math.isinf(threshold):
        return "never" if threshold > 0 else "at once"
    distance = 1.0 - shown
    if 0.0 < distance < 1.0 and f"{shown:.4g}" == "1":
        return f"{shown:.{math.ceil(-math.log10(distance))}f}" if distance >= CLOSEST else _below_one(math.log10(distance))
    if shown == 1.0 and threshold > 1.0 and sigmoid(threshold) == 1.0:
        return _below_one(-threshold / math.log(10.0))  # log-odds of a probability that is rounded to 1
    return f"{shown:.4g}"


def exit_text(label: str, threshold: float, shown: float) -> str:
    """When samples exit, as the end of a sentence: "exits once the softmax passes 0.999996".

    Args:
        label: what is compared with the threshold, such as the label of a measure.
        threshold, shown: as in ``threshold_text``.
    """
    if math.isinf(threshold):
        return "never exits before T" if threshold > 0 else "exits at once"
    return f"exits once the {label} passes {threshold_text(threshold, shown)}"


def points(loss: float) -> str:
    """A loss of accuracy in percentage points: "0.12 lost", "0.12 gained" or "0.00"."""
    amount = f"{100 * abs(loss):.2f}"
    if float(amount) == 0:
        return "0.00"
    return f"{amount} {'lost' if loss > 0 else 'gained'}"


def points_in_words(loss: float) -> str:
    """The same in a sentence: "0.12 points lost", "1.00 points gained" or "0.00 points lost"."""
    amount, *verb = points(loss).split()
    return f"{amount} points {verb[0] if verb else 'lost'}"


def saved_in_words(saving: float, digits: int = 1) -> str:
    """The steps that an exit saves against a fixed step: "12.0 % saved", "5.0 % more steps" or "3.3 times its steps".

    Args:
        saving: a fraction; negative if the exit takes more steps.
        digits: decimals of a percentage.
    """
    if saving <= -1:
        return f"{1 - saving:.1f} times its steps"
    amount = f"{100 * abs(saving):.{digits}f}"
    return f"{amount} % {'more steps' if saving < 0 and float(amount) else 'saved'}"


def _below_one(logarithm: float) -> str:
    """1 minus a power of ten."""
    exponent = math.floor(logarithm)
    digit = round(10 ** (logarithm - exponent))
    return f"1 - {digit}e{exponent:+03d}" if digit < 10 else f"1 - 1e{exponent + 1:+03d}"
