"""Samples that are in both the calibration and the test traces are counted."""

from __future__ import annotations

import numpy as np
import pytest

from dynconf_core.traces import checks as traces_checks
from dynconf_core.traces.parts import duplicated
from dynconf_core.traces.schema import Traces, TracesError


def normal(samples: int, seed: int, time_steps: int = 4) -> Traces:
    rng = np.random.default_rng(seed)
    return Traces(rng.normal(size=(samples, time_steps, 3)).astype(np.float32), rng.integers(0, 3, samples))


def test_duplicated_against_a_plain_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces_checks, "PIECE_ELEMENTS", 50)
    calibration, others = normal(40, 0), normal(30, 1)
    logits = np.concatenate([others.logits, calibration.logits[5:12], calibration.logits[5:7]])
    labels = np.concatenate([others.labels, calibration.labels[5:12], calibration.labels[5:7]])
    labels[30] = (labels[30] + 1) % 3  # another label, another sample
    test = Traces(logits, labels)
    plain = sum(
        any((row == mine).all() and label == own for mine, own in zip(calibration.logits, calibration.labels, strict=True))
        for row, label in zip(test.logits, test.labels, strict=True)
    )
    assert plain == 8
    assert duplicated(calibration, test) == 8
    assert duplicated(calibration, others) == 0
    assert duplicated(calibration, calibration) == 40


def test_duplicated_for_any_type() -> None:
    logits = np.array([[[0.0, 1.5]], [[2.0, -0.25]]], np.float16)
    one = Traces(logits, np.array([0, 1]))
    other = Traces(np.where(logits == 0, -0.0, logits.astype(np.float64)), np.array([0, 1], np.uint8))
    assert duplicated(one, other) == 2


def test_duplicated_compares_spikes_if_both_have_them() -> None:
    """Ten zeros and ones are easily equal by chance; the spikes of all layers are not."""
    logits, labels = np.zeros((3, 2, 2)), np.zeros(3, int)
    one = Traces(logits, labels, spikes=np.array([[1, 2], [3, 4], [5, 6]]))
    other = Traces(logits, labels, spikes=np.array([[1, 2], [3, 5], [9, 9]]))
    assert duplicated(one, other) == 1
    assert duplicated(one, Traces(logits, labels)) == 3


def test_duplicated_needs_equal_steps() -> None:
    with pytest.raises(TracesError, match=r"= \(4, 3\), those of the test traces \(5, 3\)"):
        duplicated(normal(2, 0), normal(2, 0, time_steps=5))
