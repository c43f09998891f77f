"""A network and images of one's own, by command: the path that the how-to describes, and what is said where it cannot be."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import Command, command_on_traces, strictly
from torch import nn

from dynconf_core import InputError, Rule, Traces, load_snn
from dynconf_core.networks.own_network import check_takes, own_network

PAGE = Path(__file__).resolve().parent.parent / "docs" / "howto" / "network.md"
FILE = re.compile(r"^```\w+\n# (\w+\.py)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
OWN = """
from torch import nn

def make(channels=1):
    return nn.Sequential(nn.Conv2d(channels, 4, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(36, 10))

def of_colours():
    return make(3)

def flat():
    return nn.Sequential(nn.Linear(7, 12), nn.ReLU(), nn.Linear(12, 3))

def sized(classes):
    return make()

def broken():
    raise RuntimeError("no weights here")

def nothing():
    return None

made = make()
number = 3
"""


@pytest.fixture
def dynconf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command in an empty folder; modules of other tests' folders are forgotten."""
    called = command_on_traces(tmp_path / "here", monkeypatch, capsys)
    for name in ("mynet", "own_nets"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    return called


def test_the_path_of_the_how_to(dynconf: Command, capsys: pytest.CaptureFixture[str]) -> None:
    """Its files and commands as they stand there; live, the SNN exits at the steps that its traces say."""
    for name, code in FILE.findall(PAGE.read_text(encoding="utf-8")):
        Path(name).write_text(code)
    runpy.run_path("make_digits.py")
    runpy.run_path("mynet.py", run_name="__main__")
    page = PAGE.read_text(encoding="utf-8").replace("\\\n", " ")
    commands = (rf"^    dynconf {name} (.*(?:mynet|analysis).*)$" for name in ("convert", "analyse"))
    convert, analyse = (re.search(pattern, page, re.MULTILINE) for pattern in commands)
    assert convert is not None and analyse is not None
    answer = dynconf("convert", *convert[1].split())
    assert (answer.code, answer.error) == (0, ""), answer
    words = " ".join(answer.out.split())
    assert "digits.npz: 1797 samples of 1 x 8 x 8, 10 classes splits: train 1151, calibration 287, test 359" in words
    assert "normalisation: none, pixels in [0, 1], as nothing else is given" in words
    assert "net.pt" in words and "test.npz: 359 test images, ANN 9" in words
    answer = dynconf("analyse", *analyse[1].split())
    assert answer.code == 0, answer
    live = runpy.run_path("live.py")["exits"]
    traces, rule = Traces.load("traces/test.npz"), Rule.load("analysis/rule.json")
    steps = rule.exit_steps(traces)
    assert live.steps.tolist() == steps.tolist() and len(set(steps.tolist())) > 2
    assert float((live.predictions == traces.labels).mean()) > 0.9


def written(folder: Path, count: int = 60) -> None:
    """Own networks, and data in three shapes."""
    random = np.random.default_rng(0)
    (folder / "own_nets.py").write_text(OWN)
    labels = np.arange(count) % 10
    np.savez(folder / "grey.npz", images=random.integers(0, 256, (count, 8, 8), dtype=np.uint8), labels=labels)
    np.savez(folder / "few.npz", images=random.integers(0, 256, (count, 8, 8), dtype=np.uint8), labels=labels % 3)
    np.savez(folder / "vectors.npz", images=random.normal(3, 9, (count, 7)), labels=labels % 3)
    np.savez(folder / "from_one.npz", images=np.zeros((count, 8, 8), np.uint8), labels=labels + 1)
    np.savez(folder / "many.npz", images=random.integers(0, 256, (count, 8, 8), dtype=np.uint8), labels=np.arange(count) % 12)


QUICK = ("--out", "snn.pt", "--time-steps", "3", "--images", "8", "--no-correct")


@pytest.mark.parametrize(
    ("options", "shape", "expects"),
    [
        (["--network", "own_nets:make", "--dataset", "grey.npz"], (1, 8, 8), {"mean": [0], "std": [1]}),
        (["--network", "own_nets:made", "--dataset", "few.npz", "--normalisation", "0.5/0.25"], (1, 8, 8), None),
        (["--network", "own_nets:of_colours", "--dataset", "./grey.npz", "--channels", "3"], (3, 8, 8), None),
        (["--network", "own_nets:flat", "--dataset", "vectors.npz", "--normalisation", "data"], (7,), None),
    ],
)
def test_networks_and_data_of_ones_own(dynconf: Command, options: list[str], shape: Any, expects: Any) -> None:
    written(Path())
    answer = dynconf("convert", *options, *QUICK, "--json")
    assert answer.code == 0, answer
    told = strictly(answer.out)
    assert load_snn("snn.pt").graph.input.shape == shape
    assert told["samples"] == {"train": 39, "calibration": 9, "test": 12} and told["checkpoint"] is None
    assert expects is None or told["normalisation"] == expects


def test_an_accuracy_no_better_than_chance_is_pointed_out(dynconf: Command) -> None:
    """Of a network with random weights on random images."""
    written(Path())
    answer = dynconf("convert", "--network", "own_nets:make", "--dataset", "grey.npz", *QUICK)
    assert answer.code == 0 and "is hardly better than chance" in " ".join(answer.out.split())
    assert "grey.npz: 60 samples of 1 x 8 x 8, 10 classes splits: train 39, calibration 9, test 12" in " ".join(
        answer.out.split()
    )


def test_rounding_that_changes_much_is_pointed_out(dynconf: Command) -> None:
    """Here of the images: divided by 60 instead of a deviation, they lose their digits."""
    written(Path())
    given = ("--network", "own_nets:make", "--dataset", "grey.npz", *QUICK)
    for scale, much in (("0/60", True), ("0/1", False)):
        answer = dynconf("convert", *given, "--normalisation", scale)
        said = " ".join(answer.out.split())
        assert answer.code == 0 and "Rounding the weights changes the logits by" in said, answer
        assert ("Warning: rounding the weights to fixed point changes the logits by" in said) == much
        assert ("input.round most" in said.partition("Warning: rounding")[2]) == much
        assert ("warning" in load_snn("snn.pt").facts["rounding"]) == much
    plain = dynconf("convert", *given, "--normalisation", "0/60", "--no-fixed-point")
    assert "Rounding the weights" not in plain.out and "rounding" not in load_snn("snn.pt").facts


def test_the_weights_named_are_those_that_are_converted(dynconf: Command) -> None:
    written(Path())
    network = own_network("own_nets:make")
    state = {name: torch.full_like(value, 0.5) for name, value in network.state_dict().items()}
    torch.save({"model": {name: value + 1 for name, value in state.items()}, "ema": state}, "net.pt")
    options = ("--network", "own_nets:make", "--dataset", "grey.npz", "--checkpoint", "net.pt", *QUICK)
    answer = dynconf("convert", *options, "--no-fixed-point", "--thresholds", "max")
    assert answer.code == 0 and "that under 'model' is taken, not 'ema'" in " ".join(answer.error.split())
    biases = {}
    for key in ("model", "ema"):
        assert dynconf("convert", *options, "--weights", key, "--no-fixed-point").code == 0
        biases[key] = float(load_snn("snn.pt").graph.output.tensors["bias"][0])
    assert biases == {"model": 1.5, "ema": 0.5}


BAD: dict[str, tuple[list[str], str]] = {
    "no network": (["--dataset", "grey.npz"], "give one of both"),
    "two networks": (["--architecture", "resnet20", "--network", "own_nets:make"], "give one of both"),
    "no weights": (["--architecture", "resnet20", "--dataset", "grey.npz"], "give the file of the weights of resnet20"),
    "no data": (["--network", "own_nets:make"], "--dataset: name the images for own_nets:make"),
    "no such data": (["--network", "own_nets:make", "--dataset", "none.npz"], "'none.npz' does not exist: give a folder"),
    "channels": (
        ["--network", "own_nets:of_colours", "--dataset", "grey.npz"],
        "takes 3 channels, the images have 1; --channels 3 repeats grey ones",
    ),
    "features": (["--network", "own_nets:flat", "--dataset", "grey.npz"], "own_nets:flat does not take images of the shape"),
    "classes": (["--network", "own_nets:make", "--dataset", "many.npz"], "has 12 classes, but own_nets:make 10"),
    "classes from 1": (["--network", "own_nets:make", "--dataset", "from_one.npz"], "begin at 1: number the classes from 0"),
    "no such name": (["--network", "own_nets:make", "--dataset", "mnist"], "module:NAME, or the path of your own data"),
    "of the network's": (
        ["--network", "own_nets:make", "--dataset", "digits", "--size", "8"],
        "--size 8: it is for data of your",
    ),
    "no module": (["--network", "missing:make", "--dataset", "grey.npz"], "there is no module missing"),
    "no function": (["--network", "own_nets:mk", "--dataset", "grey.npz"], "module own_nets has no 'mk'"),
    "arguments": (["--network", "own_nets:sized", "--dataset", "grey.npz"], "cannot be called without arguments"),
    "raises": (["--network", "own_nets:broken", "--dataset", "grey.npz"], "cannot be made: RuntimeError: no weights here"),
    "returns None": (["--network", "own_nets:nothing", "--dataset", "grey.npz"], "returns None: it must"),
    "a number": (["--network", "own_nets:number", "--dataset", "grey.npz"], "is an int: name a function"),
    "key alone": (["--network", "own_nets:make", "--dataset", "grey.npz", "--weights", "ema"], "--checkpoint names none"),
    "default": (["--network", "own_nets:make", "--checkpoint", "default", "--dataset", "grey.npz"], "no weights are published"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_work_is_refused_with_the_reason(dynconf: Command, case: str) -> None:
    written(Path())
    options, words = BAD[case]
    answer = dynconf("convert", *options, *QUICK)
    assert (answer.code, answer.out) == (2, ""), answer
    assert words in " ".join(answer.error.split()) and "Traceback" not in answer.error
    assert not Path("snn.pt").exists()


def test_logits_of_another_form_are_refused() -> None:
    class Pair(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x, x

    for network, words in ((Pair(), "gives tuple for one image"), (nn.Identity(), r"gives \(1, 1, 4, 4\) for one")):
        with pytest.raises(InputError, match=words):
            check_takes(network, torch.zeros(1, 1, 4, 4), "it")
