"""The test of one source: false alarms at its level, also with outputs that repeat; what it finds, and what is said of it."""

from __future__ import annotations

import numpy as np
import pytest
from study_cases import made

from dynconf_core.evaluation.one_source import one_source
from dynconf_core.evaluation.trace_warnings import trace_warnings
from dynconf_core.traces.schema import Traces

LEVEL = 0.1
TRIALS = 150


def repeating(samples: int, seed: int) -> Traces:
    """Independent samples of a network with a handful of outputs: spike counts of 0 and 1."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, samples)
    logits = np.zeros((samples, 3, 2))
    logits[np.arange(samples), :, labels] = random.integers(0, 2, (samples, 3))
    return Traces(logits, labels)


@pytest.mark.parametrize("kind", ["distinct", "repeating", "one alone"])
def test_false_alarms_at_the_level(kind: str) -> None:
    alarms = 0
    for seed in range(TRIALS):
        if kind == "distinct":
            pool = made(90, seed, 4)
        elif kind == "repeating":
            pool = repeating(90, seed)
        else:
            pool = Traces(np.tile([[[2.0, 1.0]]], (90, 3, 1)), np.zeros(90, np.int64))
        calibration = Traces(pool.logits[:30], pool.labels[:30])
        test = Traces(pool.logits[30:], pool.labels[30:])
        alarms += one_source(calibration, test, LEVEL, seed).rejected
    error = (LEVEL * (1 - LEVEL) / TRIALS) ** 0.5
    assert alarms <= TRIALS * (LEVEL + 3 * error)
    # Ties make the test more careful, never bolder; without them it uses its level up.
    assert alarms >= TRIALS * (LEVEL - 3 * error) if kind == "distinct" else alarms >= 0
    assert kind != "one alone" or alarms == 0


def test_other_samples_are_told_apart() -> None:
    calibration, test = made(300, 0, 6), made(300, 1, 6)
    assert not one_source(calibration, test, 0.001).rejected
    easier = made(300, 1, 6, pull=1.0)
    found = one_source(calibration, easier, 0.001)
    assert found.rejected and abs(found.difference) > 0.4
    spread = Traces(test.logits * np.where(np.arange(300) % 2, 0.3, 2.0)[:, None, None].astype(np.float32), test.labels)
    found = one_source(calibration, spread, 0.001)
    assert found.rejected and found.feature.startswith("the spread of")
    shuffled = Traces(test.logits, np.random.default_rng(0).permutation(test.labels))
    found = one_source(calibration, shuffled, 0.001)
    assert found.rejected and found.feature == "the share of correct predictions at T" and found.difference < -0.4


def test_it_is_one_warning_unless_training_explains_the_difference() -> None:
    calibration, easier = made(300, 0, 6), made(300, 1, 6, pull=1.0)
    (said,) = [one for one in trace_warnings(calibration, easier) if "one source" in one]
    found = one_source(calibration, easier, 0.001)
    assert found.feature in said and f"{abs(found.difference):.2f} standard deviations" in said and "0.1 %" in said
    assert not [one for one in trace_warnings(calibration, made(300, 1, 6)) if "one source" in one]
    known = Traces(calibration.logits, calibration.labels, meta={"trained_on_calibration": True})
    assert not [one for one in trace_warnings(known, easier) if "one source" in one]
