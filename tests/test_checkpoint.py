"""Checkpoints from elsewhere: what fits is loaded, what does not is reported in one message, and nothing is executed."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dynconf_core.errors import InputError
from dynconf_core.networks.checkpoint import load_checkpoint, read, save_checkpoint
from dynconf_core.networks.resnet_cifar import CifarResNet


def network(depth: int = 20, classes: int = 10, width: float = 1 / 4, seed: int = 0) -> nn.Module:
    """A small network with every number of its state drawn from the seed."""
    built, generator = CifarResNet(depth, classes, width=width), torch.Generator().manual_seed(seed)
    for value in built.state_dict().values():
        if value.is_floating_point():
            value.copy_(torch.rand(value.shape, generator=generator))
        else:
            value.fill_(seed)
    return built


def state(**changes: Any) -> dict[str, Tensor]:
    return dict(network(**{"seed": 1, **changes}).state_dict())


def equal(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def refused(content: Any, tmp_path: Path) -> str:
    """The message, on one line, of a refusal that did not change the network."""
    path, loaded = tmp_path / "c.pt", network()
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(InputError) as error:
        load_checkpoint(loaded, path)
    assert equal(loaded, network()), "a refused checkpoint changed the network"
    text = str(error.value)
    assert str(path) in text and "\n" not in text
    return text


PREFIXES = ("", "module.", "_orig_mod.", "module._orig_mod.", "model.", "backbone.", "net.", "encoder.module.")
WRAPPERS = (None, "state_dict", "model", "net", "model_state_dict", "ema", "model_ema", "module", "weights", "state.network")


def under(key: str | None, given: Any) -> Any:
    """``given`` under the nested keys of ``key``, beside what training scripts keep there."""
    for part in reversed([] if key is None else key.split(".")):
        given = {"epoch": 3, part: given, "best": 0.9, "optimizer": {"lr": [0.1], "state": {0: {"step": torch.tensor(1.0)}}}}
    return given


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("old_format", [False, True])
def test_the_forms_in_use(wrapper: str | None, old_format: bool, tmp_path: Path) -> None:
    for prefix in PREFIXES if wrapper is None else PREFIXES[:2]:
        content = under(wrapper, {prefix + name: value for name, value in state().items()})
        torch.save(content, tmp_path / "c.th", _use_new_zipfile_serialization=not old_format)
        loaded = network()
        assert load_checkpoint(loaded, tmp_path / "c.th") == {}
        assert equal(loaded, network(seed=1))


def test_words_of_wrappers_inside_names(tmp_path: Path) -> None:
    """A part of the network alone was parallel or compiled; an average counts its models; a profiler counts operations."""
    given = {name.replace("layer1.", "layer1.module._orig_mod."): value for name, value in state().items()}
    averaged = {f"module.{name}": value for name, value in state().items()} | {"n_averaged": torch.tensor(7)}
    profiled = state() | {"total_ops": torch.zeros(1), "layer1.0.conv1.total_params": torch.zeros(1, dtype=torch.float64)}
    compiled = {f"_orig_mod.{name}": value for name, value in profiled.items()} | {"total_ops": torch.zeros(1)}
    for content in (given, averaged, profiled, compiled):
        torch.save({"model": content}, tmp_path / "c.pt")
        loaded = network()
        load_checkpoint(loaded, tmp_path / "c.pt")
        assert equal(loaded, network(seed=1))


def test_a_network_that_has_such_words_in_its_own_names(tmp_path: Path) -> None:
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = nn.Linear(2, 3)
            self.register_buffer("total_ops", torch.zeros(1))

    given = {"module.weight": torch.ones(3, 2), "module.bias": torch.ones(3), "total_ops": torch.ones(1)}
    torch.save(given, tmp_path / "c.pt")
    load_checkpoint(loaded := Wrapped(), tmp_path / "c.pt")
    assert all(bool((value == 1).all()) for value in loaded.state_dict().values())
    torch.save({name: value for name, value in given.items() if name != "total_ops"}, tmp_path / "c.pt")
    with pytest.raises(InputError, match="it lacks 'total_ops'"):
        load_checkpoint(Wrapped(), tmp_path / "c.pt")


def test_of_several_state_dicts_the_choice_is_said(tmp_path: Path) -> None:
    path, told, loaded = tmp_path / "c.pt", list[str](), network()
    torch.save({"model_ema": state(seed=2), "model": state(seed=1), "teacher": state(depth=32)}, path)
    load_checkpoint(loaded, path, say=told.append)
    assert equal(loaded, network(seed=1))
    assert told == ["c.pt holds several state dicts that fit: that under 'model' is taken, not 'model_ema'."]
    load_checkpoint(loaded, path, key="model_ema", say=told.append)
    assert equal(loaded, network(seed=2)) and len(told) == 1
    with pytest.raises(InputError, match="under 'ema': there are some under 'model_ema', 'model', 'teacher'"):
        load_checkpoint(loaded, path, key="ema")
    with pytest.raises(InputError, match="does not fit the network: it holds 72 keys"):
        load_checkpoint(loaded, path, key="teacher")


NUMBERS = [np.float64(92.6), np.float32(0.5), np.int64(-3), np.uint8(200), np.bool_(True), np.float16(2)]


@pytest.mark.parametrize("module", ["numpy._core.multiarray", "numpy.core.multiarray"])
@pytest.mark.parametrize("old_format", [False, True])
def test_numbers_of_numpy_are_read_as_plain_ones(module: str, old_format: bool, tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    torch.save({"model": state(), "best": NUMBERS}, path, _use_new_zipfile_serialization=not old_format)
    if old_format:  # its length is free
        path.write_bytes(path.read_bytes().replace(b"numpy._core.multiarray", module.encode()))
    loaded = network()
    load_checkpoint(loaded, path)
    assert equal(loaded, network(seed=1))
    best = read(path)["best"]
    assert best == [number.item() for number in NUMBERS] and [type(one) for one in best] == [
        float,
        float,
        int,
        int,
        bool,
        float,
    ]


def test_numbers_of_a_machine_of_the_other_byte_order(tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    torch.save({"best": np.int16(1)}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes().replace(b"X\x01\x00\x00\x00<", b"X\x01\x00\x00\x00>"))
    assert read(path) == {"best": 256}


@pytest.mark.parametrize(
    "value",
    [np.zeros(3), np.str_("text"), np.datetime64("2024-01-01"), np.complex128(1), np.zeros(1, "i4,f4")[0], np.dtype("O")],
    ids=str,
)
def test_further_objects_of_numpy_are_not_read(value: Any, tmp_path: Path) -> None:
    text = refused({"model": state(), "history": value}, tmp_path)
    assert "cannot be read" in text and "numpy" in text


def test_safetensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors.torch import save_file

    for name in ("c.safetensors", "c.bin"):
        path, loaded = tmp_path / name, network()
        save_file({f"model.{key}": value.contiguous() for key, value in state().items()}, path)
        assert load_checkpoint(loaded, path) == {}
        assert equal(loaded, network(seed=1))
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(InputError, match=r"cannot be read: .* It is damaged, or no safetensors file"):
            load_checkpoint(loaded, path)
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(InputError, match=r"needs safetensors, which is not installed: `pip install safetensors`"):
        load_checkpoint(network(), tmp_path / "c.safetensors")


def test_half_precision_halves_the_file_and_keeps_what_is_small(tmp_path: Path) -> None:
    """Weight matrices are rounded; thresholds, norms and biases are kept; float32 is read back."""
    trained, other = network(seed=1), network(seed=2)
    for name, half in (("whole.pt", False), ("half.pt", True)):
        save_checkpoint(trained, {"half": half}, tmp_path / name, half=half)
    assert (tmp_path / "half.pt").stat().st_size < 0.75 * (tmp_path / "whole.pt").stat().st_size
    assert load_checkpoint(other, tmp_path / "half.pt") == {"half": True}
    for name, value in other.state_dict().items():
        before = trained.state_dict()[name]
        assert value.dtype == before.dtype
        assert torch.equal(value, before.half().float() if value.ndim > 1 else before)


def test_our_checkpoint_is_read_back_with_its_provenance(tmp_path: Path) -> None:
    save_checkpoint(network(seed=1), {"seed": 1}, tmp_path / "c.pt")
    loaded = network()
    assert load_checkpoint(loaded, tmp_path / "c.pt") == {"seed": 1}
    assert equal(loaded, network(seed=1))
    torch.save({"state_dict": state(), "provenance": "somebody's own words"}, tmp_path / "c.pt")
    assert load_checkpoint(loaded, tmp_path / "c.pt") == {}


def test_a_checkpoint_without_batch_counters(tmp_path: Path) -> None:
    """Checkpoints from before 2018 have no `num_batches_tracked`; the published ResNet-20 is one of them."""
    torch.save({name: value for name, value in state().items() if "num_batches" not in name}, tmp_path / "c.pt")
    loaded = network()
    load_checkpoint(loaded, tmp_path / "c.pt")
    for name, value in loaded.state_dict().items():
        assert "num_batches" in name or torch.equal(value, state()[name])


def test_one_message_lists_everything(tmp_path: Path) -> None:
    given = state()
    for number in range(7):
        given[f"more.{number}"] = torch.zeros(1)
    del given["conv1.weight"], given["bn1.weight"]
    given["linear.weight"] = torch.zeros(100, 16)
    text = refused(given, tmp_path)
    assert "lacks 2 keys ('conv1.weight', 'bn1.weight')" in text
    assert "holds 7 keys ('more.0', 'more.1', 'more.2', 'more.3', 'more.4', ...), which the network does not have" in text
    assert "'linear.weight' has shape (100, 16), the network needs (10, 16)" in text


def test_single_faults(tmp_path: Path) -> None:
    lacking = {name: value for name, value in state().items() if name != "linear.bias"}
    assert "it lacks 'linear.bias'. Was it" in refused(lacking, tmp_path)
    assert "it holds 'x', which the network does not have. Was it" in refused({**state(), "x": torch.zeros(1)}, tmp_path)
    assert "'linear.bias' has shape (), the" in refused({**state(), "linear.bias": torch.tensor(0.0)}, tmp_path)


def test_another_architecture_width_and_number_of_classes(tmp_path: Path) -> None:
    deeper = refused(state(depth=32), tmp_path)
    assert "holds 72 keys ('layer1.3.conv1.weight'," in deeper and "lacks" not in deeper
    wider = refused(state(width=1 / 2), tmp_path)
    assert "'conv1.weight' has shape (8, 3, 3, 3), the network needs (4, 3, 3, 3)" in wider
    assert "more have other shapes too" in wider and "width" in wider and len(wider) < 1000
    of_cifar100 = refused(state(classes=100), tmp_path)
    assert "'linear.bias' has shape (100,), the network needs (10,)" in of_cifar100
    assert "another number of classes, 100 instead of 10?" in of_cifar100
    assert "depth" in deeper and "classes" not in deeper and "classes" not in wider
    grey = refused({**state(), "conv1.weight": torch.zeros(4, 1, 3, 3)}, tmp_path)
    assert "another number of channels or size of the images, 1 instead of 3?" in grey
    renamed = refused({f"a.{name}": value for name, value in nn.Linear(2, 2).state_dict().items()}, tmp_path)
    assert "another architecture? No name is the same ('a.weight' there, 'conv1.weight' here)." in renamed


class Trap:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


WRITERS: dict[str, Callable[[Any, Path], Any]] = {
    "torch": lambda content, path: torch.save(content, path),
    "old torch": lambda content, path: torch.save(content, path, _use_new_zipfile_serialization=False),
    "pickle 2": lambda content, path: path.write_bytes(pickle.dumps(content, protocol=2)),
    "pickle": lambda content, path: path.write_bytes(pickle.dumps(content)),
}


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("writer", WRITERS)
def test_a_malicious_pickle_does_not_run(writer: str, tmp_path: Path) -> None:
    mark, path = tmp_path / "sprung", tmp_path / "c.pt"
    for content in (Trap(mark), {"state_dict": state(), "extra": Trap(mark)}, [Trap(mark)]):
        WRITERS[writer](content, path)
        with pytest.raises(InputError, match=r"cannot be read \(it is a pickle .*holds more than weights") as error:
            load_checkpoint(network(), path)
        assert "weights_only" not in str(error.value), "torch's advice to unpickle it after all"
    assert not mark.exists()
    pickle.loads(pickle.dumps(Trap(mark)))
    assert mark.exists(), "it would have run"


def test_a_whole_pickled_network_is_named(tmp_path: Path) -> None:
    text = refused(network(), tmp_path)
    assert "pickle of the Python object dynconf_core.networks.resnet_cifar.CifarResNet" in text and "state_dict()" in text


@pytest.mark.parametrize("part", [0.0, 0.01, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("old_format", [False, True])
def test_a_truncated_file(part: float, old_format: bool, tmp_path: Path) -> None:
    torch.save(state(), tmp_path / "whole", _use_new_zipfile_serialization=not old_format)
    whole = (tmp_path / "whole").read_bytes()
    text = refused(whole[: int(part * len(whole))], tmp_path)
    assert "cannot be read" in text and "damaged" in text
    assert ("the file is empty" in text) == (part == 0)


@pytest.mark.parametrize("text", ["version https://git-lfs.github.com/spec/v1\noid sha256:1", "<!DOCTYPE html>", "x\n" * 1000])
def test_a_text_file(text: str, tmp_path: Path) -> None:
    assert f"it begins with {text.encode()[:20]!r}, which no file written by torch.save does" in refused(
        text.encode(), tmp_path
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([1, 2], "holds a list: a state dict is needed"),
        ([torch.zeros(3)], "holds a list"),
        (torch.zeros(3), "holds a Tensor"),
        (3, "holds an int"),
        ({}, "holds no state dict (its keys: none)"),
        ({"state_dict": {}}, "holds no state dict"),
        ({"state_dict": [1]}, "holds no state dict"),
        ({"model": {"conv1.weight": 5}}, "holds no state dict (its keys: 'model')"),
        ({"net": {"a": 1}, "acc": 95.0}, "(its keys: 'net', 'acc'): give names and tensors, bare or under one of the keys"),
        ({3: torch.zeros(3)}, "holds no state dict"),
    ],
)
def test_content_other_than_a_state_dict(content: Any, words: str, tmp_path: Path) -> None:
    assert words in refused(content, tmp_path)


def test_what_is_no_file(tmp_path: Path) -> None:
    for path in (tmp_path / "c.pt", tmp_path):
        with pytest.raises(InputError, match=r"(does not exist|is a folder): name the file"):
            read(path)
