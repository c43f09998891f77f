"""Checkpoints and SNN files from somebody else: refused at once with a clear error; no code is run and no memory is taken."""

from __future__ import annotations

import io
import os
import pickle
import resource
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from spiking_cases import RandomNetwork, gaussian_images
from torch import nn

from dynconf_core.conversion.convert import convert
from dynconf_core.conversion.file import load_snn, save_snn
from dynconf_core.errors import InputError
from dynconf_core.networks.checkpoint import load_checkpoint, read

HUGE = 2**42
"""Elements: 16 TiB as float32."""


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The content of a valid file."""
    path = tmp_path_factory.mktemp("snn") / "snn.pt"
    save_snn(convert(RandomNetwork(2, "qcfs", dyadic=False), gaussian_images(2, 0), time_steps=4), path)
    found: dict[str, Any] = torch.load(path, weights_only=True)
    return found


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    """No test may take more than 300 MB for good or for a moment."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000


Change = Callable[[dict[str, Any]], None]


def first(content: dict[str, Any], kind: str) -> dict[str, Any]:
    return next(entry for entry in content["graph"] if entry["kind"] == kind)


def weight(tensor: Any) -> Change:
    def change(content: dict[str, Any]) -> None:
        entry = first(content, "convolution")
        entry["tensors"]["weight"] = tensor(entry["tensors"]["weight"]) if callable(tensor) else tensor

    return change


def setting(kind: str, name: str, value: Any) -> Change:
    return lambda content: first(content, kind)["settings"].update({name: value})


def field(kind: str, name: str, value: Any) -> Change:
    return lambda content: first(content, kind).update({name: value})


def top(name: str, value: Any) -> Change:
    return lambda content: content.update({name: value})


def spoiled(value: float) -> Callable[[Any], Any]:
    def change(tensor: Any) -> Any:
        tensor = tensor.clone()
        tensor[0, 0, 0, 0] = value
        return tensor

    return change


def cycle(content: dict[str, Any]) -> None:
    one = first(content, "convolution")
    one["inputs"] = [next(entry["name"] for entry in content["graph"] if entry["inputs"] == [one["name"]])]


def swap(content: dict[str, Any]) -> None:
    content["graph"][1], content["graph"][2] = content["graph"][2], content["graph"][1]


def twice(content: dict[str, Any]) -> None:
    content["graph"][2]["name"] = content["graph"][1]["name"]


def many_times(content: dict[str, Any]) -> None:
    """Lists that hold each other: 2^60 values in a few hundred bytes."""
    value: list[Any] = []
    for _ in range(60):
        value = [value, value]
    content["facts"] = {"a": value}


def wide(content: dict[str, Any]) -> None:
    """A list of one list: 7 000 times 7 000 values."""
    content["facts"] = {"a": [[None] * 7000] * 7000}


def deep(content: dict[str, Any]) -> None:
    value: list[Any] = []
    for _ in range(300):
        value = [value]
    content["facts"] = {"a": value}


def shared(content: dict[str, Any]) -> None:
    """Every layer with the same large weights: small on disk, large as buffers."""
    large = torch.zeros(2**20)
    for entry in content["graph"]:
        entry["tensors"] = {name: large for name in entry["tensors"]}


HOSTILE: dict[str, tuple[Change, str]] = {
    "expanded": (weight(lambda tensor: torch.zeros(1).expand(tensor.shape)), "larger than its data in the file"),
    "expanded to terabytes": (weight(torch.zeros(1).expand(2**21, 2**21)), "larger than its data"),
    "sparse": (weight(lambda tensor: tensor.to_sparse()), "is sparse"),
    "sparse and huge": (
        weight(torch.sparse_coo_tensor(torch.zeros(1, 1, dtype=torch.int64), torch.ones(1), (HUGE,))),
        "is sparse",
    ),
    "without data": (weight(lambda tensor: tensor.to("meta")), "has no data"),
    "quantised": (weight(lambda tensor: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8)), "quantised"),
    "complex": (weight(lambda tensor: tensor.to(torch.complex64)), "complex64, not of floating-point"),
    "whole numbers": (weight(lambda tensor: tensor.to(torch.int32)), "int32, not of floating-point"),
    "NaN": (weight(spoiled(float("nan"))), "holds NaN or infinite"),
    "infinite": (weight(spoiled(float("inf"))), "holds NaN or infinite"),
    "no tensor": (weight(3), "is not a complete converted network"),
    "another shape": (weight(lambda tensor: tensor[:, :1]), "cannot be computed"),
    "another rank": (weight(lambda tensor: tensor.flatten().clone()), "cannot be computed"),
    "no weight": (field("convolution", "tensors", {}), "has the tensors"),
    "a further tensor": (lambda content: first(content, "neurons")["tensors"].update(x=torch.zeros(1)), "has the tensors"),
    "initial of another length": (
        lambda content: first(content, "neurons")["tensors"].update(initial=torch.zeros(7)),
        r"has initial of the shape \(7,\)",
    ),
    "shared": (shared, "larger than its data|not a complete"),
    "shape": (field("convolution", "shape", [HUGE, 1, 1]), "has the shape"),
    "shape of text": (field("convolution", "shape", ["a"]), "has the shape"),
    "negative shape": (field("convolution", "shape", [-1, 8, 8]), "has the shape"),
    "image of gigabytes": (field("input", "shape", [3, 2**20, 2**20]), "more than"),
    "unknown kind": (field("convolution", "kind", "exec"), "unknown kind 'exec'"),
    "kind no text": (field("convolution", "kind", ["x"]), "unknown kind"),
    "an activation": (field("neurons", "kind", "activation"), "unknown kind 'activation'"),
    "no name": (field("convolution", "name", ""), "has no name"),
    "name no text": (field("convolution", "name", 3), "has no name"),
    "cycle": (cycle, "a cycle, or a node that is missing"),
    "order": (swap, "a cycle, or a node that is missing"),
    "two of a name": (twice, "has the name of another one"),
    "second input": (field("convolution", "kind", "input"), "is a second input"),
    "no input": (lambda content: content["graph"].pop(0), "does not begin with an input"),
    "no logits": (lambda content: content.update(graph=content["graph"][:3]), "not in logits"),
    "stride 0": (setting("convolution", "stride", (0, 0)), "stride = "),
    "stride of text": (setting("convolution", "stride", "ab"), "stride = "),
    "dilation": (setting("convolution", "dilation", (2**40, 1)), "dilation = "),
    "padding": (setting("convolution", "padding", (2**30, 2**30)), "but its inputs give|more than"),
    "groups": (setting("convolution", "groups", 7), "cannot be computed"),
    "bits": (setting("convolution", "bits", 10**6), "bits = "),
    "setting": (setting("convolution", "code", "import os"), "has the settings"),
    "levels": (setting("neurons", "levels", "many"), "levels = "),
    "inputs": (field("convolution", "inputs", []), "has 0 inputs"),
    "inputs no names": (field("convolution", "inputs", [[1]]), "a node that is missing"),
    "settings no mapping": (field("convolution", "settings", 3), "is not a complete converted network"),
    "tensors no mapping": (field("convolution", "tensors", [1]), "is not a complete converted network"),
    "graph no list": (top("graph", 3), "is not a complete converted network"),
    "limits": (top("limits", {"image": "x", "time_steps": None}), "limit of the image"),
    "limits no number": (top("limits", {"image": float("nan"), "time_steps": None}), "limit of the image"),
    "time steps": (top("limits", {"image": None, "time_steps": 0}), "limit of the time steps"),
    "facts": (top("facts", 3), "is not a complete converted network"),
    "facts hold a tensor": (top("facts", {"a": torch.zeros(2)}), "is not a complete converted network"),
    "many times": (many_times, "more than 1000000 values"),
    "wide": (wide, "more than 1000000 values"),
    "deep": (deep, "nested more than"),
    "neurons": (top("neurons", {"model": "signed", "levels": "x"}), "levels='x'"),
    "unknown neurons": (top("neurons", {"model": "os:system"}), "is none of"),
    "neurons of odd values": (top("neurons", {"model": [], 3: 4}), "is none of"),
}


def copied(value: Any) -> Any:
    """A copy of the lists and mappings, with the tensors themselves."""
    if isinstance(value, dict):
        return {key: copied(inner) for key, inner in value.items()}
    return [copied(inner) for inner in value] if isinstance(value, list) else value


@pytest.mark.parametrize("name", HOSTILE)
def test_an_snn_file_is_refused(tmp_path: Path, content: dict[str, Any], name: str) -> None:
    change, said = HOSTILE[name]
    changed = copied(content)
    change(changed)
    torch.save(changed, tmp_path / "snn.pt")
    with pytest.raises(InputError, match=said) as raised:
        load_snn(tmp_path / "snn.pt")
    assert str(tmp_path / "snn.pt") in str(raised.value) or name.startswith(("neurons", "unknown neurons"))


def test_the_unchanged_file_is_loaded(tmp_path: Path, content: dict[str, Any]) -> None:
    torch.save(copied(content), tmp_path / "snn.pt")
    assert load_snn(tmp_path / "snn.pt").layers()
    torch.save(copied(content), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(InputError, match="old format"):
        load_snn(tmp_path / "old.pt")


class Shell:
    """Its unpickling would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


class Rebuilt:
    """A pickle that calls one of torch's own functions with any arguments."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> Any:
        return self.function, self.arguments


def archive(path: Path, pickled: bytes, *more: tuple[str, bytes], compression: int = zipfile.ZIP_STORED) -> None:
    """A file as torch.save writes it, with this pickle."""
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, data in (("data.pkl", pickled), ("byteorder", b"little"), ("version", b"3\n"), *more):
            file.writestr(f"archive/{name}", data)


def test_no_code_runs(tmp_path: Path) -> None:
    target, path = tmp_path / "made", tmp_path / "weights.pt"
    for protocol in (2, 4):
        torch.save({"state_dict": {"weight": Shell(target)}}, path, pickle_protocol=protocol)
        for load in (read, load_snn):
            with pytest.raises(InputError, match=r"weights\.pt cannot be read"):
                load(path)
    path.write_bytes(pickle.dumps(Shell(target)))
    with pytest.raises(InputError, match="cannot be read"):
        read(path)
    archive(path, pickle.dumps(Shell(target), protocol=2))
    with pytest.raises(InputError, match="cannot be read"):
        read(path)
    assert not target.exists()


class Storages(pickle.Pickler):
    """Writes storages as torch does, with a size of their own choice."""

    def persistent_id(self, value: Any) -> Any:
        return ("storage", torch.FloatStorage, "0", "cpu", value.size) if isinstance(value, Storage) else None


class Storage:
    def __init__(self, size: int) -> None:
        self.size = size


@pytest.mark.parametrize("size", [4, HUGE, -1, 2**63])
@pytest.mark.parametrize("shape", [(HUGE,), (2**21, 2**21), (2**26,), (2**62, 4), (-1,)], ids=str)
def test_storages_of_absurd_sizes(tmp_path: Path, size: int, shape: tuple[int, ...]) -> None:
    """A view that is larger than its storage makes torch enlarge the storage."""
    stream = io.BytesIO()
    rebuilt = Rebuilt(
        torch._utils._rebuild_tensor_v2,
        Storage(size),
        0,
        shape,
        tuple(1 for _ in shape),
        False,
        {},  # type: ignore[attr-defined]
    )
    Storages(stream, protocol=2).dump({"state_dict": {"weight": rebuilt}})
    archive(tmp_path / "weights.pt", stream.getvalue(), ("data/0", b"\0" * 16))
    with pytest.raises(InputError, match="cannot be read"):
        read(tmp_path / "weights.pt")


def test_a_call_that_fills_memory(tmp_path: Path) -> None:
    torch.save({"state_dict": {"weight": Rebuilt(bytearray, 2**30)}}, tmp_path / "weights.pt")
    with pytest.raises(InputError, match="it holds a bytearray"):
        read(tmp_path / "weights.pt")
    torch.save({"a": Rebuilt(bytearray, 2**30)}, tmp_path / "weights.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(InputError, match="it holds a bytearray"):
        read(tmp_path / "weights.pt")


def test_a_compressed_archive(tmp_path: Path) -> None:
    """Some kilobytes that would become 64 MiB."""
    archive(tmp_path / "weights.pt", bytes(2**26), compression=zipfile.ZIP_DEFLATED)
    assert (tmp_path / "weights.pt").stat().st_size < 2**17
    with pytest.raises(InputError, match="it is compressed"):
        read(tmp_path / "weights.pt")


def test_weights_of_odd_kinds(tmp_path: Path) -> None:
    network, path = nn.Linear(3, 2), tmp_path / "weights.pt"
    before = {name: value.clone() for name, value in network.state_dict().items()}
    for odd in (
        torch.zeros(2, 3).to_sparse(),
        torch.zeros(2, 3, device="meta"),
        torch.quantize_per_tensor(torch.zeros(2, 3), 0.1, 0, torch.qint8),
        torch.zeros(1).expand(2**30, 2**30),
        torch.zeros(2, 3, dtype=torch.complex64),
    ):
        torch.save({"weight": odd, "bias": torch.zeros(2)}, path)
        with pytest.raises(InputError, match=r"weights\.pt"):
            load_checkpoint(network, path)
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_provenance_that_never_ends(tmp_path: Path) -> None:
    network, path = nn.Linear(3, 2), tmp_path / "weights.pt"
    endless: dict[str, Any] = {}
    endless["self"] = endless
    many: dict[str, Any] = {}
    many_times(many)
    for provenance, said in ((endless, "nested"), (many["facts"], "more than"), ({"n": 10**400}, "whole number")):
        torch.save({"schema": 2, "state_dict": network.state_dict(), "provenance": provenance}, path)
        with pytest.raises(InputError, match=said):
            load_checkpoint(network, path)
