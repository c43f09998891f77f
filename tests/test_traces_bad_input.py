"""Traces from elsewhere and their possible faults: each gives a correct result or a clear error, at once."""

from __future__ import annotations

import io
import json
import os
import random
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.lib import format as npy

from dynconf_core.traces import checks as traces_checks
from dynconf_core.traces import files as traces_files
from dynconf_core.traces.schema import Traces, TracesError

ROOT = Path(__file__).resolve().parent.parent
AT_ONCE = 0.2  # seconds of this process, for a file that declares what it does not hold


def declared(shape: tuple[int, ...], data: bytes = b"", descr: str = "<f4") -> bytes:
    """The bytes of an array: a header with any declarations, followed by any data."""
    stream = io.BytesIO()
    npy.write_array_header_1_0(stream, {"descr": descr, "fortran_order": False, "shape": shape})
    return stream.getvalue() + data


def array_bytes(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def sound() -> dict[str, bytes]:
    return {"logits": array_bytes(np.zeros((3, 4, 2), np.float32)), "labels": array_bytes(np.zeros(3, int))}


def refused(path: Path, *words: str) -> None:
    """Loading `path` is refused at once, with the given words and the path in the message."""
    begun = time.process_time()
    with pytest.raises(TracesError) as error:
        Traces.load(path)
    assert time.process_time() - begun < AT_ONCE
    for word in (str(path), *words):
        assert word in str(error.value)


def write(path: Path, contents: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    """A `.npz` archive, or a folder, with these bytes."""
    if path.suffix == ".npz":
        with zipfile.ZipFile(path, "w", compression) as archive:
            for name, content in contents.items():
                archive.writestr(f"{name}.npy", content)
    else:
        path.mkdir()
        for name, content in contents.items():
            (path / f"{name}.npy").write_bytes(content)
    return path


BOTH = pytest.mark.parametrize("name", ["made.npz", "folder"])


# Files that declare what they do not hold


@BOTH
@pytest.mark.parametrize("shape", [(3, 4, 2), (10**9, 64, 1000), (10**30, 4, 2), (2**63, 2**63, 2)])
def test_a_shape_larger_than_the_file(tmp_path: Path, name: str, shape: tuple[int, ...]) -> None:
    refused(
        write(tmp_path / name, {**sound(), "logits": declared(shape, bytes(40)), "labels": declared((shape[0],), descr="<i8")}),
        "logits",
        str(shape),
        "truncated",
    )


@BOTH
def test_more_bytes_than_declared(tmp_path: Path, name: str) -> None:
    refused(
        write(tmp_path / name, {**sound(), "logits": declared((3, 4, 2), bytes(103))}),
        "logits",
        "(3, 4, 2)",
        "96 bytes, but has 103",
    )


@BOTH
@pytest.mark.parametrize("shape", ["(-1, 4, 2)", "(3, 4, 2.0)", "[3, 4, 2]", "(3, 4, 'x')", "__import__('os').abort()"])
def test_an_impossible_shape(tmp_path: Path, name: str, shape: str) -> None:
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    content = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(96)
    refused(write(tmp_path / name, {**sound(), "logits": content}), "damaged")


@BOTH
def test_a_header_without_end(tmp_path: Path, name: str) -> None:
    """numpy parses headers as literals, which would be slow for a long one: it refuses them."""
    content = b"\x93NUMPY\x02\x00" + (10**6).to_bytes(4, "little") + b"(" * 10**6
    refused(write(tmp_path / name, {**sound(), "logits": content}), "damaged")


@BOTH
def test_files_that_are_not_arrays(tmp_path: Path, name: str) -> None:
    refused(write(tmp_path / name, {**sound(), "labels": b"0 1 2 0 1"}), "labels", "not a numpy array")
    (tmp_path / "more").mkdir()
    refused(
        write(tmp_path / "more" / name, {**sound(), "logits": b"\x93NUMPY\x09\x00" + bytes(99)}), "logits", "unknown version"
    )


@BOTH
@pytest.mark.parametrize("optional", [False, True])
def test_objects_are_refused_by_their_header(tmp_path: Path, name: str, optional: bool) -> None:
    which = "spikes" if optional else "logits"
    refused(
        write(tmp_path / name, {**sound(), which: declared((3, 4, 2), b"cos\nabort\n(tR.", descr="|O")}),
        which,
        "pickled objects, which are never loaded",
    )


# Archives that inflate


def zeros_archive(path: Path, megabytes: int) -> Path:
    """A valid archive of zeros, a thousandth of the size that it declares."""
    samples = megabytes * 2**20 // 32
    return write(
        path,
        {
            "logits": declared((samples, 4, 2), bytes(samples * 32)),
            "labels": declared((samples,), bytes(samples), "|u1"),
        },
        zipfile.ZIP_DEFLATED,
    )


def test_a_decompression_bomb_is_not_inflated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces_files, "free_memory", lambda: 30 * 2**20)
    monkeypatch.setattr(npy, "read_array", lambda *_, **__: pytest.fail("inflated"))
    path = zeros_archive(tmp_path / "bomb.npz", 32)
    assert path.stat().st_size < 2**16
    refused(path, "0.0346 GB of arrays", "0.0315 GB of free memory", "folder of .npy files")


def test_the_same_archive_is_read_where_there_is_memory(tmp_path: Path) -> None:
    assert Traces.load(zeros_archive(tmp_path / "made.npz", 2)).samples == 2 * 2**20 // 32


def test_a_member_cannot_declare_more_than_it_could_inflate_to(tmp_path: Path) -> None:
    shape = (2**34, 4, 2)
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("logits.npy", declared(shape, bytes(10**6)))
        archive.writestr("labels.npy", declared(shape[:1], descr="<i8"))
        archive.infolist()[0].file_size = 32 * 2**34
    refused(tmp_path / "bomb.npz", "logits", "declares 549755813888 bytes", "too many for its")


def test_the_free_memory_is_known_here() -> None:
    free = traces_files.free_memory()
    assert free is not None and 2**20 < free < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_unknown_arrays_in_an_archive_are_not_inflated(tmp_path: Path) -> None:
    path = write(tmp_path / "made.npz", {**sound(), "movie": bytes(10**7)}, zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.infolist()[2].file_size = 2**62
        archive.writestr("readme.txt", "words")
    assert Traces.load(path).samples == 3


def test_meta_is_small_text(tmp_path: Path) -> None:
    contents = {**sound(), "meta": declared((1,), bytes(4 * 2**25), f"<U{2**25}")}
    refused(write(tmp_path / "made.npz", contents, zipfile.ZIP_DEFLATED), "meta", "JSON text")
    refused(write(tmp_path / "folder", {**sound(), "meta": array_bytes(np.zeros(3))}), "meta", "JSON text", "float64")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_meta_of_what_is_no_text(tmp_path: Path) -> None:
    """A number beyond the last character, and the bounds of JSON itself."""
    beyond = declared((), (0x7FFFFFFF).to_bytes(4, "little"), descr="<U1")
    deep, twice = (array_bytes(np.array(text)) for text in ("[" * 10**5, '{"a": 1, "a": 2}'))
    for number, (meta, words) in enumerate(((beyond, "meta must be"), (deep, "nested more than"), (twice, "stands twice"))):
        refused(write(tmp_path / f"{number}.npz", {**sound(), "meta": meta}), words)


def test_two_arrays_of_the_same_name(tmp_path: Path) -> None:
    with zipfile.ZipFile(write(tmp_path / "made.npz", sound()), "a") as archive:
        archive.writestr("labels.npy", sound()["labels"])
    refused(tmp_path / "made.npz", "of the same name")


def test_compressions_that_numpy_does_not_write(tmp_path: Path) -> None:
    refused(write(tmp_path / "made.npz", sound(), zipfile.ZIP_LZMA), "numpy.savez")


def test_forms_are_refused_before_anything_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(npy, "read_array", lambda *_, **__: pytest.fail("read"))
    refused(write(tmp_path / "made.npz", {**sound(), "labels": array_bytes(np.zeros(4, int))}), "labels", "(4,)", "3 samples")


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_any_damage_is_an_error_or_harmless(tmp_path: Path, compression: int) -> None:
    """Bytes flipped, removed and duplicated anywhere never give a different result or another exception."""
    rng = np.random.default_rng(5)
    logits = rng.normal(size=(3, 4, 2))
    contents = {"logits": array_bytes(logits), "labels": array_bytes(np.array([0, 1, 1])), "meta": array_bytes(np.array("{}"))}
    whole = write(tmp_path / "made.npz", contents, compression).read_bytes()
    chance, refusals = random.Random(5), 0
    for number in range(600):
        at, length = chance.randrange(len(whole)), chance.choice([1, 1, 4, 40])
        changed = bytes(chance.randrange(256) for _ in range(length))
        middle = (changed, b"", whole[at : at + length] * 2)[number % 3]
        (tmp_path / "made.npz").write_bytes(whole[:at] + middle + whole[at + length :])
        try:
            read = Traces.load(tmp_path / "made.npz")
        except TracesError:
            refusals += 1
        else:
            assert (read.logits == logits).all() and read.labels.tolist() == [0, 1, 1]
    assert refusals > 500


def test_damaged_headers_of_a_folder(tmp_path: Path) -> None:
    path = write(tmp_path / "folder", sound()) / "logits.npy"
    whole, chance, refusals = path.read_bytes(), random.Random(6), 0
    for _ in range(300):
        at = chance.randrange(128)
        path.write_bytes(whole[:at] + bytes([chance.randrange(256)]) + whole[at + 1 :])
        try:
            Traces.load(tmp_path / "folder")
        except TracesError as error:
            assert "logits" in str(error)
            refusals += 1
    assert refusals > 100


# Labels


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.array([0.5, 1.0, 1.0]), "sample 0 .* is 0.5; a class index is a whole number from 0 to 1"),
        (np.array([0.0, 1.0, 2.0]), "sample 2 .* is 2; with 2 classes in logits it must be from 0 to 1"),
        (np.array(["0", "1", "1"]), "type <U1; save it as integers"),
        (np.array([0, 1]), r"shape \(2,\), but logits holds 3 samples"),
        (np.array([0, 1, 1, 0]), r"shape \(4,\), but logits holds 3 samples"),
        (np.array([[0, 1], [1, 1], [0, 1]]), r"sample 1 .* are \[1, 1\], not one-hot"),
        (np.array([[[0], [1], [1]]]), r"shape \(1, 3, 1\); it must be \(N,\)"),
        (np.array(1), r"shape \(\); it must be \(N,\)"),
        (np.array([1, 2, 3]), "sample 1 .* is 2; with 2 classes in logits it must be from 0 to 1"),
    ],
)
def test_labels(tmp_path: Path, labels: np.ndarray, words: str) -> None:
    logits = np.zeros((3, 4, 2), np.float16)
    with pytest.raises(TracesError, match=words):
        Traces(logits, labels)
    np.savez(tmp_path / "made.npz", logits=logits, labels=labels)
    with pytest.raises(TracesError, match=rf"made\.npz: labels .*{words}"):
        Traces.load(tmp_path / "made.npz")


# Values and types


@pytest.mark.parametrize("name", ["ann_logits", "reference_logits", "spikes", "synaptic_operations"])
def test_every_fault_is_found_piece_by_piece(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces_checks, "PIECE_ELEMENTS", 7)
    array = np.zeros((9, 4 if name in ("spikes", "synaptic_operations") else 2))
    array[8, 1] = np.nan
    with pytest.raises(TracesError, match=rf"{name} of sample 8 \(from 0\), .* is nan"):
        Traces(np.zeros((9, 4, 2)), np.zeros(9, int), **{name: array})


@pytest.mark.skipif(np.dtype(np.longdouble).itemsize == 8, reason="long doubles are doubles here")
@pytest.mark.parametrize("name", ["logits", "ann_logits"])
def test_long_doubles_are_refused(name: str) -> None:
    arrays: dict[str, Any] = {"logits": np.zeros((3, 4, 2)), "labels": np.zeros(3, int), "ann_logits": np.zeros((3, 2))}
    with pytest.raises(TracesError, match=rf"{name} has the type .*; save it as float16, float32 or float64"):
        Traces(**{**arrays, name: arrays[name].astype(np.longdouble)})


# Two million samples


WRITER = """
import sys
import numpy as np
samples = 2_000_000
logits = np.lib.format.open_memmap(sys.argv[1] + "/logits.npy", "w+", np.float16, (samples, 4, 2))
labels = np.lib.format.open_memmap(sys.argv[1] + "/labels.npy", "w+", np.int64, (samples,))
for start in range(0, samples, 100_000):
    place = np.arange(start, start + 100_000)
    labels[place] = place % 2
    # Sample i is wrong before step 1 + i % 4 and right from there on.
    for step in range(4):
        sign = np.where(step + 1 > place % 4, 1, -1) * 4.0**step
        logits[place, step, 0] = np.where(place % 2 == 0, sign, -sign)
"""
READER = """
import json, resource, sys
import numpy as np
from dynconf_core.traces.schema import Traces

def peak():
    # The high-water mark of this program alone; getrusage also counts the process that it was forked from.
    try:
        lines = open("/proc/self/status").read().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("VmHWM")))
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

before = peak()
traces = Traces.load(sys.argv[1])
assert isinstance(traces.logits, np.memmap)
right = traces.correct()
print(json.dumps({"accuracy": right.mean(axis=0).tolist(), "mebibytes": (peak() - before) / 1024}))
"""
MEMORY = 160  # mebibytes above the interpreter's own: 61 of mapped files, 8 of answers, and some pieces of 16


def test_two_million_samples_are_read_in_pieces(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    outputs = []
    for code in (WRITER, READER):
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)],
            capture_output=True,
            text=True,
            env=environment,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout)
    found = json.loads(outputs[1])
    assert found["accuracy"] == [0.25, 0.5, 0.75, 1.0]
    assert found["mebibytes"] < MEMORY


def test_time_steps_first_are_recognised() -> None:
    with pytest.raises(TracesError, match=r"logits\.transpose\(1, 0, 2\)"):
        Traces(np.zeros((10, 400, 10), dtype=np.float32), np.zeros(400, dtype=np.int64))


def test_tensors_are_taken_as_arrays() -> None:
    logits, labels = torch.randn(3, 2, 4, requires_grad=True), torch.tensor([0, 1, 3])
    traces = Traces(logits, labels)  # type: ignore[arg-type]
    np.testing.assert_array_equal(traces.logits, logits.detach().numpy())
    assert traces.labels.tolist() == [0, 1, 3]
