"""Samples that are in both the calibration and the test traces are counted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dynconf_core.evaluation.trace_warnings import trace_warnings
from dynconf_core.traces import checks as traces_checks
from dynconf_core.traces.duplicates import duplicates
from dynconf_core.traces.parts import taken
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
    assert duplicates(calibration, test).shared == 8
    assert duplicates(calibration, others).shared == 0
    assert duplicates(calibration, calibration).shared == 40


def test_duplicated_for_any_type() -> None:
    logits = np.array([[[0.0, 1.5]], [[2.0, -0.25]]], np.float16)
    one = Traces(logits, np.array([0, 1]))
    other = Traces(np.where(logits == 0, -0.0, logits.astype(np.float64)), np.array([0, 1], np.uint8))
    assert duplicates(one, other).shared == 2


def test_duplicated_compares_spikes_if_both_have_them() -> None:
    """Ten zeros and ones are easily equal by chance; the spikes of all layers are not."""
    logits, labels = np.zeros((3, 2, 2)), np.zeros(3, int)
    one = Traces(logits, labels, spikes=np.array([[1, 2], [3, 4], [5, 6]]))
    other = Traces(logits, labels, spikes=np.array([[1, 2], [3, 5], [9, 9]]))
    assert duplicates(one, other).shared == 1
    assert duplicates(one, Traces(logits, labels)).shared == 3


def test_duplicated_needs_equal_steps() -> None:
    with pytest.raises(TracesError, match=r"= \(4, 3\), those of the test traces \(5, 3\)"):
        duplicates(normal(2, 0), normal(2, 0, time_steps=5))


def few_patterns(samples: int, seed: int, patterns: int = 200) -> Traces:
    """An SNN that puts out one of few patterns of spikes, some of them far more often than others."""
    shapes = np.random.default_rng(0)
    outputs, labels = shapes.integers(0, 3, (patterns, 4, 3)).astype(np.float32), shapes.integers(0, 3, patterns)
    share = 1.0 / np.arange(1, patterns + 1)
    found = np.random.default_rng(seed).choice(patterns, samples, p=share / share.sum())
    return Traces(outputs[found], labels[found])


def joined(one: Traces, other: Traces) -> Traces:
    return Traces(np.concatenate([one.logits, other.logits]), np.concatenate([one.labels, other.labels]))


def said(calibration: Traces, test: Traces) -> list[str]:
    return [text for text in trace_warnings(calibration, test) if "equal a calibration sample" in text]


def test_an_snn_that_repeats_itself_is_no_reason_to_warn() -> None:
    """As often as the calibration samples equal each other, test samples equal them; measured over 200 pairs of sets."""
    pairs = [duplicates(few_patterns(300, 2 * n), few_patterns(400, 2 * n + 1)) for n in range(200)]
    shared, expected = (np.mean([getattr(pair, name) for pair in pairs]) for name in ("shared", "expected"))
    assert shared > 300 and expected == pytest.approx(shared, rel=0.01)
    assert np.std([pair.shared - pair.expected for pair in pairs]) <= 1.1 * np.mean([pair.error for pair in pairs])
    assert sum(pair.more_than_expected for pair in pairs) <= 3
    assert not said(few_patterns(300, 0), few_patterns(400, 1))


def test_more_than_the_repeats_explain_is_said_with_the_numbers() -> None:
    calibration = joined(few_patterns(300, 0), normal(300, 1))
    test = joined(few_patterns(400, 2), Traces(calibration.logits[300:], calibration.labels[300:]))
    found = duplicates(calibration, test)
    (text,) = said(calibration, test)
    assert f"{found.shared} of the 700 test samples" in text and f"{found.repeated} of the 600 calibration samples" in text
    assert f"where {found.expected:.3g} would be expected" in text and "`spikes` or `input_hash` in both traces" in text
    (text,) = said(normal(50, 0), joined(normal(30, 1), Traces(normal(50, 0).logits[:1], normal(50, 0).labels[:1])))
    assert text.startswith("1 of the 31 test samples") and "where 0 would be expected" in text


def test_hashes_of_the_inputs_settle_it() -> None:
    hashes = np.arange(1000, dtype=np.uint64) + np.uint64(2**63)
    one, other = few_patterns(300, 0), few_patterns(400, 1)
    known, unseen = replace(one, input_hash=hashes[:300]), replace(other, input_hash=hashes[299:699])
    (text,) = said(known, unseen)
    assert text.startswith("1 of the 400 test samples") and "`input_hash`" in text and "expected" not in text
    assert not said(known, replace(other, input_hash=hashes[300:700]))
    assert duplicates(known, other).compared == "logits"
    same = replace(normal(300, 3), spikes=np.ones((300, 4)))
    (text,) = said(same, same)
    assert "label, logits and spikes" in text and "`spikes` or" not in text and "`input_hash` in both" in text


def test_hashes_are_stored_and_checked(tmp_path: Path) -> None:
    made = replace(normal(5, 0), input_hash=np.array([1, 2, 3, 4, 2**64 - 1], np.uint64))
    assert made.input_hash is not None
    for name in ("t.npz", "folder"):
        found = Traces.load(made.save(tmp_path / name)).input_hash
        assert found is not None and found.tolist() == made.input_hash.tolist()
    assert taken(made, np.array([4, 0])).input_hash.tolist() == [2**64 - 1, 1]  # type: ignore[union-attr]
    for wrong, words in (
        (np.arange(4, dtype=np.uint64), r"input_hash has the shape \(4,\)"),
        (np.arange(5), "unsigned integers"),
    ):
        with pytest.raises(TracesError, match=words):
            replace(normal(5, 0), input_hash=wrong)
