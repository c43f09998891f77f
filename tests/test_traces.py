"""Traces: the checks, the predictions, and both forms on disk."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dynconf_core.confidence.max_softmax import MaxSoftmax
from dynconf_core.confidence.smoothing import Smoothing
from dynconf_core.errors import InputError
from dynconf_core.exit.front import exact_front
from dynconf_core.traces import checks as traces_checks
from dynconf_core.traces import schema as traces_module
from dynconf_core.traces.schema import Traces, TracesError


def arrays(samples: int = 3, time_steps: int = 4, classes: int = 2, **changes: Any) -> dict[str, Any]:
    """Valid arrays of the given size, some of them changed."""
    rng = np.random.default_rng(7)
    sound: dict[str, Any] = {
        "logits": rng.normal(size=(samples, time_steps, classes)).astype(np.float32),
        "labels": np.arange(samples) % classes,
        "ann_logits": rng.normal(size=(samples, classes)),
        "reference_logits": rng.normal(size=(samples, classes)).astype(np.float32),
        "spikes": rng.integers(0, 9, (samples, time_steps)),
        "synaptic_operations": rng.integers(0, 99, (samples, time_steps)),
        "meta": {"network": "toy", "neurons": 5},
    }
    return {**sound, **changes}


def logits_with(value: float, sample: int, step: int, column: int) -> np.ndarray:
    logits = np.zeros((3, 4, 2))
    logits[sample, step, column] = value
    return logits


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"logits": [[1.0]]}, ["logits", "list"]),
        ({"logits": np.zeros((3, 2))}, ["logits", "(3, 2)", "(N, T, C)"]),
        ({"logits": np.zeros((3, 4, 2), int)}, ["logits", "int64", "in Python logits.astype(np.float32)"]),
        ({"logits": np.zeros((3, 4, 2), complex)}, ["logits", "complex128"]),
        ({"logits": np.zeros((0, 4, 2))}, ["logits", "(0, 4, 2)", "without samples"]),
        ({"logits": np.zeros((3, 0, 2))}, ["logits", "(3, 0, 2)", "without time steps"]),
        ({"logits": np.zeros((3, 4, 1))}, ["logits", "(3, 4, 1)", "two classes"]),
        ({"logits": logits_with(np.nan, 1, 2, 0)}, ["logits", "sample 1 ", "time step 3", "class 0", "nan"]),
        ({"logits": logits_with(-np.inf, 2, 0, 1)}, ["sample 2 ", "time step 1", "class 1", "-inf"]),
        ({"logits": logits_with(-3e300, 0, 3, 1)}, ["reach 3e+300", "sample 0 ", "time step 4", "divide all logits"]),
        ({"logits": logits_with(np.inf, 2, 0, 1).astype(np.float16)}, ["sample 2 ", "time step 1"]),
        ({"labels": np.zeros(2, int)}, ["labels", "(2,)", "3 samples"]),
        ({"labels": np.zeros((3, 1), int)}, ["labels", "(3, 1)"]),
        ({"labels": np.zeros(3, bool)}, ["labels", "bool"]),
        ({"labels": np.array([0, 1, 2])}, ["labels", "sample 2 ", "is 2", "0 to 1"]),
        ({"labels": np.array([0, -1, 1])}, ["labels", "sample 1 ", "is -1"]),
        ({"labels": np.array([0, 1, 2**63], np.uint64)}, ["labels", "sample 2 "]),
        ({"labels": [0, 1, 1]}, ["labels", "list"]),
        ({"ann_logits": np.zeros((3, 3))}, ["ann_logits", "(3, 3)", "(3, 2)"]),
        ({"ann_logits": np.zeros((3, 2), int)}, ["ann_logits", "int64"]),
        (
            {"ann_logits": np.array([[0, 0], [0, np.nan], [0, 0]])},
            ["ann_logits", "sample 1 ", "class 1", "nan"],
        ),
        ({"spikes": np.zeros((3, 3))}, ["spikes", "(3, 3)", "(3, 4)"]),
        ({"spikes": np.full((3, 4), -1)}, ["spikes", "sample 0 ", "time step 1", "-1"]),
        ({"synaptic_operations": np.full((3, 4), np.nan)}, ["synaptic_operations", "time step 1", "nan"]),
        ({"synaptic_operations": np.zeros((3, 4), "U1")}, ["synaptic_operations", "<U1"]),
        ({"meta": "text"}, ["meta", "str"]),
    ],
)
def test_what_is_wrong_is_named(changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(TracesError) as error:
        Traces(**arrays(**changes))
    for word in words:
        assert word in str(error.value)
    assert isinstance(error.value, InputError)


def test_a_fault_in_a_later_piece_is_named_by_its_own_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces_checks, "PIECE_ELEMENTS", 8)  # one sample a piece
    with pytest.raises(TracesError, match=r"sample 2 \(from 0\), time step 4"):
        Traces(**arrays(logits=logits_with(np.nan, 2, 3, 0)))


def test_sizes_and_types() -> None:
    made = Traces(**arrays(5, 4, 3, labels=np.array([0, 1, 2, 0, 1], np.uint8)))
    assert (made.samples, made.time_steps, made.classes) == (5, 4, 3)
    assert made.labels.dtype == np.int64


def test_predictions_follow_the_running_sum_and_the_lowest_index() -> None:
    # z: sample 0 goes (1, 0), (1, 1), (1, 2); sample 1 goes (0, 0), (-1, 0), (5, 0).
    logits = np.array([[[1, 0], [0, 1], [0, 1]], [[0, 0], [-1, 0], [6, 0]]], np.float16)
    made = Traces(logits, np.array([1, 0]))
    assert made.predictions().tolist() == [[0, 0, 1], [0, 1, 0]]
    assert made.correct().tolist() == [[False, False, True], [True, False, True]]


def test_the_sum_is_accumulated_in_float64() -> None:
    # In float16 2048 + 1 = 2048: the second class would never pass the first.
    logits = np.zeros((1, 4, 2), np.float16)
    logits[0, 0] = [2049 - 1, 2048]
    logits[0, 1:] = [0, 1]
    (_, accumulated), *_ = Traces(logits, np.array([1])).accumulated()
    assert accumulated[0].tolist() == [[2048, 2048], [2048, 2049], [2048, 2050], [2048, 2051]]


def test_pieces_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Traces(**arrays(11, 4, 3, labels=np.zeros(11, int)))
    whole = made.predictions()
    monkeypatch.setattr(traces_module, "PIECE_ELEMENTS", 30)
    assert [piece.stop - piece.start for piece, _ in made.accumulated()] == [2] * 6
    assert (made.predictions() == whole).all()


def test_cut_keeps_the_first_steps() -> None:
    made = Traces(**arrays())
    cut = made.cut(2)
    assert cut.time_steps == 2
    assert (cut.logits == made.logits[:, :2]).all()
    assert cut.spikes is not None and cut.spikes.shape == (3, 2)
    assert cut.synaptic_operations is not None and cut.synaptic_operations.shape == (3, 2)
    assert (cut.correct() == made.correct()[:, :2]).all()
    assert cut.meta == made.meta
    for steps in (0, 5, -1):
        with pytest.raises(TracesError, match=f"time_steps = {steps} .* from 1 to 4"):
            made.cut(steps)


@pytest.mark.parametrize("name", ["made.npz", "folder", "deep/er.v2"])
@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_round_trip(tmp_path: Path, name: str, full: bool, kind: type) -> None:
    given = arrays(logits=np.random.default_rng(1).normal(size=(3, 4, 2)).astype(kind))
    if not full:
        given = {"logits": given["logits"], "labels": given["labels"]}
    made = Traces(**given)
    path = made.save(tmp_path / name)
    assert path == tmp_path / name
    read = Traces.load(path)
    assert read.logits.dtype == kind and read.meta == made.meta
    for field in ("logits", "labels", "ann_logits", "reference_logits", "spikes", "synaptic_operations"):
        before, after = getattr(made, field), getattr(read, field)
        assert (before is None) == (after is None)
        if before is not None:
            assert after.dtype == before.dtype and (np.asarray(after) == before).all()
    assert not list(path.parent.glob(".*")), "a temporary is left"


def test_a_folder_is_mapped_and_a_file_can_be_replaced(tmp_path: Path) -> None:
    made = Traces(**arrays())
    assert isinstance(Traces.load(made.save(tmp_path / "folder")).logits, np.memmap)
    made.save(tmp_path / "made.npz")
    made.cut(1).save(tmp_path / "made.npz")
    assert Traces.load(tmp_path / "made.npz").time_steps == 1


def test_other_programs_can_write_them(tmp_path: Path) -> None:
    np.savez_compressed(
        tmp_path / "theirs.npz",
        logits=np.zeros((2, 3, 4), ">f4"),
        labels=np.array([3, 0], np.uint8),
        meta=json.dumps({"source": "elsewhere"}),
        something_else=np.zeros(3),
    )
    read = Traces.load(tmp_path / "theirs.npz")
    assert read.labels.tolist() == [3, 0] and read.meta == {"source": "elsewhere"}
    assert read.predictions().tolist() == [[0, 0, 0], [0, 0, 0]]


def refused(path: Path, *words: str) -> None:
    with pytest.raises(TracesError) as error:
        Traces.load(path)
    for word in (str(path), *words):
        assert word in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere.npz", "does not exist")


def test_missing_arrays_are_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "made.npz", logits=np.zeros((2, 3, 4)), label=np.zeros(2, int))
    refused(tmp_path / "made.npz", "no array labels", "logits, label")
    (tmp_path / "folder").mkdir()
    refused(tmp_path / "folder", "logits.npy", "nothing")


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    trap = np.array([Trap()], dtype=object)
    np.savez(tmp_path / "made.npz", logits=np.zeros((1, 2, 2)), labels=trap)
    refused(tmp_path / "made.npz", "pickled")
    folder = Traces(**arrays()).save(tmp_path / "folder")
    np.save(folder / "labels.npy", trap)
    with pytest.raises(TracesError, match=r"labels\.npy.*pickled"):
        Traces.load(folder)
    (tmp_path / "raw.npz").write_bytes(pickle.dumps(Trap()))
    refused(tmp_path / "raw.npz")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("keep", [0, 1, 10, 100, 0.5, 0.9, 0.999])
def test_a_truncated_archive_is_named(tmp_path: Path, keep: float) -> None:
    path = Traces(**arrays()).save(tmp_path / "made.npz")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole)) if 0 < keep < 1 else int(keep)])
    refused(path, "damaged")


def test_a_flipped_bit_is_found(tmp_path: Path) -> None:
    path = Traces(**arrays(50)).save(tmp_path / "made.npz")
    whole = bytearray(path.read_bytes())
    whole[500] ^= 1
    path.write_bytes(whole)
    refused(path, "damaged")


def test_a_truncated_array_of_a_folder_is_named(tmp_path: Path) -> None:
    folder = Traces(**arrays()).save(tmp_path / "folder")
    for cut in (0, 20, 150):
        (folder / "logits.npy").write_bytes((folder / "logits.npy").read_bytes()[:cut])
        with pytest.raises(TracesError, match=r"logits\.npy"):
            Traces.load(folder)


def test_other_files_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.zeros((2, 3, 4)))
    refused(tmp_path / "one.npy", "not an archive")
    (tmp_path / "text.npz").write_text("logits, labels")
    refused(tmp_path / "text.npz")


@pytest.mark.parametrize("meta", ["no JSON", "[1, 2]", "3"])
def test_a_meta_that_is_no_object_is_refused(tmp_path: Path, meta: str) -> None:
    np.savez(tmp_path / "made.npz", logits=np.zeros((1, 2, 2)), labels=np.zeros(1, int), meta=meta)
    refused(tmp_path / "made.npz", "meta")


def test_faults_in_a_file_name_the_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "made.npz", logits=logits_with(np.nan, 1, 2, 0), labels=np.zeros(3, int))
    refused(tmp_path / "made.npz", "sample 1 ", "time step 3")


def test_where_traces_cannot_be_saved(tmp_path: Path) -> None:
    made = Traces(**arrays())
    with pytest.raises(TracesError, match=r"\.npz or a folder"):
        made.save(tmp_path / "made.npy")
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").touch()
    with pytest.raises(TracesError, match="is not empty"):
        made.save(tmp_path / "used")
    with pytest.raises(TracesError, match="cannot be written"):
        made.save(tmp_path / "used" / "file" / "made.npz")
    with pytest.raises(TracesError, match="meta"):
        Traces(**arrays(meta={"x": float("nan")})).save(tmp_path / "made.npz")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["used"]


# The arrays and facts that may be there


def test_reference_logits(tmp_path: Path) -> None:
    logits, labels = np.zeros((3, 4, 2), np.float32), np.zeros(3, int)
    made = Traces(logits, labels, reference_logits=np.arange(6.0).reshape(3, 2), meta={"trained_on_calibration": False})
    read = Traces.load(made.save(tmp_path / "made.npz"))
    assert read.reference_logits is not None and read.reference_logits.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert read.trained_on_calibration is False and read.cut(2).reference_logits is read.reference_logits
    assert Traces(logits, labels).reference_logits is None and Traces(logits, labels).trained_on_calibration is None
    with pytest.raises(TracesError, match=r"reference_logits has the shape \(2, 3\).*\(N, C\) = \(3, 2\)"):
        Traces(logits, labels, reference_logits=np.zeros((2, 3)))
    with pytest.raises(TracesError, match=r"reference_logits of sample 2 .*, class 1 is inf"):
        Traces(logits, labels, reference_logits=np.array([[0, 0], [0, 0], [0, np.inf]]))
    with pytest.raises(TracesError, match="reference_logits has the type int64"):
        Traces(logits, labels, reference_logits=np.zeros((3, 2), int))
    with pytest.raises(TracesError, match="trained_on_calibration is 'yes'"):
        Traces(logits, labels, meta={"trained_on_calibration": "yes"})


# Right answers at the edges


def test_the_sum_of_float16_logits_may_exceed_float16() -> None:
    """65504 is the largest float16: two steps of 60000 would sum to infinity, and no infinity is larger than another."""
    logits = np.full((1, 4, 2), 60000, np.float16)
    logits[0, 3] = [60000, 60032]
    made = Traces(logits, np.array([1]))
    assert made.predictions().tolist() == [[0, 0, 0, 1]]
    ((_, accumulated),) = made.accumulated()
    assert accumulated[0, 3].tolist() == [240000, 240032]


def front_points(traces: Traces) -> list[tuple[float, float]]:
    front = exact_front(MaxSoftmax().scores(traces, Smoothing("sum", 1.0)), traces.correct())
    return list(zip(front.accuracy.tolist(), front.mean_steps.tolist(), strict=True))


def test_a_constant_classifier() -> None:
    """All scores are equal: all samples exit at once, or none ever does."""
    made = Traces(np.zeros((4, 3, 2)), np.array([0, 1, 1, 1]))
    assert made.predictions().max() == 0 and made.correct().mean() == 0.25
    assert front_points(made) == [(0.25, 1.0), (0.25, 3.0)]


@pytest.mark.parametrize("right", [True, False])
def test_all_right_at_step_one_and_all_wrong(right: bool) -> None:
    labels = np.arange(6) % 3
    logits = np.repeat(np.eye(3)[(labels + (0 if right else 1)) % 3][:, None], 4, axis=1)
    made = Traces(logits, labels)
    assert made.correct().tolist() == [[right] * 4] * 6
    points = front_points(made)
    assert {accuracy for accuracy, _ in points} == {float(right)}
    assert points[0][1] == 1.0 and points[-1][1] == 4.0


def test_the_smallest_traces() -> None:
    made = Traces(np.array([[[1.0, 2.0]]]), np.array([1]))
    assert made.correct().tolist() == [[True]]
    assert front_points(made) == [(1.0, 1.0)]
