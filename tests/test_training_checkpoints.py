"""Checkpoints from elsewhere, damaged, malicious, or of another network."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from training_cases import equal, network

from dynconf_core.errors import InputError
from dynconf_core.networks.checkpoint import load_checkpoint, read, save_checkpoint, write_atomically

# Checkpoints


def test_checkpoint_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "new" / "checkpoint.pt"
    save_checkpoint(network("qffs", seed=1), {"seed": 1, "recipe": {"epochs": 3}}, path)
    loaded = network("qffs", seed=2)
    assert load_checkpoint(loaded, path) == {"seed": 1, "recipe": {"epochs": 3}}
    assert equal(loaded, network("qffs", seed=1))
    assert [entry.name for entry in path.parent.iterdir()] == ["checkpoint.pt"]


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("old_format", [False, True])
def test_checkpoints_of_others(prefix: str, wrapped: bool, old_format: bool, tmp_path: Path) -> None:
    """A state dict alone or under "state_dict", from DataParallel or not, in both of torch's formats."""
    state: dict[str, Any] = {prefix + name: value for name, value in network(seed=1).state_dict().items()}
    content = {"state_dict": state, "epoch": 3, "best": 0.9} if wrapped else state
    torch.save(content, tmp_path / "c.pt", _use_new_zipfile_serialization=not old_format)
    loaded = network(seed=2)
    assert load_checkpoint(loaded, tmp_path / "c.pt") == {}
    assert equal(loaded, network(seed=1))


class Code:
    """Runs a command when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_checkpoints_run_no_code(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    for number, content in enumerate((Code(mark), {"state_dict": network().state_dict(), "extra": Code(mark)})):
        for name, write in (("torch", torch.save), ("pickle", lambda what, file: file.write_bytes(pickle.dumps(what)))):
            path = tmp_path / f"{name}{number}.pt"
            write(content, path)
            with pytest.raises(InputError, match=r"cannot be read .*holds more than weights"):
                load_checkpoint(network(), path)
    assert not mark.exists()
    pickle.loads(pickle.dumps(Code(mark)))
    assert mark.exists(), "it would have run"


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_damaged_checkpoints_are_input_errors(tmp_path: Path) -> None:
    """For any bytes: garbage, nothing, and both formats cut short or with changed bytes."""
    path, generator = tmp_path / "c.pt", torch.Generator().manual_seed(0)
    contents = [b"", b"garbage", b"\x80\x02", b"PK\x03\x04", b"\x80\x04}q\x00.", bytes(1000)]
    for old_format in (False, True):
        torch.save({"state_dict": {"a": torch.zeros(3)}, "k": 1}, path, _use_new_zipfile_serialization=not old_format)
        whole = path.read_bytes()
        contents += [whole[: len(whole) * part // 8] for part in range(1, 8)]
        for place in torch.randint(0, len(whole), (150,), generator=generator).tolist():
            contents.append(whole[:place] + bytes([whole[place] ^ 0x15]) + whole[place + 1 :])
    refused = 0
    for content in contents:
        path.write_bytes(content)
        try:
            read(path)  # a flipped bit may strike where nobody looks
        except InputError as error:
            assert str(path) in str(error)
            refused += 1
    assert refused > 100


def test_missing_checkpoint(tmp_path: Path) -> None:
    for path, words in ((tmp_path / "c.pt", "does not exist: name the file"), (tmp_path, "is a folder: name the file")):
        with pytest.raises(InputError, match=words):
            load_checkpoint(network(), path)


STATE = network().state_dict()
LAST = "head.2.bias"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({name: value for name, value in STATE.items() if name != LAST}, "lacks 'head.2.bias'"),
        ({**STATE, LAST: torch.zeros(3)}, r"'head.2.bias' has shape \(3,\), the network needs \(10,\)"),
        ({**STATE, "more": torch.zeros(3)}, "holds 'more', which the network does not have"),
        (network("qffs").state_dict(), r"lacks 17 keys \('stem.2.threshold', .*it holds 34 keys .*for another method"),
        (network(width=1 / 8).state_dict(), r"'stem.0.weight' has shape \(8, .*another width"),
        ([1, 2], "holds a list: a state dict is needed"),
        (torch.zeros(3), "holds a Tensor"),
        ({"state_dict": 5}, "holds no state dict"),
        ({"state_dict": {"stem.0.weight": 5}}, "holds no state dict"),
        ({3: torch.zeros(3)}, "holds no state dict"),
        ({"weights": {"epoch": 3}, "epoch": 3}, "holds no state dict"),
    ],
)
def test_checkpoints_of_another_network(content: Any, words: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "c.pt")
    with pytest.raises(InputError, match=words):
        load_checkpoint(network(), tmp_path / "c.pt")


def test_writing_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "c.pt"
    write_atomically({"a": torch.ones(2)}, path)

    def half(content: Any, file: Any) -> None:
        file.write(b"half of it")
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(OSError, match="no space"):
        write_atomically({"a": torch.zeros(2)}, path)
    assert torch.equal(read(path)["a"], torch.ones(2))
