"""Fuzzing of every reader of files: mutations of valid files are loaded or refused by an ``InputError``, nothing else.

No mutation may run code, write a file, open a connection, take much memory or long. As a script it goes on for a given time,
and says how many inputs each reader was given:

    python tests/fuzz.py --seconds 600 [--reader NAME] [--seed 0]
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import random
import resource
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from result_cases import failed_setting, run_result, setting_result
from spiking_cases import RandomNetwork, gaussian_images
from torch import nn

from dynconf_core.confidence.smoothing import Smoothing
from dynconf_core.conversion.convert import convert
from dynconf_core.conversion.file import load_snn, save_snn
from dynconf_core.data.images import Normalisation
from dynconf_core.errors import InputError
from dynconf_core.exchange.from_nir import from_nir
from dynconf_core.exchange.nir_file import write_nir
from dynconf_core.exchange.to_nir import to_nir
from dynconf_core.exit.rule import Rule
from dynconf_core.networks.checkpoint import load_checkpoint, save_checkpoint
from dynconf_core.results.files import csv_text, over_seeds
from dynconf_core.results.page import run_page
from dynconf_core.results.records import json_text, read, to_json
from dynconf_core.results.types import OverSeeds, RunResult
from dynconf_core.serving import ImageFacts
from dynconf_core.store.artefacts import Store
from dynconf_core.store.keys import key_of, stage_key
from dynconf_core.traces.schema import Traces

SLOW = 20.0
"""Seconds of this process for one input."""
MEMORY = 600_000
"""Kilobytes that all inputs together may add to the largest memory of the process."""
ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, -(2**63), 2**64, 10**19, 0.5, -0.0, 1e308, float("inf"), float("nan"), "", "a",
    "\0", "../x", "/etc/passwd", "é" * 200, "a" * 10_000, "inf", "nan", "1", [], {}, [[]], [1, 2], {"a": 1}, {"": None}, 
    [None] * 100, "\ud800", "[red]",
)  # fmt: skip
SIZES = (b"\xff" * 4, b"\0" * 4, b"\xff" * 8, b"\x7f\xff\xff\xff", b"\0\0\0\x80", (2**40).to_bytes(8, "little"))
ACTS = ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "socket.connect", "os.mkdir", "os.remove")
"""Python's audit events that no reader may cause."""
Make = Callable[[random.Random], bytes]


# Mutations


def of_bytes(data: bytes, chance: random.Random) -> bytes:
    """Some bytes changed, inserted, removed, repeated or cut off."""
    found = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 4, 16))):
        place = chance.randrange(len(found) + 1)
        length = chance.choice((1, 1, 2, 4, 8, 64, 1000))
        match chance.randrange(7):
            case 0:
                found[place : place + 1] = bytes([chance.randrange(256)])
            case 1:
                found[place:place] = chance.randbytes(length)
            case 2:
                del found[place : place + length]
            case 3:
                found[place:place] = found[place : place + length] * chance.choice((1, 10))
            case 4:
                del found[place:]
            case 5:
                size = chance.choice(SIZES)
                found[place : place + len(size)] = size
            case 6:
                other = chance.randrange(len(found) + 1)
                found[place : place + length] = found[other : other + length]
    return bytes(found)


def of_structure(value: Any, chance: random.Random, odd: Callable[[random.Random], Any]) -> Any:
    """A copy in which something is replaced, left out, added or wrapped."""
    if chance.random() < 0.02:
        return odd(chance)
    if isinstance(value, dict) and value:
        changed = dict(value)
        name = chance.choice(list(changed))
        match chance.randrange(10):
            case 0:
                del changed[name]
            case 1:
                changed[chance.choice(("x", "", "name", "schema", 3, None))] = odd(chance)
            case 2:
                changed[name] = odd(chance)
            case 3:
                changed[name] = changed[chance.choice(list(changed))]
            case _:
                changed[name] = of_structure(changed[name], chance, odd)
        return changed
    if isinstance(value, list | tuple) and value:
        listed = list(value)
        place = chance.randrange(len(listed))
        match chance.randrange(8):
            case 0:
                del listed[place]
            case 1:
                listed.insert(place, listed[chance.randrange(len(listed))])
            case 2:
                listed[place] = odd(chance)
            case _:
                listed[place] = of_structure(listed[place], chance, odd)
        return type(value)(listed) if isinstance(value, list | tuple) and type(value) in (list, tuple) else listed
    return odd(chance)


def of_json(content: Any, chance: random.Random) -> bytes:
    """A JSON text of a changed structure, or with what JSON does not have."""
    changed = content
    for _ in range(chance.choice((1, 1, 2, 5))):
        changed = of_structure(changed, chance, lambda chance: chance.choice(ODD))
    with suppress(TypeError, ValueError):
        text = json.dumps(changed)
        match chance.randrange(12):
            case 0:
                text = text.replace(":", ": " + "[" * 10**5, 1)
            case 1:
                text = text.replace("0", "9" * 400, 1)
            case 2:
                text = text.replace("{", '{"name": 1, "name": 2, ', 1)
            case 3:
                return text.encode(chance.choice(("utf-16", "utf-8-sig", "utf-32", "latin-1")), "replace")
            case 4:
                text = text.replace("0.", "1e999", 1)
        return text.encode()
    return b"{}"


def rezipped(data: bytes, chance: random.Random, change: Callable[[str, bytes], bytes]) -> bytes:
    """An archive whose checksums are right again after ``change`` of a member; others are left out, repeated or renamed."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(made, "w") as new:
        names = old.namelist()
        chosen = chance.choice(names + 4 * [name for name in names if name.endswith(("data.pkl", "meta.npy"))])
        for name in names:
            content = change(name, old.read(name)) if name == chosen else old.read(name)
            kind = zipfile.ZIP_DEFLATED if chance.random() < 0.05 else zipfile.ZIP_STORED
            if chance.random() > 0.03:
                new.writestr(name if chance.random() > 0.03 else name + "x", content, kind)
            if chance.random() < 0.02 and name not in new.namelist():
                new.writestr(name, content, kind)
    return made.getvalue()


class Command:
    """Its unpickling would run a command."""

    def __init__(self, chance: random.Random) -> None:
        self.call = chance.choice(
            [
                (os.system, ("true",)), (eval, ("1+1",)), (os.mkdir, ("made",)), (open, ("made", "w")), (__import__, ("this",)),
                (torch.load, ("x",)), (torch._utils._rebuild_tensor, (None, 0, (2**40,), (1,))), (bytearray, (2**31,)),
                (torch._utils._rebuild_meta_tensor_no_storage, (torch.float32, (2**50,), (1,), False)),
            ]
        )  # fmt: skip

    def __reduce__(self) -> Any:
        return self.call


def odd_in_torch(chance: random.Random) -> Any:
    """A value that torch.save can write, tensors of all kinds among them."""
    match chance.randrange(12):
        case 0:
            return torch.zeros(1).expand(chance.choice((2, 2**20)), chance.choice((3, 2**20)))
        case 1:
            return torch.zeros(2, 3).to_sparse()
        case 2:
            return torch.zeros(2, 3, device="meta")
        case 3:
            shape = chance.choice([(), (1,), (2, 3), (4, 3, 3, 3), (0,)])
            return torch.full(shape, chance.choice([0.0, float("nan"), float("inf")]))
        case 4:
            return torch.zeros(3, dtype=chance.choice([torch.int8, torch.bool, torch.complex64, torch.float64, torch.bfloat16]))
        case 5:
            return Command(chance)
        case 6:
            many: list[Any] = []
            for _ in range(chance.choice((5, 40))):
                many = [many, many]
            return many
        case _:
            return chance.choice(ODD)


def of_torch(data: bytes, chance: random.Random) -> bytes:
    """A file of torch.save with a changed content, and perhaps in the old format or with other bytes."""
    if chance.random() < 0.4:
        return rezipped(data, chance, lambda name, content: of_bytes(content, chance))
    content = torch.load(io.BytesIO(data), weights_only=True)
    for _ in range(chance.choice((1, 1, 2, 4))):
        content = of_structure(content, chance, odd_in_torch)
    made = io.BytesIO()
    try:
        torch.save(content, made, _use_new_zipfile_serialization=chance.random() > 0.1)
    except Exception:  # it cannot be written, such as half a character
        return b""
    return made.getvalue()


# Readers


@dataclass(frozen=True)
class Reader:
    """What is fuzzed: the name of its file, mutated contents, and what is done with the file."""

    file: str
    make: Make
    use: Callable[[Path], Any]


def json_reader(file: str, content: Any, use: Callable[[Path], Any]) -> Reader:
    text = json.dumps(content).encode()
    return Reader(file, lambda chance: of_bytes(text, chance) if chance.random() < 0.4 else of_json(content, chance), use)


def used_traces(path: Path) -> None:
    from dynconf_tasks.analyse import described

    traces = Traces.load(path)
    described(traces)
    traces.predictions()


def used_rule(path: Path) -> None:
    Rule.load(path).exit_steps(_small())


def used_facts(path: Path) -> None:
    json.dumps(ImageFacts.load(path).as_json())


def used_run(path: Path) -> None:
    result = read(RunResult, path)
    json_text(to_json(result))
    csv_text(result)
    run_page(result, {})


def used_snn(path: Path) -> None:
    snn = load_snn(path)
    if max(int(np.prod(node.shape)) for node in snn.graph.nodes) < 10**5:
        snn(gaussian_images(2, 0), 2)


def used_nir(path: Path) -> None:
    snn = from_nir(path)
    if max(int(np.prod(node.shape)) for node in snn.graph.nodes) < 10**5 and snn.graph.input.shape == (3, 8, 8):
        snn(gaussian_images(2, 0), 2)


def used_artefact(path: Path) -> None:
    """The manifest, put into the store of an artefact whose files are whole; a stranger has signed it anew."""
    key = stage_key("train", {}, {}, "code")
    store = _store(path.parent)
    manifest = path.parent / "store" / key.stage / key.key[:2] / key.key / "manifest.json"
    whole = manifest.read_bytes()
    try:
        manifest.write_bytes(_signed(path.read_bytes()))
        store.manifests("train")
        if store.get(key) is None:
            raise InputError("the artefact is treated as missing")
    finally:
        manifest.write_bytes(whole)


@cache
def _store(folder: Path) -> Store:
    """A store with one artefact."""
    store, watched = Store(folder / "store"), watch()
    watched.on = False
    with store.create(stage_key("train", {}, {}, "code"), {"facts": {}}) as files:
        (files / "weights").write_text("x")
    watched.on = True
    return store


def _signed(text: bytes) -> bytes:
    try:
        content = json.loads(text)
        content.pop("checksum", None)
        return json.dumps({**content, "checksum": key_of(content)}).encode()
    except (ValueError, TypeError, AttributeError, RecursionError, OverflowError):
        return text


@cache
def _small() -> Traces:
    chance = np.random.default_rng(0)
    logits = chance.normal(size=(6, 3, 4)).astype(np.float32)
    meta = {"source": "x", "neurons": 3, "multiply_accumulates": {"once": 1, "every_step": 2, "ann": 3}}
    return Traces(logits, chance.integers(0, 4, 6), spikes=chance.integers(0, 9, (6, 3)), meta=meta)


def _network() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def _saved(save: Callable[[Path], Any]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder) / "made.npz")
        return (Path(folder) / "made.npz").read_bytes()


def _manifest() -> Any:
    key = stage_key("train", {}, {}, "code")
    entry = {"sha256": "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881", "size": 1}
    return {
        "schema": 1, "key": key.key, "parts": dict(key.parts), "digest": "0" * 64, "files": {"weights": entry},
        "created": "2026-01-01T00:00:00", "provenance": {"facts": {}},
    }  # fmt: skip


def readers() -> dict[str, Reader]:
    """Every reader by name."""
    rule = Rule("max_softmax", Smoothing("power", 2.0, 0.5), 1.0).to_json()
    facts = ImageFacts(8, Normalisation((0.5, 0.4, 0.3), (0.2, 0.2, 0.3)), ("cat", "dog"), {"setting": "one", "seed": 0})
    run = run_result(setting_result("one"), failed_setting("two", "train: x"))
    plain = _saved(_small().save)
    weights = _saved(lambda path: save_checkpoint(_network(), {"seed": 0, "data": {"split": [1, 2]}}, path))
    converted = convert(RandomNetwork(2, "qcfs", dyadic=False), gaussian_images(2, 0), time_steps=4)
    snn = _saved(lambda path: save_snn(converted, path))

    def of_traces(chance: random.Random) -> bytes:
        if chance.random() < 0.3:
            return of_bytes(plain, chance)
        return rezipped(plain, chance, lambda name, content: _of_array(name, content, chance))

    def torch_bytes(data: bytes) -> Make:
        return lambda chance: of_bytes(data, chance) if chance.random() < 0.2 else of_torch(data, chance)

    return {
        "rule.json": json_reader("rule.json", rule, used_rule),
        "input.json": json_reader("input.json", facts.as_json(), used_facts),
        "results.json": json_reader("results.json", to_json(run), used_run),
        "over_seeds.json": json_reader(
            "over_seeds.json", to_json(over_seeds([run_result(setting_result("one"))] * 2)), lambda path: read(OverSeeds, path)
        ),
        "manifest.json": json_reader("manifest.json", _manifest(), used_artefact),
        "traces": Reader("traces.npz", of_traces, used_traces),
        "checkpoint": Reader("checkpoint.pt", torch_bytes(weights), lambda path: load_checkpoint(_network(), path)),
        "snn": Reader("snn.pt", torch_bytes(snn), used_snn),
        "nir": Reader("snn.nir", of_nir, used_nir),
    }


@cache
def _nir() -> bytes:
    network = RandomNetwork(2, "qcfs", dyadic=False, blocks=("option_a", "average_pool"))
    converted = convert(network, gaussian_images(2, 0), time_steps=4)
    return _saved(lambda path: write_nir(to_nir(converted), path))


def of_nir(chance: random.Random) -> bytes:
    """A file of NIR with some bytes changed, or with arrays, groups and types changed by HDF5 itself."""
    import h5py

    if chance.random() < 0.2:
        return of_bytes(_nir(), chance)
    stream = io.BytesIO(_nir())
    with h5py.File(stream, "r+") as file:
        for _ in range(chance.choice((1, 1, 2, 4))):
            found: list[str] = []
            file.visit(found.append)
            if not found:
                break
            name = chance.choice(found)
            outer, last = file[name].parent, name.rpartition("/")[2]
            small = isinstance(file[name], h5py.Dataset) and file[name].nbytes < 10**6
            value = np.asarray(file[name][()]) if small else np.zeros((2, 3))
            del file[name]
            with suppress(TypeError, ValueError, OSError, LookupError):
                match chance.randrange(6):
                    case 0:
                        outer[last] = chance.choice(ODD)
                    case 1:
                        outer[last] = value.reshape(-1)[: chance.randrange(5)]
                    case 2:
                        outer[last] = chance.choice([value.T, value * 1e30, -value, value + 0.5, value[None]])
                    case 3:
                        outer[last] = h5py.SoftLink(chance.choice(["/node", "/nowhere"]))
                    case 4:
                        outer[last] = file[chance.choice(["node", "node/nodes"])]
                    case 5:
                        outer.create_dataset(last, (chance.choice((2, 10**9, 2**40)),), "f8", chunks=True)
    return stream.getvalue()


def _of_array(name: str, content: bytes, chance: random.Random) -> bytes:
    """The bytes of an array changed, or another array."""
    if chance.random() < 0.4:
        return of_bytes(content, chance)
    stream = io.BytesIO()
    if name == "meta.npy" and chance.random() < 0.8:
        np.save(stream, np.array(of_json(_small().meta, chance).decode("utf-8", "replace")))
        return stream.getvalue()
    array = np.load(io.BytesIO(content))
    if array.dtype.kind == "U":
        array = np.zeros(2)
    match chance.randrange(6):
        case 0:
            array = np.array([object()] * 3, dtype=object)
        case 1:
            array = np.asfortranarray(array)
        case 2:
            array = array.astype(chance.choice(["<f8", ">f4", "<i1", "?", "<c8", "<U3", "<M8[s]", "V8", "<f2"]))
        case 3:
            array = array.reshape(-1)
        case 4:
            array = np.zeros((1, 1, 1))
        case 5:
            array = array * np.nan if array.dtype.kind == "f" else array - 10
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


# One input


class Watch:
    """Notices what a reader may not do: run a command, write a file, open a connection."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self.on = False
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        flags = arguments[2] if event == "open" and isinstance(arguments[2], int) else 0
        writes = bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)) and "/store/" not in str(arguments[0])
        if writes or (event in ACTS and "/store" not in str(arguments[0])):
            self.found.append(f"{event} {arguments!r}"[:200])


WATCH: list[Watch] = []


def watch() -> Watch:
    """The one of this process: audit hooks cannot be removed."""
    if not WATCH:
        WATCH.append(Watch())
    return WATCH[0]


def tried(reader: Reader, seed: int, folder: Path) -> str:
    """Give a reader the input of this seed; returns "loaded" or "refused".

    Raises:
        AssertionError: if it did anything else.
    """
    path = folder / reader.file
    path.write_bytes(reader.make(random.Random(seed)))
    before, watched, begun = sorted(folder.iterdir()), watch(), time.process_time()
    watched.found.clear()
    watched.on = True
    try:
        reader.use(path)
        outcome = "loaded"
    except InputError as error:
        outcome = "refused"
        assert str(error), "an error says what is wrong"
    finally:
        watched.on = False
    assert not watched.found, watched.found
    assert time.process_time() - begun < SLOW, f"it took {time.process_time() - begun:.1f} s"
    assert {*folder.iterdir()} - {*before} <= {folder / "store"}, sorted(folder.iterdir())
    return outcome


def main() -> None:
    """Fuzz all readers in turn, and print what came of it."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--reader", choices=(*readers(),), action="append")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    chosen = {name: reader for name, reader in readers().items() if not given.reader or name in given.reader}
    counts: Counter[tuple[str, str]] = Counter()
    faults: dict[str, int] = {}
    start, seed = time.monotonic(), given.seed
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory() as folder:
        while time.monotonic() - start < given.seconds:
            for name, reader in chosen.items():
                try:
                    counts[name, tried(reader, seed, Path(folder))] += 1
                except BaseException as error:
                    if isinstance(error, KeyboardInterrupt):
                        raise
                    counts[name, "FAULT"] += 1
                    text = f"{name}: {type(error).__name__}: {str(error)[:200]}"
                    if faults.setdefault(text, seed) == seed:
                        print(f"seed {seed}, {text}", flush=True)
            seed += 1
    for name in chosen:
        shown = {outcome: counts[name, outcome] for outcome in ("loaded", "refused", "FAULT")}
        print(f"{name:<16} {sum(shown.values()):>8} inputs: {shown}")
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory
    print(f"{time.monotonic() - start:.0f} s, seeds {given.seed} to {seed - 1}, memory grew by {grown / 1024:.0f} MiB")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
