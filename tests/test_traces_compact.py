"""Compact traces: no prediction and no exit may change."""

import numpy as np
import pytest
from study_cases import made

from dynconf_core.confidence.smoothing import Smoothing
from dynconf_core.exit.rule import Rule
from dynconf_core.traces.compact import compact
from dynconf_core.traces.schema import Traces

RULE = Rule("max_softmax", Smoothing("sum", 1.0), 0.3)


@pytest.mark.parametrize("seed", range(4))
def test_predictions_and_exits_are_kept_with_fewer_bytes(seed: int) -> None:
    generator = np.random.default_rng(seed)
    logits, counts = generator.normal(size=(200, 12, 7)), generator.integers(0, 60_000, (200, 12))
    labels, ann = generator.integers(0, 7, 200), generator.normal(size=(200, 7))
    traces = Traces(logits, labels, ann_logits=ann, spikes=counts, synaptic_operations=counts * 9, meta={"a": 1})
    small = compact(traces, RULE.exit_steps)
    assert np.array_equal(small.predictions(), traces.predictions())
    assert np.array_equal(RULE.exit_steps(small), RULE.exit_steps(traces))
    assert small.logits.dtype in (np.float16, np.float32) and np.abs(small.logits - logits).max() < 0.01
    assert small.spikes is not None and small.spikes.dtype == np.uint16 and np.array_equal(small.spikes, counts)
    assert small.synaptic_operations is not None and small.synaptic_operations.dtype == np.uint32
    assert small.ann_logits is not None and np.array_equal(small.ann_logits.argmax(1), ann.argmax(1))
    assert small.meta == traces.meta


def test_a_near_tie_keeps_its_digits() -> None:
    logits = np.zeros((1, 1, 3))
    logits[0, 0] = [1.0, 1.0 + 2.0**-14, 0.0]  # float16 and 13 digits see a tie, and take the first
    small = compact(Traces(logits, np.array([1])))
    assert small.predictions().item() == 1 and small.logits.dtype == np.float32
    logits[0, 0] = [1.0, 1.0 + 2.0**-40, 0.0]
    kept = compact(Traces(logits, np.array([1])))
    assert kept.predictions().item() == 1 and np.array_equal(kept.logits, logits)


def test_an_exit_near_the_threshold_is_kept() -> None:
    logits = np.array([[[0.3001, 0.0], [3.0, 0.0]]])
    traces = Traces(logits, np.array([0]))
    for threshold in (0.30005, 0.3001, 0.30015):
        rule = Rule("gap", Smoothing("sum", 1.0), threshold)
        assert np.array_equal(rule.exit_steps(compact(traces, rule.exit_steps)), rule.exit_steps(traces))


def test_what_float16_cannot_hold() -> None:
    traces = Traces(np.array([[[1e5, 0.0]], [[3e38, 1e38]]]), np.array([0, 0]), ann_logits=np.array([[1e6, 0.0], [0.0, 1.0]]))
    small = compact(traces)
    assert small.logits.dtype == np.float32 and np.array_equal(small.ann_logits, traces.ann_logits)  # type: ignore[arg-type]


def test_counts_that_are_not_whole_numbers_are_kept() -> None:
    traces = made(5, 1, 3)
    halves = Traces(traces.logits, traces.labels, spikes=np.full((5, 3), 0.5))
    assert np.array_equal(compact(halves).spikes, halves.spikes)  # type: ignore[arg-type]


def test_a_compressed_archive_is_read_back(tmp_path) -> None:  # type: ignore[no-untyped-def]
    traces = Traces(np.zeros((50, 20, 10), np.float32), np.zeros(50, np.int64))
    plain, small = traces.save(tmp_path / "a.npz"), traces.save(tmp_path / "b.npz", compressed=True)
    assert small.stat().st_size < plain.stat().st_size / 10
    assert np.array_equal(Traces.load(small).logits, traces.logits)
