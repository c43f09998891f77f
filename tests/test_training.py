"""Training: resuming, the schedule, threads, speed-ups, checkpoints and the command."""

from __future__ import annotations

import json
import math
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dynconf_core.data import digits
from dynconf_core.data.images import Normalisation, TensorImages
from dynconf_core.errors import InputError
from dynconf_core.networks.description import described
from dynconf_core.training import speed
from dynconf_core.training.checkpoint import load_checkpoint, read, save_checkpoint, write_atomically
from dynconf_core.training.loop import train
from dynconf_core.training.recipe import Recipe, learning_rate
from dynconf_core.training.run import train_to_file
from dynconf_core.training.speed import SpeedUps, probe

CPU = torch.device("cpu")
RECIPE = Recipe(epochs=3, batch_size=8, learning_rate=0.05, augmentation=("crop", "flip", "cutout"), initial_threshold=4.0)


def description(method: str = "qcfs", **changes: Any) -> dict[str, Any]:
    plain = {
        "architecture": "resnet18",
        "stem": "cifar",
        "classes": 10,
        "resolution": 16,
        "width": 1 / 16,
        "method": method,
        "levels": 4 if method == "qcfs" else None,
        "bits": 2 if method == "qffs" else None,
    }
    return {**plain, **changes}


def network(method: str = "qcfs", seed: int = 0, **changes: Any) -> nn.Module:
    return described({**description(method, **changes), "initial_threshold": 4.0}, seed)


def pictures(count: int = 27, seed: int = 0) -> TensorImages:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, 3, 16, 16), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, 10, (count,), generator=generator)
    return TensorImages(pixels, labels, 10, Normalisation((0.5, 0.5, 0.5), (0.25, 0.25, 0.25)))


def equal(one: nn.Module, other: nn.Module) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return list(first) == list(second) and all(torch.equal(first[name], second[name]) for name in first)


# The schedule


def test_learning_rate_by_hand() -> None:
    """20 steps, 10 % warm-up: two steps up to 0.4, then half a cosine over 18."""
    recipe = Recipe(epochs=1, batch_size=1, learning_rate=0.4, augmentation=(), initial_threshold=4.0)
    assert learning_rate(0, 20, recipe) == pytest.approx(0.2)
    assert learning_rate(1, 20, recipe) == pytest.approx(0.4)
    assert learning_rate(2, 20, recipe) == pytest.approx(0.4)
    assert learning_rate(11, 20, recipe) == pytest.approx(0.2)  # half of the way down
    assert learning_rate(8, 20, recipe) == pytest.approx(0.4 * 0.75)  # a third: (1 + cos 60) / 2
    assert learning_rate(19, 20, recipe) == pytest.approx(0.2 * (1 + math.cos(math.pi * 17 / 18)))
    assert learning_rate(20, 20, recipe) == pytest.approx(0)
    rates = [learning_rate(step, 20, recipe) for step in range(2, 20)]
    assert rates == sorted(rates, reverse=True)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_learning_rate_of_the_shortest_runs(steps: int) -> None:
    recipe = Recipe(epochs=1, batch_size=1, learning_rate=0.4, augmentation=(), initial_threshold=4.0)
    assert all(0 < learning_rate(step, steps, recipe) <= 0.4 for step in range(steps))


def test_the_loop_follows_sgd_by_hand() -> None:
    """Two steps of momentum SGD with weight decay on a linear network, written out."""
    data = pictures(4)
    recipe = Recipe(epochs=2, batch_size=4, learning_rate=0.1, augmentation=(), initial_threshold=4.0, warm_up=0.5)
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 256, 10)).double()
    net[1].weight.data.mul_(0.1)
    inputs = data.normalisation(data.pixels).flatten(1).double()

    class Double(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.inner(x.double())
            return result

    weight, bias = (p.detach().clone().requires_grad_() for p in net.parameters())
    momenta = [torch.zeros_like(weight), torch.zeros_like(bias)]
    losses = []
    for rate in (0.1, 0.1):  # the warm-up is the first step, the cosine starts at its top
        logits = inputs @ weight.T + bias
        loss = (torch.logsumexp(logits, 1) - logits[torch.arange(4), data.labels]).mean()
        losses.append(loss.item())
        for i, (parameter, gradient) in enumerate(zip((weight, bias), torch.autograd.grad(loss, (weight, bias)), strict=True)):
            momenta[i] = 0.9 * momenta[i] + gradient + 5e-4 * parameter.detach()
            parameter.data -= rate * momenta[i]
    record = train(Double(net), data, recipe, seed=0, device=CPU)
    torch.testing.assert_close(net[1].weight.detach(), weight.detach(), rtol=0, atol=1e-12)
    torch.testing.assert_close(net[1].bias.detach(), bias.detach(), rtol=0, atol=1e-12)
    assert record["losses"] == pytest.approx(losses)


# Learning and resuming


@pytest.mark.parametrize("method", ["qcfs", "qffs"])
def test_loss_goes_down_on_digits(method: str, tmp_path: Path) -> None:
    data = digits.load(tmp_path, "train", resolution=16, calibration=300).subset(torch.arange(256))
    recipe = Recipe(epochs=4, batch_size=16, learning_rate=0.1, augmentation=(), initial_threshold=4.0)
    net = network(method)
    record = train(net, data, recipe, seed=0, device=CPU)
    assert record["losses"][-1] < 0.5 * record["losses"][0]
    assert record["losses"][0] < 4 and len(record["losses"]) == 4
    assert record["seconds"] > 0 and record["speed_ups"] == SpeedUps().as_dict()
    assert not net.training
    with torch.inference_mode():
        found = net(data.normalisation(data.pixels)).argmax(1)
    assert float((found == data.labels).float().mean()) > 0.6


@pytest.mark.parametrize("method", ["qcfs", "qffs"])
@pytest.mark.parametrize("first", [1, 2])
def test_a_resumed_run_equals_an_uninterrupted_one(method: str, first: int, tmp_path: Path) -> None:
    """To the bit, with augmentation, momentum, batch statistics, learned thresholds and steps."""
    whole = network(method)
    record = train(whole, pictures(), RECIPE, seed=5, device=CPU, resume=tmp_path / "whole")

    torch.manual_seed(1)
    train(network(method), pictures(), RECIPE, seed=5, device=CPU, resume=tmp_path / "resume", stop_after=first)
    torch.manual_seed(2)
    resumed = network(method, seed=77)  # its weights are replaced
    assert not equal(resumed, whole)
    later = train(resumed, pictures(), RECIPE, seed=5, device=CPU, resume=tmp_path / "resume")
    assert equal(resumed, whole)
    assert later["losses"] == record["losses"] and len(later["losses"]) == 3
    last, other = read(tmp_path / "resume"), read(tmp_path / "whole")
    for mine, theirs in zip(last["optimiser"]["state"].values(), other["optimiser"]["state"].values(), strict=True):
        assert torch.equal(mine["momentum_buffer"], theirs["momentum_buffer"])
    again = network(method)
    assert train(again, pictures(), RECIPE, seed=5, device=CPU, resume=tmp_path / "resume")["losses"] == record["losses"]
    assert equal(again, whole), "a finished run is not trained on"


@pytest.mark.parametrize("at", [1, 5, 8])
def test_progress_that_raises_stops_and_the_run_goes_on_later(at: int, tmp_path: Path) -> None:
    """In the first epoch, in the second, and with all but one batch done."""

    class Cancelled(Exception):
        pass

    def cancel(done: int, total: int, text: str) -> None:
        assert total == 9
        if done == at:
            raise Cancelled

    whole, stopped, resumed = network(), network(), network()
    train(whole, pictures(), RECIPE, seed=5, device=CPU)
    with pytest.raises(Cancelled):
        train(stopped, pictures(), RECIPE, seed=5, device=CPU, resume=tmp_path / "resume", progress=cancel)
    assert (tmp_path / "resume").exists() == (at > 3)
    train(resumed, pictures(), RECIPE, seed=5, device=CPU, resume=tmp_path / "resume")
    assert equal(resumed, whole)


def test_progress_tells_every_batch() -> None:
    told: list[tuple[int, int, str]] = []
    train(network(), pictures(), RECIPE, seed=5, device=CPU, progress=lambda *given: told.append(given))
    assert told[0] == (0, 9, "probing speed-ups")
    assert [done for done, _, _ in told[1:]] == list(range(1, 10))
    assert told[1][2] == "epoch 1/3" and told[-1][2].startswith("epoch 3/3, loss ")


def trained_from_the_same_weights(seed: int) -> nn.Module:
    net = network()
    train(net, pictures(), RECIPE, seed=seed, device=CPU)
    return net


def test_the_same_seed_trains_the_same_network() -> None:
    assert equal(trained_from_the_same_weights(1), trained_from_the_same_weights(1))


def test_the_seed_decides_shuffling_and_augmentation() -> None:
    assert not equal(trained_from_the_same_weights(1), trained_from_the_same_weights(2))


def test_threads_do_not_disturb_each_other() -> None:
    """Two trainings at once, and a third thread that draws from torch's global generator all the while."""

    def trained(method: str, seed: int) -> nn.Module:
        torch.set_num_threads(1)
        net = network(method, seed)
        train(net, pictures(40, seed), RECIPE, seed=seed, device=CPU)
        return net

    jobs = [("qcfs", 1), ("qffs", 2)]
    alone = [trained(*job) for job in jobs]
    together: dict[int, nn.Module] = {}
    over = threading.Event()

    def draw() -> None:
        while not over.is_set():
            torch.manual_seed(0)
            torch.rand(3)

    noise = threading.Thread(target=draw)
    workers = [
        threading.Thread(target=lambda i=i, job=job: together.__setitem__(i, trained(*job))) for i, job in enumerate(jobs)
    ]
    for thread in (noise, *workers):
        thread.start()
    for thread in workers:
        thread.join()
    over.set()
    noise.join()
    assert all(equal(alone[i], together[i]) for i in range(2))


def test_too_few_images() -> None:
    with pytest.raises(InputError, match=r"batch_size=8 exceeds the 7 training images"):
        train(network(), pictures(7), RECIPE, seed=0, device=CPU)


def test_a_damaged_resume_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "resume").write_bytes(b"\x00" * 40)
    with pytest.raises(InputError, match=r"resume cannot be read"):
        train(network(), pictures(), RECIPE, seed=0, device=CPU, resume=tmp_path / "resume")


# Speed-ups


def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every speed-up be worth trying."""
    monkeypatch.setattr(speed, "WORTH_TRYING", 0.0)
    monkeypatch.setattr(speed, "WORTH_COMPILING", 0.0)


def test_probe_survives_a_compiler_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether torch.compile itself raises, or what it returns does when it first runs."""
    slow(monkeypatch)
    called = []

    def at_once(net: nn.Module) -> Any:
        called.append("at once")
        raise RuntimeError("no compiler was found\nlong story")

    def at_the_first_run(net: nn.Module) -> Callable[[Tensor], Tensor]:
        def fail(x: Tensor) -> Tensor:
            called.append("at the first run")
            raise AssertionError

        return fail

    for failing in (at_once, at_the_first_run):
        monkeypatch.setattr(torch, "compile", failing)
        net = network()
        before = {name: value.clone() for name, value in net.state_dict().items()}
        found = probe(net, torch.randn(4, 3, 16, 16), torch.arange(4), 1000)
        assert not found.compiled
        assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items()), "tried on a copy"
        assert all(parameter.grad is None for parameter in net.parameters())
        train(network(), pictures(), RECIPE, seed=0, device=CPU)
    assert set(called) == {"at once", "at the first run"}


@pytest.mark.parametrize("method", ["qcfs", "qffs"])
def test_probe_takes_what_pays(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each candidate is judged against the best so far; the run with all of them trains the same parameters."""
    slow(monkeypatch)
    monkeypatch.setattr(torch, "compile", lambda net: net)
    seconds = {(): 1.0, ("channels_last",): 0.9, ("channels_last", "autocast"): 2.0, ("channels_last", "compiled"): 0.86}

    def timed(net: nn.Module, images: Tensor, labels: Tensor, speed_ups: SpeedUps) -> float:
        return seconds[tuple(name for name, used in speed_ups.as_dict().items() if used)]

    monkeypatch.setattr(speed, "_seconds_a_step", timed)
    batch, labels = torch.randn(4, 3, 16, 16), torch.arange(4)
    assert probe(network(method), batch, labels, 1) == SpeedUps(channels_last=True)  # 0.86 is within 5 % of 0.9
    seconds["channels_last", "compiled"] = 0.8
    assert probe(network(method), batch, labels, 1) == SpeedUps(channels_last=True, compiled=True)
    net = network(method)
    record = train(net, pictures(), RECIPE, seed=0, device=CPU)
    assert record["speed_ups"] == {"channels_last": True, "autocast": False, "compiled": True}
    plain = network(method)
    monkeypatch.setattr(speed, "WORTH_TRYING", 1e9)
    monkeypatch.setattr(speed, "WORTH_COMPILING", 1e9)
    other = train(plain, pictures(), RECIPE, seed=0, device=CPU)
    assert other["speed_ups"] == SpeedUps().as_dict()
    assert record["losses"][0] == pytest.approx(other["losses"][0], rel=0.1)


def test_a_short_run_tries_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []
    monkeypatch.setattr(speed, "_seconds_a_step", lambda *given: tried.append(given[3]) or 0.5)
    assert probe(network(), torch.randn(2, 3, 16, 16), torch.arange(2), 599) == SpeedUps()
    assert tried == [SpeedUps()]
    probe(network(), torch.randn(2, 3, 16, 16), torch.arange(2), 601)
    assert [s.compiled for s in tried] == [False] * 4, "300 s pay for a trial of layouts, not for a compilation"


def test_autocast_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    """bf16 on any machine: the activations' own gradients keep the types of their parameters."""
    monkeypatch.setattr("dynconf_core.training.loop.probe", lambda *given: SpeedUps(channels_last=True, autocast=True))
    for method in ("qcfs", "qffs"):
        net = network(method)
        record = train(net, pictures(), RECIPE, seed=0, device=CPU)
        assert all(math.isfinite(loss) for loss in record["losses"])
        assert all(parameter.dtype == torch.float32 for parameter in net.parameters())


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
    """Bare or under "state_dict", from DataParallel or not, in both of torch's formats."""
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
    """Whatever bytes: garbage, nothing, and both formats cut short or with bytes changed."""
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
    for path in (tmp_path / "c.pt", tmp_path):
        with pytest.raises(InputError, match=r"does not exist: name the file"):
            load_checkpoint(network(), path)


STATE = network().state_dict()
LAST = "head.2.bias"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({name: value for name, value in STATE.items() if name != LAST}, "lacks 'head.2.bias'"),
        ({**STATE, LAST: torch.zeros(3)}, r"'head.2.bias' has shape \(3,\), the network needs \(10,\)"),
        ({**STATE, "more": torch.zeros(3)}, "holds 'more', which the network has not"),
        (network("qffs").state_dict(), r"lacks 17 keys \('stem.2.threshold', .*it holds 34 keys .*for another method"),
        (network(width=1 / 8).state_dict(), r"'stem.0.weight' has shape \(8, .*another width"),
        ([1, 2], "holds a list: a state dict is needed"),
        (torch.zeros(3), "holds a Tensor"),
        ({"state_dict": 5}, "holds no state dict"),
        ({"state_dict": {"stem.0.weight": 5}}, "holds no state dict"),
        ({3: torch.zeros(3)}, "holds no state dict"),
        ({"weights": STATE, "epoch": 3}, "holds no state dict"),
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


# From a description to a file


def test_train_to_file(tmp_path: Path) -> None:
    """The provenance tells which images were held out; the checkpoint loads into the described network."""
    recipe = Recipe(epochs=1, batch_size=100, learning_rate=0.05, augmentation=("flip",), initial_threshold=4.0)
    out = tmp_path / "checkpoint.pt"
    provenance = train_to_file(
        description("qffs"),
        recipe,
        dataset="digits",
        calibration=900,
        data_root=tmp_path,
        seed=3,
        device=CPU,
        out=out,
        resume=tmp_path / "resume",
    )
    net = described(description("qffs"), seed=0)
    assert load_checkpoint(net, out) == json.loads(json.dumps(provenance)) == provenance
    assert provenance["data"]["train"] == 400 and provenance["seed"] == 3
    assert provenance["data"]["split"]["calibration"] == 900
    assert provenance["network"] == description("qffs")
    assert provenance["recipe"]["augmentation"] == ["flip"] and len(provenance["record"]["losses"]) == 1
    assert provenance["parameters"] == sum(p.numel() for p in net.parameters())


# The command


def command(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    return subprocess.run(
        [sys.executable, "-m", "dynconf_core.training", *arguments],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
    )


def test_command(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "net.pt"
    fields = [word for field in ("epochs=1", "width=0.03", "batch_size=100") for word in ("--set", field)]
    done = command(root, "--setting", "cifar10-resnet18-qcfs", *fields, "--out", str(out), "--device", "cpu", "--seed", "4")
    assert done.returncode == 0, done.stderr
    assert f"{out}: cifar10-resnet18-qcfs, profile smoke" in done.stdout
    assert [entry.name for entry in tmp_path.iterdir()] == ["net.pt"], "the state between epochs goes when the run ends"
    provenance = read(out)["provenance"]
    assert provenance["seed"] == 4 and provenance["recipe"]["epochs"] == 1 and provenance["threads"] == 1
    load_checkpoint(described(provenance["network"], seed=0), out)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ("--setting", "cifar10-resnet18-qcf"),
            "setting 'cifar10-resnet18-qcf' is unknown (did you mean 'cifar10-resnet18-qcfs'?)",
        ),
        (("--setting", "cifar10-vgg16-qcfs", "--set", "bits=2"), "field 'bits' fits none"),
        (("--setting", "cifar10-vgg16-qcfs", "--profile", "quick", "--data", "/nowhere"), "dynconf data fetch cifar10"),
    ],
)
def test_command_refuses(arguments: tuple[str, ...], words: str, root: Path, tmp_path: Path) -> None:
    done = command(root, *arguments, "--out", str(tmp_path / "net.pt"))
    assert done.returncode == 2
    assert words in done.stderr and done.stderr.startswith("error: ") and "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_resume_file_of_another_run_is_refused(tmp_path: Path) -> None:
    train(network("qcfs"), pictures(), RECIPE, seed=5, device=CPU, resume=tmp_path / "resume", stop_after=1)
    with pytest.raises(InputError, match="another recipe or seed"):
        train(network("qcfs"), pictures(), RECIPE, seed=6, device=CPU, resume=tmp_path / "resume")
    with pytest.raises(InputError, match="another network"):
        train(network("qffs"), pictures(), RECIPE, seed=5, device=CPU, resume=tmp_path / "resume")
