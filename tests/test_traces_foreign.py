"""Traces as other libraries make them: read right, or refused with the remedy, or warned about."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Command, command_on_traces

from dynconf_core.errors import InputError
from dynconf_core.evaluation.trace_warnings import trace_warnings
from dynconf_core.traces.schema import Traces, TracesError

SAMPLES, TIME_STEPS, CLASSES = 24, 6, 3


def drawn(samples: int = SAMPLES, seed: int = 0) -> Traces:
    random = np.random.default_rng(seed)
    labels = random.integers(0, CLASSES, samples)
    logits = random.normal(np.eye(CLASSES)[labels][:, None], 1.0, (samples, TIME_STEPS, CLASSES)).astype(np.float32)
    return Traces(logits, labels, spikes=random.integers(0, 9, (samples, TIME_STEPS)))


def same(found: Traces, wanted: Traces) -> None:
    np.testing.assert_array_equal(found.labels, wanted.labels)
    np.testing.assert_array_equal(found.predictions(), wanted.predictions())
    assert found.spikes is not None and wanted.spikes is not None
    np.testing.assert_array_equal(found.spikes, wanted.spikes)


@pytest.fixture
def dynconf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return command_on_traces(tmp_path / "here", monkeypatch, capsys)


def written(path: Path, traces: Traces, **changes: Any) -> Path:
    """An archive as somebody's script would write it."""
    np.savez(path, **{"logits": traces.logits, "labels": traces.labels, "spikes": traces.spikes, **changes})
    return path


def time_first(traces: Traces) -> dict[str, Any]:
    assert traces.spikes is not None
    return {"logits": traces.logits.transpose(1, 0, 2), "spikes": traces.spikes.T}


def test_time_steps_first_are_refused_with_the_transpose() -> None:
    """The case of the public reports: 10 steps, 400 samples."""
    with pytest.raises(TracesError, match=r"transpose\(1, 0, 2\).*--layout TNC"):
        Traces(np.zeros((10, 400, 10), np.float32), np.zeros(400, np.int64))
    with pytest.raises(TracesError) as failed:
        Traces(np.zeros((400, 10, 10), np.float32), np.zeros(399, np.int64))
    assert "transpose" not in str(failed.value)


@pytest.mark.parametrize("folder", [False, True])
def test_a_layout_that_is_named_is_read(folder: bool, tmp_path: Path) -> None:
    traces = drawn()
    path = written(tmp_path / "tnc.npz", traces, **time_first(traces))
    if folder:
        with np.load(path) as arrays:
            path = tmp_path / "tnc"
            path.mkdir()
            for name in arrays.files:
                np.save(path / f"{name}.npy", arrays[name])
    same(Traces.load(path, layout="TNC"), traces)
    with pytest.raises(TracesError, match="--layout TNC"):
        Traces.load(path)
    with pytest.raises(TracesError, match="labels has the shape"):
        Traces.load(written(tmp_path / "ntc.npz", traces), layout="TNC")
    with pytest.raises(InputError, match="layout='NCT' is unknown: choose one of NTC, TNC"):
        Traces.load(path, layout="NCT")


def test_as_many_samples_as_steps_ask_for_the_layout(dynconf: Command, tmp_path: Path) -> None:
    square = drawn(TIME_STEPS)
    files = [written(tmp_path / "ntc.npz", square), written(tmp_path / "tnc.npz", square, **time_first(square))]
    test = drawn(20, seed=1).save(tmp_path / "test.npz")
    assert test is not None
    for command in ("analyse", "compare"):
        answer = dynconf(command, files[0])
        assert answer.code == 2 and "--layout NTC" in answer.error and "--layout TNC" in answer.error
    told = [dynconf("compare", file, "--layout", layout).out for file, layout in zip(files, ("NTC", "TNC"), strict=True)]
    figures = [text.partition("\n")[2] for text in told]
    assert figures[0] == figures[1] and "max_softmax" in figures[0]
    assert dynconf("compare", files[0], "--layout", "TNC").out.partition("\n")[2] != figures[0]
    assert dynconf("analyse", files[0], "--layout", "CTN").code == 2


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.float16])
def test_running_sums_become_outputs(kind: Any, tmp_path: Path) -> None:
    traces = drawn(40)
    running = np.cumsum(traces.logits, axis=1, dtype=np.float64).astype(kind)
    path = written(tmp_path / "sums.npz", traces, logits=running)
    found = Traces.load(path, accumulated=True)
    assert found.logits.dtype == np.float64
    for piece, accumulated in found.accumulated():
        np.testing.assert_allclose(accumulated, running[piece], rtol=1e-12)
    np.testing.assert_array_equal(found.predictions(), running.argmax(axis=2))


def test_a_report_on_samples_that_end_repeats_how_they_were_read(dynconf: Command, tmp_path: Path) -> None:
    traces, lengths = drawn(40), np.random.default_rng(2).integers(2, TIME_STEPS + 1, 40)
    changed = {**time_first(traces), "logits": np.cumsum(traces.logits, axis=1).swapaxes(0, 1), "lengths": lengths}
    path = written(tmp_path / "sums.npz", traces, **changed)
    out = tmp_path / "out"
    answer = dynconf("analyse", path, "--layout", "TNC", "--accumulated", "--out", out)
    assert answer.code == 0, answer.error
    record = json.loads((out / "analysis.json").read_text())
    mean = lengths[record["split"]["test"]].mean()
    assert record["steps_at_t"][-1] == pytest.approx(mean)
    assert f"Without exit, {mean:.2f} (mean length) steps" in answer.out and f"mean steps of {mean:.2f};" in answer.out
    marked = next(line for line in answer.out.splitlines() if line.startswith("> "))
    assert f"{100 * (1 - record['exit']['mean_steps'] / mean):.1f} %" in marked
    page = (out / "report.html").read_text()
    assert "--layout TNC --accumulated" in page and f"of {mean:.2f} (mean length) time steps" in page


@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.float32, np.bool_])
def test_one_hot_labels_are_read_with_a_note(kind: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    traces = drawn()
    path = written(tmp_path / "hot.npz", traces, labels=np.eye(CLASSES)[traces.labels].astype(kind))
    with caplog.at_level(logging.WARNING):
        same(Traces.load(path), traces)
    assert "one-hot: read as class indices, labels.argmax(1)" in caplog.text


def test_whole_floats_are_labels() -> None:
    traces = drawn()
    found = dataclasses.replace(traces, labels=traces.labels.astype(np.float32))
    same(found, traces)
    assert found.labels.dtype == np.int64


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.full((SAMPLES, CLASSES), 1), r"sample 0 .* are \[1, 1, 1\], not one-hot; .* labels.argmax\(1\)"),
        (np.eye(CLASSES)[np.arange(SAMPLES) % 3] * 0.9, "not one-hot"),
        (np.ones((SAMPLES, CLASSES + 1)), r"must be \(N, C\)"),
        (np.full(SAMPLES, 0.5), "labels of sample 0 .* is 0.5; a class index is a whole number"),
        (np.full(SAMPLES, np.nan), "is nan; a class index"),
        (np.full(SAMPLES, 3.0), "from 0 to 2"),
        (np.full(SAMPLES, True), "labels has the type bool"),
    ],
)
def test_other_labels_are_refused(labels: Any, words: str) -> None:
    with pytest.raises(TracesError, match=words):
        dataclasses.replace(drawn(), labels=labels)


def warnings_of(logits: np.ndarray, labels: np.ndarray, lengths: Any = None) -> str:
    traces = Traces(logits, labels, lengths=lengths)
    return " ".join(trace_warnings(traces, traces))


def test_running_counts_are_warned_about() -> None:
    random = np.random.default_rng(0)
    spikes, labels = random.integers(0, 2, (30, 8, 4)), random.integers(0, 4, 30)
    counts = np.cumsum(spikes, axis=1).astype(np.float32)
    warned = "calibration and test traces are whole numbers that never fall"
    assert warned in warnings_of(counts, labels) and "--accumulated" in warnings_of(counts, labels)
    assert warned not in warnings_of(spikes.astype(np.float32), labels), "spikes of each step"
    assert warned not in warnings_of(np.ones((30, 8, 4), np.float32), labels), "counts that do not grow"
    assert warned not in warnings_of(counts + 0.5, labels)
    lengths = random.integers(2, 9, 30)
    counts[np.arange(8) >= lengths[:, None]] = 0
    assert warned not in warnings_of(counts, labels) and warned in warnings_of(counts, labels, lengths)


def test_probabilities_are_warned_about_up_to_the_end_of_samples() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(size=(30, 8, 4))
    rows = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    labels, lengths = random.integers(0, 4, 30), random.integers(1, 9, 30)
    assert "are probabilities" in warnings_of(rows + 2e-4, labels) and "are probabilities" not in warnings_of(logits, labels)
    rows[np.arange(8) >= lengths[:, None]] = 0
    assert "are probabilities" not in warnings_of(rows, labels) and "are probabilities" in warnings_of(rows, labels, lengths)
